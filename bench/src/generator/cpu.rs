//! Pinning threads.

use rustix::thread::{CpuSet, sched_setaffinity};

use super::{Error, Result};

/// Pins the calling thread to `core`.
///
/// # Errors
/// The core does not exist, or this process may not use it.
pub fn pin_to(core: usize) -> Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(Error::Core { core, error: rustix::io::Errno::INVAL });
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| Error::Core { core, error })
}

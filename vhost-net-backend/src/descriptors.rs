//! Descriptors that frontends cannot take.
//!
//! The system gives out the lowest free number, so the number of a new descriptor tells how many
//! are open. The highest numbers that the process may have are kept for its own work, such as
//! serving its control socket: what is for a frontend and gets such a number is closed again.

use std::os::fd::{AsFd, AsRawFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};

/// How many descriptors frontends leave to the rest of the process; a quarter, if it may have few.
pub const RESERVE: u64 = 256;

/// Why a port or a connection is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no descriptors are left: the process may have {limit}, of which it keeps {} for itself; raise \
     its limit of open files (LimitNOFILE= of a service, ulimit -n)",
    reserve(*.limit)
)]
pub struct OutOfDescriptors {
    /// The limit of open files.
    pub limit: u64,
}

/// Checks that a new descriptor is not one of those that are kept.
///
/// # Errors
/// It is.
pub fn check(new: impl AsFd) -> Result<(), OutOfDescriptors> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // A descriptor is never negative.
    let number = u64::try_from(new.as_fd().as_raw_fd()).unwrap_or(0);
    if number < limit - reserve(limit) { Ok(()) } else { Err(OutOfDescriptors { limit }) }
}

/// Checks that a frontend's next descriptor would not be one of those that are kept.
///
/// # Errors
/// It would.
pub fn check_next() -> Result<(), OutOfDescriptors> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let next = eventfd(0, EventfdFlags::CLOEXEC).map_err(|_| OutOfDescriptors { limit })?;
    check(next)
}

fn reserve(limit: u64) -> u64 {
    RESERVE.min(limit / 4)
}

//! State of a worker's thread, as the kernel shows it.

use std::time::Duration;

use rustix::thread::{Pid, gettid};
use trama_switch::WorkerHandle;

/// Time limit for any wait on a loaded host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the thread of a worker. The request wakes the thread if it sleeps.
pub(crate) fn thread_of(worker: &WorkerHandle) -> Pid {
    worker.call(|_, _| gettid()).unwrap()
}

/// Returns whether a thread sleeps. One that waits for a processor does not.
pub(crate) fn is_asleep(thread: Pid) -> bool {
    let file = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    // The state follows the name, which is in parentheses.
    std::fs::read_to_string(file).unwrap().contains(") S ")
}

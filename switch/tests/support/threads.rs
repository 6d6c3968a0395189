//! What the kernel says of a worker's thread.

use std::time::Duration;

use rustix::thread::{Pid, gettid};
use trama_switch::WorkerHandle;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The thread of a worker. That it was asked has woken it, if it slept.
pub fn thread_of(worker: &WorkerHandle) -> Pid {
    worker.call(|_, _| gettid()).unwrap()
}

/// Whether a thread sleeps. One that waits for a processor does not.
pub fn is_asleep(thread: Pid) -> bool {
    let file = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    // The state follows the name, which is in parentheses.
    std::fs::read_to_string(file).unwrap().contains(") S ")
}

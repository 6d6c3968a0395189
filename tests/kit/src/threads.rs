//! Threads: their state as the kernel reports it, and the processor's clock.

use rustix::thread::{Pid, gettid};
use trama_switch::WorkerHandle;

/// Returns the thread of a worker. The request wakes the thread if it sleeps.
pub fn thread_of(worker: &WorkerHandle) -> Pid {
    worker.call(|_, _| gettid()).unwrap()
}

/// Returns whether a thread sleeps. One that waits for a processor does not.
pub fn is_asleep(thread: Pid) -> bool {
    let file = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    // The state follows the name, which is in parentheses.
    std::fs::read_to_string(file).unwrap().contains(") S ")
}

/// Reads the time-stamp counter; 0 where there is none.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has a time-stamp counter, and reading it does nothing else.
    #[expect(unsafe_code, reason = "reads the time-stamp counter")]
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

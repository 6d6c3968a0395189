//! The end of a process that is known by its pidfd: of a child, or of another process's child.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Whether the process has ended.
pub(crate) fn has_ended(pidfd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Waits until the process has ended, and returns its status in words; `None` if it is not a child
/// of this process, to which the kernel tells no status.
pub(crate) fn status_at_end(pidfd: impl AsFd) -> Option<String> {
    while poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) == Err(Errno::INTR) {}
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok()??;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(format!("exit status: {code}")),
        (None, Some(signal)) => Some(format!("signal: {signal}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by its pidfd")]
    fn the_end_of_a_child_is_seen_with_its_status() {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = Pid::from_child(&child);
        let pidfd = pidfd_open(id, PidfdFlags::empty()).unwrap();
        assert!(!has_ended(&pidfd));
        kill_process(id, Signal::KILL).unwrap();
        assert_eq!(status_at_end(&pidfd).as_deref(), Some("signal: 9"));
        assert!(has_ended(&pidfd));
        assert_eq!(status_at_end(&pidfd), None, "it was waited for");
    }
}

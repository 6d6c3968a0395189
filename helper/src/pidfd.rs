//! A process that is known by its pidfd, and its end: a child, or another process's child.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Whether the process has ended.
pub(crate) fn has_ended(pidfd: impl AsFd) -> bool {
    ends_within(pidfd, Duration::ZERO)
}

/// Waits until the process has ended, at most this long; returns whether it has.
pub(crate) fn ends_within(pidfd: impl AsFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        // One that is too long for the type is no limit.
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Returns the number of the process; `None` once it has ended and was waited for.
///
/// # Errors
/// It is no pidfd, or there is no `/proc`.
pub(crate) fn process_of(pidfd: impl AsFd) -> io::Result<Option<u32>> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let number = line.ok_or_else(|| io::Error::other("the descriptor is no pidfd"))?;
    // It is -1 then.
    Ok(number.trim().parse().ok())
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
        assert!(!ends_within(&pidfd, Duration::from_millis(1)));
        assert_eq!(process_of(&pidfd).unwrap(), Some(child.id()));
        kill_process(id, Signal::KILL).unwrap();
        assert_eq!(status_at_end(&pidfd).as_deref(), Some("signal: 9"));
        assert!(has_ended(&pidfd));
        assert_eq!(status_at_end(&pidfd), None, "it was waited for");
        assert_eq!(process_of(&pidfd).unwrap(), None);
        assert!(process_of(io::stdin()).is_err());
    }
}

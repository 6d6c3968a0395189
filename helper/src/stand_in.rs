//! Starts stand-ins: the `tramad` that goes on when another one has ended without a word.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use trama_sandbox::spawn_as;

use crate::request::Setup;

/// The pauses before the first stand-in and those that follow; the last one stays.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1600),
    Duration::from_secs(5),
];
/// A switch that ran for this long is followed without a pause: its start was no fault.
const WELL: Duration = Duration::from_secs(1);

/// What a stand-in's environment lacks: a service manager hears its own process alone.
pub(crate) const OF_THE_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A switch that has ended without a word.
pub(crate) struct Ended {
    pub(crate) process: i32,
    /// How, if it is known: the kernel tells it of an own child.
    pub(crate) how: Option<ExitStatus>,
}

impl Ended {
    /// Waits for the end of the process, a child whose channel has closed.
    pub(crate) fn wait_for(&mut self, child: &mut Child) {
        self.how = child.wait().ok();
    }
}

/// Chooses the pause before the next stand-in.
#[derive(Default)]
pub(crate) struct Pauses {
    /// How many have followed each other, and when the last one was started.
    last: Option<(usize, Instant)>,
}

impl Pauses {
    /// Waits before a stand-in is started.
    pub(crate) fn wait(&mut self) {
        std::thread::sleep(self.next(Instant::now()));
        self.started(Instant::now());
    }

    fn started(&mut self, now: Instant) {
        if let Some((_, started)) = &mut self.last {
            *started = now;
        }
    }

    /// The pause before the stand-in of a switch that has ended now.
    fn next(&mut self, now: Instant) -> Duration {
        let number = match self.last {
            Some((number, started)) if now - started < WELL => (number + 1).min(PAUSES.len() - 1),
            _ => 0,
        };
        self.last = Some((number, now));
        PAUSES[number]
    }
}

/// Starts a stand-in, as this process's user or another; returns the helper's end of its channel.
///
/// # Errors
/// The process cannot be started.
pub(crate) fn start(
    setup: &Setup,
    ended: &Ended,
    user: Option<(u32, u32)>,
) -> io::Result<(OwnedFd, Child)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("tramad").args(&setup.arguments);
    command.args(setup.bridges.map(|seconds| format!("--bridge={seconds}")));
    command.args(["stand-in", "--after"]);
    command.arg(ended.process.to_string());
    command.arg("--control").args(&setup.control);
    if let Some(how) = &ended.how {
        command.arg("--ended").arg(how.to_string());
        command.args(how.signal().map(|signal| format!("--by={signal}")));
    }
    for name in OF_THE_MANAGER {
        command.env_remove(name);
    }
    command.stdin(Stdio::from(theirs)).process_group(0);
    let child = match user {
        None => command.spawn()?,
        Some(user) => spawn_as(&mut command, user)?,
    };
    Ok((ours, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_switch_was_well() {
        let mut pauses = Pauses::default();
        let mut now = Instant::now();
        let mut taken = Vec::new();
        for _ in 0..7 {
            let pause = pauses.next(now);
            taken.push(pause.as_millis());
            pauses.started(now + pause);
            now += pause + Duration::from_millis(10);
        }
        assert_eq!(taken, [0, 100, 400, 1600, 5000, 5000, 5000]);
        assert_eq!(pauses.next(now + WELL), Duration::ZERO);
        assert_eq!(pauses.next(now + WELL), Duration::from_millis(100));
    }
}

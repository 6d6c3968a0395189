//! Waits for calls: how a sleeping driver spends the time between its frames.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::port::Port;

/// Sleeping takes two system calls and a wake-up, which does not pay below this many nanoseconds,
/// ...
const SHORTEST: u64 = 100_000;
/// ... and ends this much early, to make up for the wake-up.
const EARLY: u64 = 50_000;
const TIMER: Token = Token(usize::MAX);

/// Waits for the calls of a group's receive rings.
pub(super) struct Waiter {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
}

impl Waiter {
    pub(super) fn new(ports: &[Port]) -> io::Result<Waiter> {
        let poll = Poll::new()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let register = |fd: i32, token| {
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
        };
        for (index, port) in ports.iter().enumerate() {
            register(port.receive_call().as_raw_fd(), Token(index))?;
        }
        register(timer.as_raw_fd(), TIMER)?;
        Ok(Waiter { poll, events: Events::with_capacity(ports.len() + 1), timer })
    }

    /// Waits until a port is called, or until shortly before `nanos` nanoseconds have passed.
    /// Returns the called ports; readiness is edge-triggered, so there is nothing to read.
    pub(super) fn wait(&mut self, nanos: u64) -> io::Result<impl Iterator<Item = usize>> {
        let timeout = if nanos < SHORTEST {
            Some(Duration::ZERO)
        } else {
            let sleep = Duration::from_nanos(nanos - EARLY);
            let it_value =
                Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            None
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        Ok(self.events.iter().map(|event| event.token()).filter(|t| *t != TIMER).map(|t| t.0))
    }
}

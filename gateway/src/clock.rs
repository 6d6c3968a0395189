//! The process's clock: it advances while the machine sleeps, and cannot be set.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use trama_dhcp::Time;

/// A clock that starts at zero.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    began: Duration,
    epoch: Time,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        // A wall clock before 1970 is not set; leases then count from 1970.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { began: boot_time(), epoch: Time(0) + wall }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        boot_time().saturating_sub(self.began)
    }

    /// The wall clock at the start.
    pub(crate) fn epoch(&self) -> Time {
        self.epoch
    }
}

fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

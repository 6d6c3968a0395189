//! The data plane's time: always an argument, never read inside.
//!
//! The worker reads the monotonic clock once a round; the simulation counts its own. A [`Time`] is
//! nanoseconds since the worker's start, so runs with the same input are identical.

use std::ops::Add;
use std::time::Duration;

/// An instant: nanoseconds since the worker's start (virtual in a simulation).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The worker's start.
    pub const ZERO: Time = Time(0);

    /// Returns the instant `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Returns the nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later.
    pub const fn saturating_sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the maximum, 584 years.
    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// When [`Time::ZERO`] was on the system's monotonic clock, which processes share until the host
/// restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epoch(i64);

impl Epoch {
    /// Returns the epoch of a clock that shows `now`. Reads the system's clock.
    pub fn of(now: Time) -> Epoch {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Epoch((clock.tv_sec * 1_000_000_000 + clock.tv_nsec).wrapping_sub_unsigned(now.0))
    }

    /// Makes the epoch that is at `nanos` nanoseconds of the monotonic clock.
    pub const fn from_nanos(nanos: i64) -> Epoch {
        Epoch(nanos)
    }

    /// Returns the nanoseconds of the monotonic clock at [`Time::ZERO`].
    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate() {
        let (early, late) = (Time::from_nanos(5), Time::from_nanos(9));
        assert_eq!(late.saturating_sub(early), Duration::from_nanos(4));
        assert_eq!(early.saturating_sub(late), Duration::ZERO);
        assert_eq!(early + Duration::from_nanos(4), late);
        assert_eq!(Time(u64::MAX) + Duration::from_secs(1), Time(u64::MAX));
    }
}

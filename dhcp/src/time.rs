//! The server's clock reading: an argument everywhere, never asked for inside.
//!
//! Leases outlive the process, so a [`Time`] counts from the Unix epoch. It should follow a clock
//! that no one sets: read the wall clock once at the start and add a monotonic clock that counts
//! while the machine sleeps (`CLOCK_BOOTTIME`). A wall clock that is set forward would end leases
//! that their holders still use.

use std::ops::Add;
use std::time::Duration;

/// An instant: milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// The instant `seconds` after the Unix epoch.
    pub const fn from_secs(seconds: u64) -> Time {
        Time(seconds.saturating_mul(1000))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn saturating_sub(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the far end. Parts of a millisecond are dropped.
    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The whole seconds of a duration, as messages have them; at most `u32::MAX`.
pub(crate) fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let (early, late) = (Time::from_secs(1), Time(1500));
        assert_eq!(late.saturating_sub(early), Duration::from_millis(500));
        assert_eq!(early.saturating_sub(late), Duration::ZERO);
        assert_eq!(early + Duration::from_micros(500_900), late);
        assert_eq!(Time(u64::MAX) + Duration::from_secs(1), Time(u64::MAX));
    }
}

//! The agent's clock reading: an argument everywhere, never asked for inside.

use std::ops::Add;
use std::time::Duration;

/// An instant: milliseconds since one that the driver chooses, on a clock that no one sets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Returns the milliseconds since `earlier`; 0 if this is not after it.
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the far end. Parts of a millisecond are dropped.
    fn add(self, later: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }
}

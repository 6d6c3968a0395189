//! The generator's clock.

use std::time::{Duration, Instant};

/// Nanoseconds since a moment of its own. It stands still between two readings: all that is found
/// by one look at the rings is dated alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    #[inline(always)]
    pub(super) fn now(self) -> u64 {
        nanos(self.0.elapsed())
    }
}

/// A duration in nanoseconds; those above 584 years are all the same.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

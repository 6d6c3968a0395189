//! The generator's clock.

use std::time::{Duration, Instant};

/// Nanoseconds since the clock's start. The value changes only on a reading: all frames found in
/// one poll of the rings get the same time.
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

/// Returns a duration in nanoseconds, saturating at 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

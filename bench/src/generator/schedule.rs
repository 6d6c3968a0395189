//! When frames are due.

/// Fractions of a nanosecond have 20 bits: at 100 million frames a second, the error after a
/// billion frames is at most a millisecond.
const FRACTION: u32 = 20;

/// The send times of one sender.
#[derive(Clone, Debug)]
pub(super) enum Schedule {
    /// Open loop: by the clock, independent of what happens to the frames.
    Paced {
        /// When the next frame is due, and the period, in 2^-20 ns.
        next: u64,
        period: u64,
        /// End of the schedule, in nanoseconds.
        end: u64,
    },
    /// As fast as the ring takes them, until a time in nanoseconds.
    Unpaced { end: u64 },
    /// This many frames, as fast as the ring takes them.
    Counted { left: u64 },
}

impl Schedule {
    /// Returns a schedule of `rate` frames a second, starting after `offset` periods, until `end`
    /// nanoseconds.
    pub(super) fn paced(rate: f64, offset: f64, end: u64) -> Schedule {
        let period = (1e9 / rate * f64::from(1u32 << FRACTION)) as u64;
        Schedule::Paced { next: (period as f64 * offset) as u64, period, end }
    }

    /// Returns whether frames are due at any time, not by the clock.
    pub(super) fn is_unpaced(&self) -> bool {
        !matches!(self, Schedule::Paced { .. })
    }

    /// Takes the next frame if it is due; returns its scheduled time.
    #[inline(always)]
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        let time = self.due(now)?;
        match self {
            Schedule::Paced { next, period, .. } => *next += *period,
            Schedule::Unpaced { .. } => {}
            Schedule::Counted { left } => *left -= 1,
        }
        Some(time)
    }

    #[inline(always)]
    fn due(&self, now: u64) -> Option<u64> {
        match *self {
            Schedule::Paced { next, end, .. } => {
                let time = next >> FRACTION;
                (time <= now && time < end).then_some(time)
            }
            Schedule::Unpaced { end } => (now < end).then_some(now),
            Schedule::Counted { left } => (left > 0).then_some(now),
        }
    }

    /// Returns when the next frame is due; `None` after the last one.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        match *self {
            Schedule::Paced { next, end, .. } => Some(next >> FRACTION).filter(|time| *time < end),
            _ => self.due(now),
        }
    }

    /// Returns the number of scheduled frames not taken; called at the end.
    pub(super) fn left(&self) -> u64 {
        match *self {
            Schedule::Paced { next, period, end } => {
                (end << FRACTION).saturating_sub(next).div_ceil(period.max(1))
            }
            Schedule::Unpaced { .. } => 0,
            Schedule::Counted { left } => left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_paced_schedule_keeps_its_rate() {
        for rate in [1.0, 3.0, 1000.0, 14_880_952.0, 100e6] {
            let mut schedule = Schedule::paced(rate, 0.0, 1 << 40);
            let mut taken = 0;
            let end = SECOND.min((1e6 / rate * 1e9) as u64).max((1e9 / rate) as u64);
            while schedule.take(end - 1).is_some() {
                taken += 1;
            }
            let expected = rate * end as f64 / 1e9;
            assert!((taken as f64 - expected).abs() <= 1.0 + expected * 1e-6, "{rate}: {taken}");
        }
    }

    #[test]
    fn frames_keep_the_time_for_which_they_were_scheduled() {
        let mut schedule = Schedule::paced(1e6, 0.5, 10_000);
        assert_eq!(schedule.take(499), None);
        assert_eq!(schedule.take(500), Some(500));
        assert_eq!(schedule.take(1_499), None);
        // The generator was held up: the frames get their scheduled times, not the clock's.
        let times: Vec<_> = std::iter::from_fn(|| schedule.take(4_600)).collect();
        assert_eq!(times, [1_500, 2_500, 3_500, 4_500]);
        assert_eq!((schedule.next(4_600), schedule.left()), (Some(5_500), 5));
        let rest: Vec<_> = std::iter::from_fn(|| schedule.take(1 << 40)).collect();
        assert_eq!(rest, [5_500, 6_500, 7_500, 8_500, 9_500]);
        assert_eq!((schedule.next(1 << 40), schedule.left()), (None, 0));
    }

    #[test]
    fn unpaced_schedules_end() {
        let mut until = Schedule::Unpaced { end: 100 };
        assert_eq!((until.take(7), until.take(99), until.take(100)), (Some(7), Some(99), None));
        let mut counted = Schedule::Counted { left: 2 };
        assert_eq!((counted.take(5), counted.left()), (Some(5), 1));
        assert_eq!((counted.take(6), counted.take(7), counted.left()), (Some(6), None, 0));
    }
}

//! Decides by trials whether loaded rings are held back (see [`crate::ports::hold_off`]).
//!
//! Holding moves half as many frames again when drivers send as fast as their frames come back, and
//! only adds delay when drivers send at their own pace. The ring does not show which is the case,
//! so each network tries: under load it compares, from time to time, a short period with holding
//! and one without. Holding is kept if it moves clearly more; three trials in a row must agree on a
//! change. Trials are a few milliseconds apart while things change and a fifth of a second later
//! on. They affect less than 0.5 % of the frames, so the 99th percentile of the delay stays that of
//! the better mode.

use std::time::Duration;

use crate::time::Time;

/// Chains in one turn that count as load: a burst of the size that network drivers send.
pub(crate) const LOADED_CHAINS: usize = 32;
/// How long each mode is measured, after [`SETTLE`] to take effect.
const MEASURE: Duration = Duration::from_micros(500);
const SETTLE: Duration = Duration::from_micros(200);
/// Shortest and longest time between trials; it doubles while nothing changes.
const PAUSE: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(200)];
/// Trials in a row that must agree.
const AGREEING_TRIALS: u8 = 3;
/// What holding must move, in percent of the rate without it, to be adopted and to be kept. With
/// testpmd at 60 bytes holding moved 16.6 Mpps, and 11.2 without; drivers with their own pace move
/// the same.
const ADOPT_PERCENT: u64 = 115;
const KEEP_PERCENT: u64 = 108;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Pause,
    /// Measures the current mode.
    Current,
    /// Lets the other mode take effect.
    Settle,
    /// Measures the other mode.
    Alternative,
}

/// The trials of one network.
pub(crate) struct Batching {
    /// Whether rings are held between trials.
    holds: bool,
    phase: Phase,
    until: Time,
    pause: Duration,
    /// Chains taken in this phase, and those that the current mode took in its own.
    taken: u64,
    current: u64,
    /// Whether a turn of this phase was load.
    loaded: bool,
    agreed: u8,
}

impl Batching {
    pub(crate) fn new() -> Batching {
        Batching {
            holds: false,
            phase: Phase::Pause,
            until: Time::ZERO,
            pause: PAUSE[0],
            taken: 0,
            current: 0,
            loaded: false,
            agreed: 0,
        }
    }

    /// Returns whether a loaded ring may be held back now.
    #[inline]
    pub(crate) fn may_hold(&self) -> bool {
        self.holds != matches!(self.phase, Phase::Settle | Phase::Alternative)
    }

    /// Records that a turn took `taken` chains off a ring.
    #[inline]
    pub(crate) fn served(&mut self, taken: usize) {
        self.taken += taken as u64;
        self.loaded |= taken >= LOADED_CHAINS;
    }

    /// Advances the time.
    #[inline]
    pub(crate) fn tick(&mut self, now: Time) {
        if now >= self.until {
            self.next(now);
        }
    }

    #[cold]
    fn next(&mut self, now: Time) {
        let taken = std::mem::take(&mut self.taken);
        let loaded = std::mem::take(&mut self.loaded);
        let (phase, length) = match self.phase {
            Phase::Pause if loaded => (Phase::Current, MEASURE),
            Phase::Pause => (Phase::Pause, self.end_idle()),
            Phase::Current => {
                self.current = taken;
                (Phase::Settle, SETTLE)
            }
            Phase::Settle => (Phase::Alternative, MEASURE),
            Phase::Alternative => (Phase::Pause, self.end_trial(taken)),
        };
        self.phase = phase;
        self.until = now + length;
    }

    /// Ends a phase without load: the next one begins without holding, and a trial comes soon.
    fn end_idle(&mut self) -> Duration {
        self.holds = false;
        self.agreed = 0;
        self.pause = PAUSE[0];
        self.pause
    }

    /// Ends a trial; returns the time until the next.
    fn end_trial(&mut self, other: u64) -> Duration {
        let changes = if self.holds {
            self.current * 100 < other * KEEP_PERCENT
        } else {
            other * 100 >= self.current * ADOPT_PERCENT
        };
        if !changes {
            self.agreed = 0;
            self.pause = (2 * self.pause).min(PAUSE[1]);
            return self.pause;
        }
        self.agreed += 1;
        if self.agreed == AGREEING_TRIALS {
            self.holds = !self.holds;
            self.agreed = 0;
            self.pause = PAUSE[0];
        }
        PAUSE[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives `batching` for `millis` with a turn every 5 µs that takes what `rate` says for held
    /// or not held rings; returns the share of time, in percent, in which they were held.
    fn drive(batching: &mut Batching, from: u64, millis: u64, rate: impl Fn(bool) -> usize) -> u64 {
        let steps = millis * 200;
        let mut held = 0;
        for step in 0..steps {
            batching.tick(Time(from + step * 5_000));
            held += u64::from(batching.may_hold());
            batching.served(rate(batching.may_hold()));
        }
        held * 100 / steps
    }

    #[test]
    fn drivers_that_wait_for_their_frames_are_held_soon() {
        let mut batching = Batching::new();
        let gains = |held: bool| if held { 80 } else { 40 };
        drive(&mut batching, 0, 10, gains);
        assert!(drive(&mut batching, 10_000_000, 1000, gains) >= 99);
    }

    #[test]
    fn drivers_with_a_pace_of_their_own_are_not_held() {
        let mut batching = Batching::new();
        drive(&mut batching, 0, 500, |_| 40);
        assert_eq!(drive(&mut batching, 500_000_000, 2000, |_| 40), 0);
    }

    #[test]
    fn holding_ends_when_it_no_longer_pays() {
        let mut batching = Batching::new();
        drive(&mut batching, 0, 10, |held| if held { 80 } else { 40 });
        assert!(batching.may_hold());
        drive(&mut batching, 10_000_000, 800, |_| 40);
        assert_eq!(drive(&mut batching, 810_000_000, 2000, |_| 40), 0);
    }

    #[test]
    fn the_end_of_load_ends_holding_and_trials() {
        let mut batching = Batching::new();
        drive(&mut batching, 0, 10, |held| if held { 80 } else { 40 });
        drive(&mut batching, 10_000_000, 400, |_| 3);
        assert!(!batching.may_hold());
        assert_eq!(drive(&mut batching, 410_000_000, 500, |_| 3), 0);
        assert_eq!(batching.phase, Phase::Pause);
    }

    #[test]
    fn one_trial_that_was_disturbed_changes_nothing() {
        let mut batching = Batching::new();
        drive(&mut batching, 0, 300, |_| 40);
        let mut disturbed = 0;
        for step in 0..400_000u64 {
            batching.tick(Time(300_000_000 + step * 5_000));
            // Other load disturbs the current phase of two trials.
            let is_disturbed = batching.phase == Phase::Current && disturbed < 200;
            disturbed += u64::from(is_disturbed);
            batching.served(if is_disturbed { 10 } else { 40 });
            assert!(!batching.holds);
        }
        assert_eq!(disturbed, 200);
    }
}

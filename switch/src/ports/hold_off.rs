//! Decides when a transmit ring is served: at once, or, under load, when enough chains wait.
//!
//! Serving a ring as soon as a chain appears puts driver and switch in lock-step on the same cache
//! lines: each waits for the other's last store instead of working through a batch. So after a turn
//! that found many chains, the next one waits until a good part of the ring is filled, the driver
//! pauses, or time is up. A ring with few chains is never held back, so at low rates no delay is
//! added. Under load, `engine::batching` decides whether holding pays.
//!
//! Measured with testpmd forwarding between two ports of 1024 entries, 60-byte frames, variants
//! taking turns within a run: no hold-off 11.2 Mpps; at most 10 µs 11.1; 20 µs 11.9; 30 µs 15.9; 40
//! µs 16.6. Serving when the driver pauses costs nothing at 8 µs (16.8), some at 4 µs (14.2) and
//! everything at 2 µs (10.9), since testpmd itself alternates between its two ports.

use crate::engine::LOADED_CHAINS;
use crate::time::Time;

/// Chains that end the wait, unless half of the ring is fewer.
const RELEASE_AT: u16 = 256;
/// Longest wait since the ring was last served, in nanoseconds.
const MAX_HOLD_NANOS: u64 = 40_000;
/// A driver that adds nothing for this many nanoseconds has paused.
const PAUSE_NANOS: u64 = 8_000;

/// The state of one ring.
pub(crate) struct HoldOff {
    release_at: u16,
    /// Whether the last turn found load.
    loaded: bool,
    served: Time,
    /// Chains seen waiting, and when their number last changed.
    waiting: u16,
    last_growth: Time,
}

impl HoldOff {
    /// Makes the state for a ring of `size` entries, half of which stay free for the driver to
    /// fill.
    pub(crate) fn new(size: u16) -> HoldOff {
        HoldOff {
            release_at: RELEASE_AT.min(size / 2),
            loaded: false,
            served: Time::ZERO,
            waiting: 0,
            last_growth: Time::ZERO,
        }
    }

    /// Returns whether a ring with `waiting` chains (at least one) is better served later.
    #[inline]
    pub(crate) fn holds(&mut self, waiting: u16, now: Time) -> bool {
        if !self.loaded || waiting >= self.release_at {
            return false;
        }
        if waiting != self.waiting {
            self.waiting = waiting;
            self.last_growth = now;
        }
        let since = |then: Time| now.0.saturating_sub(then.0);
        since(self.served) < MAX_HOLD_NANOS && since(self.last_growth) < PAUSE_NANOS
    }

    /// Records that the ring was served and `taken` chains were found.
    #[inline]
    pub(crate) fn served(&mut self, taken: usize, now: Time) {
        self.loaded = taken >= LOADED_CHAINS;
        self.served = now;
        self.waiting = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(size: u16) -> HoldOff {
        let mut hold = HoldOff::new(size);
        hold.served(LOADED_CHAINS, Time(0));
        hold
    }

    #[test]
    fn no_ring_is_held_at_low_rates() {
        let mut hold = HoldOff::new(1024);
        assert!(!hold.holds(1, Time(0)));
        hold.served(LOADED_CHAINS - 1, Time(0));
        assert!(!hold.holds(1, Time(1)));
    }

    #[test]
    fn under_load_a_ring_is_held_until_enough_chains_wait() {
        let mut hold = loaded(1024);
        assert!(hold.holds(1, Time(100)));
        assert!(hold.holds(255, Time(200)));
        assert!(!hold.holds(256, Time(300)));
        assert!(!loaded(64).holds(32, Time(100)), "half of a small ring");
    }

    #[test]
    fn a_driver_that_pauses_is_served() {
        let mut hold = loaded(1024);
        assert!(hold.holds(10, Time(5_000)));
        assert!(hold.holds(10, Time(5_000 + PAUSE_NANOS - 1)));
        assert!(!hold.holds(10, Time(5_000 + PAUSE_NANOS)));
    }

    #[test]
    fn no_ring_is_held_longer_than_the_maximum() {
        let mut hold = loaded(1024);
        let steps = (1..=250).take_while(|i| hold.holds(*i, Time(u64::from(*i) * 1000)));
        assert_eq!(steps.count(), 39);
    }

    #[test]
    fn the_end_of_load_ends_holding() {
        let mut hold = loaded(1024);
        assert!(hold.holds(3, Time(1000)));
        hold.served(3, Time(9000));
        assert!(!hold.holds(1, Time(9001)));
    }
}

//! Storm limits: how many flooded frames a port may send in a second.
//!
//! Each kind of flooded frame has a token bucket that holds one second of its limit. Tokens are
//! counted in billionths of a frame, so a bucket fills by its limit each nanosecond. The time is
//! that of the worker's round, and nothing happens here while nothing is flooded.
//!
//! A storm lasts from the first frame that is dropped until none was for [`QUIET`].

use std::fmt;
use std::time::Duration;

use trama_frame::VlanId;

use crate::time::Time;

/// A frame, in tokens.
const FRAME: u64 = 1_000_000_000;
/// Longest time that fills a bucket, in nanoseconds: more would not fit into it.
const FULL: u64 = 1_000_000_000;
/// How long after its last dropped frame a storm is over.
const QUIET: Duration = Duration::from_secs(5);

/// Why a frame is flooded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FloodKind {
    /// It is for all stations.
    Broadcast,
    /// It is for another group.
    Multicast,
    /// Its destination is not in the MAC table.
    Unknown,
}

impl FloodKind {
    /// Every value.
    pub const ALL: [FloodKind; 3] =
        [FloodKind::Broadcast, FloodKind::Multicast, FloodKind::Unknown];

    /// Returns its word in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            FloodKind::Broadcast => "broadcast",
            FloodKind::Multicast => "multicast",
            FloodKind::Unknown => "unknown unicast",
        }
    }
}

impl fmt::Display for FloodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A storm at a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Storm {
    /// Why its frames are flooded.
    pub kind: FloodKind,
    /// The VLAN of the frame that was dropped last.
    pub vlan: VlanId,
}

/// Most flooded frames that a port may send, in frames a second and in one burst; 0: any number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StormLimits {
    /// Broadcast frames.
    pub broadcast: u32,
    /// Multicast frames.
    pub multicast: u32,
    /// Unicast frames for unknown addresses.
    pub unknown: u32,
}

impl StormLimits {
    /// No limits.
    pub const NONE: StormLimits = StormLimits { broadcast: 0, multicast: 0, unknown: 0 };

    /// Returns whether there are none.
    pub fn is_none(&self) -> bool {
        *self == StormLimits::NONE
    }

    /// Returns the limit of one kind.
    pub fn of(&self, kind: FloodKind) -> u32 {
        match kind {
            FloodKind::Broadcast => self.broadcast,
            FloodKind::Multicast => self.multicast,
            FloodKind::Unknown => self.unknown,
        }
    }
}

/// A token bucket.
#[derive(Clone, Copy)]
struct Bucket {
    tokens: u64,
    filled: Time,
    /// When a frame was last dropped, and its VLAN.
    dropped: Option<(Time, VlanId)>,
}

/// The state of a port's limits.
#[derive(Clone)]
pub(crate) struct StormControl {
    buckets: [Bucket; FloodKind::ALL.len()],
}

impl StormControl {
    /// Starts with full buckets.
    pub(crate) fn new() -> StormControl {
        let full = Bucket { tokens: u64::MAX, filled: Time::ZERO, dropped: None };
        StormControl { buckets: [full; FloodKind::ALL.len()] }
    }

    /// Takes a token for a frame; returns `false` if there is none.
    pub(crate) fn admits(&mut self, kind: FloodKind, limits: &StormLimits, now: Time) -> bool {
        let limit = u64::from(limits.of(kind));
        if limit == 0 {
            return true;
        }
        let bucket = &mut self.buckets[kind as usize];
        let since = now.0.saturating_sub(bucket.filled.0).min(FULL);
        bucket.tokens = bucket.tokens.saturating_add(since * limit).min(limit * FRAME);
        bucket.filled = now;
        match bucket.tokens.checked_sub(FRAME) {
            Some(left) => bucket.tokens = left,
            None => return false,
        }
        true
    }

    /// Records that a frame was dropped; returns whether a storm begins with it.
    pub(crate) fn record(&mut self, kind: FloodKind, vlan: VlanId, now: Time) -> bool {
        let begins = self.storm(kind, now).is_none();
        self.buckets[kind as usize].dropped = Some((now, vlan));
        begins
    }

    fn storm(&self, kind: FloodKind, now: Time) -> Option<Storm> {
        let (at, vlan) = self.buckets[kind as usize].dropped?;
        (now.saturating_sub(at) < QUIET).then_some(Storm { kind, vlan })
    }

    /// Returns the storms that last.
    pub(crate) fn storms(&self, now: Time) -> Vec<Storm> {
        FloodKind::ALL.into_iter().filter_map(|kind| self.storm(kind, now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StormLimits = StormLimits { broadcast: 100, multicast: u32::MAX, unknown: 0 };

    fn millis(at: u64) -> Time {
        Time(at * 1_000_000)
    }

    /// Returns how many of `count` frames pass.
    fn passed(control: &mut StormControl, kind: FloodKind, count: usize, now: Time) -> usize {
        (0..count).filter(|_| control.admits(kind, &LIMITS, now)).count()
    }

    #[test]
    fn a_second_of_frames_passes_at_once_and_then_the_rate() {
        let mut control = StormControl::new();
        let mut broadcasts = |count, at| passed(&mut control, FloodKind::Broadcast, count, at);
        assert_eq!(broadcasts(1000, Time::ZERO), 100, "from the start");
        assert_eq!(broadcasts(1000, millis(9)), 0);
        assert_eq!(broadcasts(1000, millis(10)), 1);
        let steady: usize = (0..10_000).map(|at| broadcasts(3, millis(10 + at))).sum();
        assert_eq!(steady, 999, "a frame each 10 ms");
        assert_eq!(broadcasts(1000, millis(3_600_000)), 100, "no more however long it was quiet");
        assert_eq!(broadcasts(1, Time(u64::MAX)), 1);
    }

    #[test]
    fn each_kind_has_its_own_limit() {
        let mut control = StormControl::new();
        assert_eq!(passed(&mut control, FloodKind::Broadcast, 200, millis(5)), 100);
        assert_eq!(passed(&mut control, FloodKind::Unknown, 200, millis(5)), 200, "no limit");
        // The largest limit does not overflow.
        for at in [millis(5), millis(9_000), Time(u64::MAX)] {
            assert_eq!(passed(&mut control, FloodKind::Multicast, 200, at), 200);
        }
        // A lower limit holds at once.
        let lower = StormLimits { multicast: 1, ..LIMITS };
        let at = millis(20_000);
        let admitted = (0..9).filter(|_| control.admits(FloodKind::Multicast, &lower, at)).count();
        assert_eq!(admitted, 1);
    }

    #[test]
    fn a_storm_is_over_after_a_quiet_time() {
        let mut control = StormControl::new();
        let (vlan, other) = (VlanId::NONE, VlanId::new(10).unwrap());
        let kinds = |control: &StormControl, at| -> Vec<_> {
            control.storms(millis(at)).iter().map(|storm| (storm.kind, storm.vlan)).collect()
        };
        assert!(control.record(FloodKind::Broadcast, vlan, millis(0)));
        assert!(!control.record(FloodKind::Broadcast, other, millis(4_999)));
        assert!(control.record(FloodKind::Unknown, vlan, millis(5_000)));
        let (broadcast, unknown) = ((FloodKind::Broadcast, other), (FloodKind::Unknown, vlan));
        assert_eq!(kinds(&control, 9_998), [broadcast, unknown]);
        assert_eq!(kinds(&control, 9_999), [unknown]);
        assert!(control.record(FloodKind::Broadcast, vlan, millis(9_999)));
    }
}

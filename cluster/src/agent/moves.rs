//! Stations that move too often: two hosts have one address, and each frame moves it.
//!
//! Five moves within 180 s (the limits of EVPN, RFC 7432, section 15.1) freeze a station where it
//! is: this host does not claim it for 60 s, and twice as long each time that it happens again, up
//! to an hour. Each host counts the moves from and to itself, which are all of them if there are
//! two.

use std::collections::HashMap;

use trama_frame::vxlan::Vni;

use crate::Time;
use crate::key::StationKey;

const MOST: u32 = 5;
const WINDOW: u64 = 180_000;
const FIRST_HOLD: u64 = 60_000;
const LAST_HOLD: u64 = 3_600_000;
/// Stations that are counted; more begin from zero.
const CAPACITY: usize = 4096;

#[derive(Debug)]
struct Count {
    since: Time,
    moves: u32,
    frozen: Option<Time>,
    hold: u64,
}

impl Count {
    fn is_over(&self, now: Time) -> bool {
        let end = self.frozen.unwrap_or(self.since);
        now.since(end) > WINDOW.max(self.hold)
    }
}

#[derive(Default, Debug)]
pub(super) struct Moves(HashMap<(Vni, StationKey), Count>);

impl Moves {
    /// Whether this host must not claim the station.
    pub(super) fn is_frozen(&self, now: Time, vni: Vni, station: StationKey) -> bool {
        let frozen = self.0.get(&(vni, station)).and_then(|count| count.frozen);
        frozen.is_some_and(|until| now < until)
    }

    /// Counts a move.
    pub(super) fn count(&mut self, now: Time, vni: Vni, station: StationKey) {
        if self.0.len() >= CAPACITY {
            self.0.retain(|_, count| !count.is_over(now));
        }
        if self.0.len() >= CAPACITY {
            self.0.clear();
        }
        let fresh = || Count { since: now, moves: 0, frozen: None, hold: FIRST_HOLD };
        let count = self.0.entry((vni, station)).or_insert_with(fresh);
        if count.is_over(now) {
            *count = fresh();
        } else if now.since(count.since) > WINDOW {
            (count.since, count.moves) = (now, 0);
        }
        count.moves += 1;
        if count.moves >= MOST {
            count.frozen = Some(Time(now.0.saturating_add(count.hold)));
            count.hold = (count.hold * 2).min(LAST_HOLD);
            count.moves = 0;
        }
    }
}

//! Addresses that move between two ports, counted by the pair of ports.
//!
//! In a loop, copies of one frame come in at two ports in turn, and their source address moves each
//! time: thousands of times a second. A machine that moves to another host does so once. The count
//! is a reason to look for a loop, not a proof: a bond in balance-rr makes addresses move, too.

use trama_frame::VlanId;

use super::{MacTable, PortIndex};

/// More moves than this within [`WINDOW`] are suspicious.
const LIMIT: u32 = 50;
/// The time over which moves are counted, in ticks: about a second.
const WINDOW: u32 = 4;
/// Pairs counted at a time.
const PAIRS: usize = 16;

/// Two ports between which addresses move more than 50 times a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MovingPair {
    pub vlan: VlanId,
    /// The lower first.
    pub ports: [PortIndex; 2],
}

/// The moves of a pair since the tick `since`.
#[derive(Clone, Copy)]
struct Count {
    of: MovingPair,
    since: u32,
    moves: u32,
    /// Whether [`Moves::take`] has returned it within this window.
    is_taken: bool,
}

/// The counts of the pairs seen last.
pub(super) struct Moves {
    counts: [Count; PAIRS],
    /// Whether one is over the limit and not taken.
    has_new: bool,
    /// Moves of all pairs.
    total: u64,
}

impl Moves {
    pub(super) fn new() -> Moves {
        let of = MovingPair { vlan: VlanId::NONE, ports: [PortIndex(0); 2] };
        let none = Count { of, since: 0, moves: 0, is_taken: false };
        Moves { counts: [none; PAIRS], has_new: false, total: 0 }
    }

    /// Counts a move at tick `now`. A new pair takes the place of the one with the fewest moves.
    pub(super) fn record(&mut self, vlan: VlanId, from: PortIndex, to: PortIndex, now: u32) {
        self.total += 1;
        let of = MovingPair { vlan, ports: [from.min(to), from.max(to)] };
        let place = self.counts.iter().position(|count| count.of == of);
        let count = match place {
            Some(place) => &mut self.counts[place],
            None => {
                let moves = |count: &&mut Count| if count.is_over(now) { 0 } else { count.moves };
                let Some(least) = self.counts.iter_mut().min_by_key(moves) else { return };
                *least = Count { of, since: now, moves: 0, is_taken: false };
                least
            }
        };
        if count.is_over(now) {
            *count = Count { since: now, moves: 0, is_taken: false, ..*count };
        }
        count.moves += 1;
        self.has_new |= count.moves > LIMIT && !count.is_taken;
    }

    /// Returns whether [`Moves::take`] has something to return.
    #[inline]
    pub(super) fn has_new(&self) -> bool {
        self.has_new
    }

    /// Returns a pair over the limit, once in each window.
    pub(super) fn take(&mut self) -> Option<MovingPair> {
        let is_new = |count: &&mut Count| count.moves > LIMIT && !count.is_taken;
        let Some(count) = self.counts.iter_mut().find(is_new) else {
            self.has_new = false;
            return None;
        };
        count.is_taken = true;
        Some(count.of)
    }
}

impl MacTable {
    /// Returns how often an address was learned on another port than before.
    pub fn moves(&self) -> u64 {
        self.moves.total
    }
}

impl Count {
    /// Returns whether its window is over.
    fn is_over(&self, now: u32) -> bool {
        now.saturating_sub(self.since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortIndex = PortIndex(3);
    const B: PortIndex = PortIndex(7);

    fn pair(vlan: VlanId) -> MovingPair {
        MovingPair { vlan, ports: [A, B] }
    }

    #[test]
    fn the_fifty_first_move_of_a_second_is_suspicious_once() {
        let mut moves = Moves::new();
        for n in 0..50 {
            let (from, to) = if n % 2 == 0 { (A, B) } else { (B, A) };
            moves.record(VlanId::NONE, from, to, 100 + n / 25);
            assert!(!moves.has_new());
        }
        for _ in 0..3 {
            moves.record(VlanId::NONE, A, B, 103);
        }
        assert!(moves.has_new());
        assert_eq!(moves.take(), Some(pair(VlanId::NONE)));
        assert_eq!(moves.take(), None);
        moves.record(VlanId::NONE, A, B, 103);
        assert!(!moves.has_new(), "once a window");
        assert_eq!(moves.total, 54);
        // The next second begins at zero.
        (0..50).for_each(|_| moves.record(VlanId::NONE, A, B, 104));
        assert!(!moves.has_new());
        moves.record(VlanId::NONE, A, B, 107);
        assert_eq!(moves.take(), Some(pair(VlanId::NONE)));
    }

    #[test]
    fn slow_moves_are_never_suspicious() {
        let mut moves = Moves::new();
        for tick in 0..10_000 {
            (0..12).for_each(|_| moves.record(VlanId::NONE, A, B, tick));
            assert!(!moves.has_new(), "45 a second, at {tick}");
        }
    }

    #[test]
    fn other_pairs_and_vlans_count_apart_and_do_not_displace_a_busy_one() {
        let mut moves = Moves::new();
        let vlan = VlanId::new(10).unwrap();
        (0..40).for_each(|_| moves.record(vlan, A, B, 0));
        for port in 100..200 {
            moves.record(vlan, A, PortIndex(port), 0);
            moves.record(VlanId::NONE, A, B, 0);
        }
        assert_eq!(moves.take(), Some(pair(VlanId::NONE)));
        assert_eq!(moves.take(), None);
        (0..11).for_each(|_| moves.record(vlan, B, A, 0));
        assert_eq!(moves.take(), Some(pair(vlan)));
    }
}

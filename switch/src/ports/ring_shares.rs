//! Shares of a receive ring: which port filled which buffer.
//!
//! The ring of a gateway belongs to all ports of its network. A port may fill another buffer while
//! it holds fewer than [`FACTOR`] times those that are free (the dynamic threshold of Choudhury and
//! Hahne, 1998). So one sender that the gateway cannot follow keeps four fifths of the ring, two
//! keep four ninths each, and beside them a port that has sent nothing finds room. There is no
//! queue and no copy: a frame is admitted or dropped when it comes, at the cost of one comparison.
//!
//! The driver replaces buffers in the order in which they were filled. So the owners of filled
//! buffers are a queue, and those at its front are paid back as the available index moves on. An
//! index that was read too early only makes a port's part look larger and the rest smaller: what is
//! admitted by an old index is admitted by a new one, too, and only a refusal needs a new one.

use crate::mac_table::PortIndex;
use crate::types::MAX_PORTS;

/// How many times the free buffers a port may hold. A larger factor leaves a lone sender more of
/// the ring, and newcomers less room beside many that flood. On a busy host, an upload of 1 GB lost
/// 1 to 9 % of its large frames with 1, 4 to 5 % with 4, and up to 3 % with 16.
const FACTOR: u32 = 4;

/// Who filled the buffers of a ring that its driver has not replaced yet.
pub(crate) struct RingShares {
    /// The port that filled each buffer, by the count of filled buffers modulo the ring's size.
    owners: Box<[PortIndex]>,
    /// Filled buffers of each port. Pages of ports that a network does not have stay untouched.
    held: Box<[u16]>,
    /// Buffers filled so far, and those of them that were paid back.
    filled: u16,
    paid: u16,
}

impl RingShares {
    /// Makes the shares of a ring of `size` buffers (a power of two), all of them free.
    pub(crate) fn new(size: u16) -> RingShares {
        RingShares {
            owners: vec![PortIndex(0); usize::from(size)].into_boxed_slice(),
            held: vec![0; MAX_PORTS].into_boxed_slice(),
            filled: 0,
            paid: 0,
        }
    }

    /// Returns whether a port may fill another buffer while `free` are free.
    #[inline]
    pub(crate) fn admits(&self, port: PortIndex, free: u16) -> bool {
        u32::from(self.held[usize::from(port.0)]) < FACTOR * u32::from(free)
    }

    /// Records that a port has filled `count` buffers, after which `free` are left.
    #[inline]
    pub(crate) fn fill(&mut self, port: PortIndex, count: u16, free: u16) {
        if usize::from(self.unpaid()) + usize::from(count) > self.owners.len() {
            self.pay_back(free + count);
        }
        for _ in 0..count {
            let place = self.place(self.filled);
            self.owners[place] = port;
            self.filled = self.filled.wrapping_add(1);
        }
        self.held[usize::from(port.0)] += count;
    }

    /// Pays back the ports that filled the oldest buffers, as `free` are free again.
    pub(crate) fn pay_back(&mut self, free: u16) {
        let not_free = self.owners.len() - usize::from(free).min(self.owners.len());
        while usize::from(self.unpaid()) > not_free {
            let owner = self.owners[self.place(self.paid)];
            self.held[usize::from(owner.0)] -= 1;
            self.paid = self.paid.wrapping_add(1);
        }
    }

    /// The place of a filled buffer's owner.
    #[inline]
    fn place(&self, count: u16) -> usize {
        usize::from(count) & (self.owners.len() - 1)
    }

    /// Filled buffers that were not paid back.
    #[inline]
    fn unpaid(&self) -> u16 {
        self.filled.wrapping_sub(self.paid)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const SIZE: u16 = 64;

    /// A ring with its shares, driven as by its device and driver, and a slow model of both.
    struct Lab {
        shares: RingShares,
        /// Owners of filled buffers, oldest first.
        filled: VecDeque<u16>,
    }

    impl Lab {
        fn new() -> Lab {
            Lab { shares: RingShares::new(SIZE), filled: VecDeque::new() }
        }

        fn free(&self) -> u16 {
            SIZE - self.filled.len() as u16
        }

        /// Offers a frame that takes one buffer; returns whether it was admitted.
        fn offer(&mut self, port: u16) -> bool {
            self.shares.pay_back(self.free());
            let held = self.filled.iter().filter(|owner| **owner == port).count();
            let is_admitted = self.shares.admits(PortIndex(port), self.free());
            assert_eq!(is_admitted, held < 4 * usize::from(self.free()), "port {port}");
            if is_admitted {
                self.filled.push_back(port);
                self.shares.fill(PortIndex(port), 1, self.free());
            }
            is_admitted
        }

        /// The driver takes and replaces the oldest buffers.
        fn replace(&mut self, count: usize) {
            self.filled.drain(..count.min(self.filled.len()));
        }
    }

    fn admitted(lab: &mut Lab, port: u16, frames: u16) -> usize {
        (0..frames).filter(|_| lab.offer(port)).count()
    }

    #[test]
    fn a_flooder_keeps_its_share_of_the_ring_and_a_newcomer_finds_room() {
        let mut lab = Lab::new();
        assert_eq!(admitted(&mut lab, 1, 1000), usize::from(SIZE) * 4 / 5 + 1);
        assert_eq!(admitted(&mut lab, 2, 1000), 10, "four fifths of the rest");
        assert!(lab.offer(3), "a port that has sent nothing");
        // The flooder gets what is its own again, and not more.
        lab.replace(10);
        admitted(&mut lab, 1, 1000);
        let held = lab.filled.iter().filter(|owner| **owner == 1).count();
        assert!(held <= usize::from(SIZE) * 4 / 5 + 1, "{held}");
    }

    #[test]
    fn ports_that_flood_together_hold_the_same_in_the_end() {
        let mut lab = Lab::new();
        for _ in 0..1000 {
            for port in 1..=3 {
                lab.offer(port);
            }
            lab.replace(1);
        }
        for port in 1..=3 {
            let held = lab.filled.iter().filter(|owner| **owner == port).count();
            assert!((18..=21).contains(&held), "port {port} holds {held} of {SIZE}");
        }
    }

    #[test]
    fn an_empty_ring_pays_everyone_back() {
        let mut lab = Lab::new();
        for _ in 0..3 * usize::from(u16::MAX) / usize::from(SIZE) {
            assert_eq!(admitted(&mut lab, 7, 100), usize::from(SIZE) * 4 / 5 + 1);
            lab.replace(usize::from(SIZE));
        }
    }

    proptest! {
        /// The model checks each offer.
        #[test]
        fn shares_agree_with_a_model(steps in prop::collection::vec((0u16..6, 0u16..80), 1..200)) {
            let mut lab = Lab::new();
            for (port, count) in steps {
                match port {
                    0 => lab.replace(usize::from(count)),
                    port => {
                        admitted(&mut lab, port, count);
                    }
                }
                let owners: HashSet<_> = lab.filled.iter().collect();
                let newcomer = lab.shares.admits(PortIndex(99), lab.free());
                prop_assert!(newcomer || owners.len() > 2, "no room for a newcomer");
            }
        }

        /// What is admitted by an old available index is admitted by the newest, too.
        #[test]
        fn an_old_index_admits_nothing_that_a_new_one_refuses(
            ports in 1u16..200,
            steps in prop::collection::vec(
                (0u16..200, 1u16..40, 0usize..40, any::<bool>()),
                1..100,
            ),
        ) {
            let mut lab = Lab::new();
            let mut known = SIZE;
            for (port, offers, replaced, looks) in steps {
                let port = port % ports;
                for _ in 0..offers {
                    let held = lab.filled.iter().filter(|owner| **owner == port).count();
                    if lab.shares.admits(PortIndex(port), known) {
                        prop_assert!(held < 4 * usize::from(lab.free()));
                        lab.filled.push_back(port);
                        known -= 1;
                        lab.shares.fill(PortIndex(port), 1, known);
                    }
                }
                lab.replace(replaced);
                if looks {
                    known = lab.free();
                    lab.shares.pay_back(known);
                }
            }
        }
    }
}

//! Fair shares of a limited resource: a switch port gets as much as is left for all others.
//!
//! A single port gets half of the total. Once other ports want some, it gets no more until they
//! have as much: two ports reach a third each, three a quarter.

use std::collections::HashMap;

use rustix::process::{Resource, getrlimit};
use trama_nat::PortMark;

/// How much each port holds.
pub(crate) struct FairShares {
    available: usize,
    taken: HashMap<PortMark, usize>,
}

impl FairShares {
    /// `most` in total, or as many as `1 / part` of the process's descriptors if that is less.
    pub(super) fn new(most: usize, part: usize) -> FairShares {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
        FairShares { available: most.min(files / part), taken: HashMap::new() }
    }

    /// Gives a port one more, unless it has its share.
    #[must_use]
    pub(super) fn acquire(&mut self, port: PortMark) -> bool {
        let taken = self.taken.get(&port).copied().unwrap_or(0);
        if taken >= self.available {
            return false;
        }
        self.available -= 1;
        self.taken.insert(port, taken + 1);
        true
    }

    /// Takes one back from a port.
    pub(super) fn release(&mut self, port: PortMark) {
        let Some(taken) = self.taken.get_mut(&port) else { return };
        *taken -= 1;
        self.available += 1;
        if *taken == 0 {
            self.taken.remove(&port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each port in turn acquires all that it can.
    fn take_all(shares: &mut FairShares, ports: std::ops::Range<u64>) -> Vec<usize> {
        let all = |port| (0..1000).filter(|_| shares.acquire(PortMark(port))).count();
        ports.map(all).collect()
    }

    #[test]
    fn a_port_gets_no_more_than_is_left_for_others() {
        let mut shares = FairShares::new(64, 1);
        assert_eq!(take_all(&mut shares, 0..7), [32, 16, 8, 4, 2, 1, 1]);
        for _ in 0..32 {
            shares.release(PortMark(0));
        }
        assert_eq!(take_all(&mut shares, 0..2), [16, 0], "each has 16, and 16 are left");
        assert_eq!(take_all(&mut shares, 7..8), [8]);
    }

    #[test]
    fn released_shares_are_available_again() {
        let mut shares = FairShares::new(64, 1);
        assert_eq!(take_all(&mut shares, 0..1), [32]);
        (0..40).for_each(|_| shares.release(PortMark(0)));
        assert_eq!((shares.available, shares.taken.len()), (64, 0), "no more than was taken");
        assert_eq!(take_all(&mut shares, 1..2), [32]);
    }
}

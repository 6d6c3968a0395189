//! What switch ports may have of a thing that is limited: each as much as is left for all others.
//!
//! A port alone gets half of all. As soon as others want some, it gets no more until they have as
//! much: two come to a third each, three to a quarter.

use std::collections::HashMap;

use rustix::process::{Resource, getrlimit};

use crate::io::PortMark;

/// How much each port has.
pub(crate) struct Shares {
    left: usize,
    taken: HashMap<PortMark, usize>,
}

impl Shares {
    /// `most` for all together or, if each takes descriptors, what `1 / part` of the process's
    /// descriptors are enough for.
    pub fn new(most: usize, part: usize) -> Shares {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
        Shares { left: most.min(files / part), taken: HashMap::new() }
    }

    /// Gives a port one more. False: it has its share.
    #[must_use]
    pub fn take(&mut self, port: PortMark) -> bool {
        let taken = self.taken.get(&port).copied().unwrap_or(0);
        if taken >= self.left {
            return false;
        }
        self.left -= 1;
        self.taken.insert(port, taken + 1);
        true
    }

    /// Takes one back from a port.
    pub fn give_back(&mut self, port: PortMark) {
        let Some(taken) = self.taken.get_mut(&port) else { return };
        *taken -= 1;
        self.left += 1;
        if *taken == 0 {
            self.taken.remove(&port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has each port in its turn take all that it gets.
    fn take_all(shares: &mut Shares, ports: std::ops::Range<u64>) -> Vec<usize> {
        let all = |port| (0..1000).filter(|_| shares.take(PortMark(port))).count();
        ports.map(all).collect()
    }

    #[test]
    fn a_port_gets_no_more_than_is_left_for_others() {
        let mut shares = Shares::new(64, 1);
        assert_eq!(take_all(&mut shares, 0..7), [32, 16, 8, 4, 2, 1, 1]);
        for _ in 0..32 {
            shares.give_back(PortMark(0));
        }
        assert_eq!(take_all(&mut shares, 0..2), [16, 0], "each has 16, and 16 are left");
        assert_eq!(take_all(&mut shares, 7..8), [8]);
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let mut shares = Shares::new(64, 1);
        assert_eq!(take_all(&mut shares, 0..1), [32]);
        (0..40).for_each(|_| shares.give_back(PortMark(0)));
        assert_eq!((shares.left, shares.taken.len()), (64, 0), "no more than was taken");
        assert_eq!(take_all(&mut shares, 1..2), [32]);
    }
}

//! Random numbers from a seed.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

pub(crate) struct Rng {
    state: FixedState,
    count: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng { state: FixedState::with_seed(seed), count: 0 }
    }

    /// Returns a number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.count += 1;
        self.state.hash_one(self.count) % end
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

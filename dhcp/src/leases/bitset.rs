//! A set of small integers that finds its next member in a handful of steps.
//!
//! Each level above the lowest has one bit for each word below: set if that word has a member. A
//! search climbs until it finds a word with a later member and descends to it, so a million bits
//! take at most four words up and four down.

/// A set of integers below a fixed bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BitSet {
    levels: Vec<Vec<u64>>,
    members: usize,
}

impl BitSet {
    /// An empty set of integers below `bound`.
    pub(super) fn new(bound: usize) -> BitSet {
        let mut levels = vec![vec![0; bound.div_ceil(64).max(1)]];
        while let Some(words) = levels.last().map(Vec::len).filter(|words| *words > 1) {
            levels.push(vec![0; words.div_ceil(64)]);
        }
        BitSet { levels, members: 0 }
    }

    /// How many members there are.
    pub(super) fn count(&self) -> usize {
        self.members
    }

    /// Whether `index`, below the bound, is a member.
    pub(super) fn contains(&self, index: usize) -> bool {
        self.levels[0][index / 64] >> (index % 64) & 1 != 0
    }

    /// Adds `index`, which is below the bound.
    pub(super) fn insert(&mut self, mut index: usize) {
        if self.contains(index) {
            return;
        }
        self.members += 1;
        for level in &mut self.levels {
            level[index / 64] |= 1 << (index % 64);
            index /= 64;
        }
    }

    /// Removes `index`, which is below the bound.
    pub(super) fn remove(&mut self, mut index: usize) {
        if !self.contains(index) {
            return;
        }
        self.members -= 1;
        for level in &mut self.levels {
            level[index / 64] &= !(1 << (index % 64));
            if level[index / 64] != 0 {
                return;
            }
            index /= 64;
        }
    }

    /// The least member that is not below `from`.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut from = from;
        for (height, level) in self.levels.iter().enumerate() {
            let word = level.get(from / 64).copied().unwrap_or(0) & (u64::MAX << (from % 64));
            if word != 0 {
                return Some(self.descend(height, from / 64 * 64 + word.trailing_zeros() as usize));
            }
            from = from / 64 + 1;
        }
        None
    }

    /// The least member below bit `index` of the level at `height`, which is set.
    fn descend(&self, height: usize, mut index: usize) -> usize {
        for level in self.levels[..height].iter().rev() {
            index = index * 64 + level[index].trailing_zeros() as usize;
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_an_ordered_set(
            bound in prop::sample::select(vec![1usize, 64, 65, 4096, 4097, 70_000]),
            steps in prop::collection::vec((any::<bool>(), any::<usize>(), any::<usize>()), 0..60),
        ) {
            let (mut set, mut model) = (BitSet::new(bound), BTreeSet::new());
            for (add, index, from) in steps {
                // Few distinct values, so that removal meets members.
                let index = index % 40 * (bound / 40).max(1) % bound;
                if add {
                    set.insert(index);
                    model.insert(index);
                } else {
                    set.remove(index);
                    model.remove(&index);
                }
                let from = from % (bound + 1);
                prop_assert_eq!(set.next(from), model.range(from..).next().copied());
                prop_assert_eq!(set.count(), model.len());
                prop_assert_eq!(set.contains(index), add);
            }
        }
    }
}

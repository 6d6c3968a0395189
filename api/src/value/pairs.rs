//! The pairs of a map.

use std::collections::BTreeMap;
use std::mem::swap;
use std::slice;

use super::Atom;

/// Atoms by key, in the order of their keys. They lie in one piece of memory: a table of a thousand
/// ports has three thousand maps, which are made, sent, read and printed, and hardly ever searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(Atom, Atom)>);

impl Pairs {
    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The atom of this key.
    pub fn get(&self, key: &Atom) -> Option<&Atom> {
        let place = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&self.0[place].1)
    }

    /// The pairs.
    pub fn iter(&self) -> slice::Iter<'_, (Atom, Atom)> {
        self.0.iter()
    }
}

/// Of pairs with the same key, the last one counts.
impl FromIterator<(Atom, Atom)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (Atom, Atom)>>(pairs: I) -> Pairs {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
            pairs.dedup_by(|next, kept| {
                let is_same = next.0 == kept.0;
                if is_same {
                    swap(next, kept);
                }
                is_same
            });
        }
        Pairs(pairs)
    }
}

impl From<BTreeMap<Atom, Atom>> for Pairs {
    fn from(pairs: BTreeMap<Atom, Atom>) -> Pairs {
        Pairs(pairs.into_iter().collect())
    }
}

impl From<Pairs> for BTreeMap<Atom, Atom> {
    fn from(Pairs(pairs): Pairs) -> BTreeMap<Atom, Atom> {
        pairs.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Pairs {
    type Item = &'a (Atom, Atom);
    type IntoIter = slice::Iter<'a, (Atom, Atom)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// They are what a [`BTreeMap`] of the same pairs is.
        #[test]
        fn pairs_are_those_of_a_map(given in vec((0_i64..9, any::<i64>()), 0..20)) {
            let given = given.into_iter().map(|(k, v)| (Atom::Integer(k), Atom::Integer(v)));
            let map: BTreeMap<Atom, Atom> = given.clone().collect();
            let pairs: Pairs = given.collect();
            prop_assert_eq!(pairs.len(), map.len());
            for key in (0..9).map(Atom::Integer) {
                prop_assert_eq!(pairs.get(&key), map.get(&key));
            }
            prop_assert!(pairs.iter().map(|(k, v)| (k, v)).eq(&map));
            prop_assert_eq!(Pairs::from(map.clone()), pairs.clone());
            prop_assert_eq!(BTreeMap::from(pairs), map);
        }
    }
}

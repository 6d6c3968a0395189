//! Numbers of ports, as `ofport` and `fdb/show` have them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Numbers of ports, in the order in which ports are added; never reused, except on request.
#[derive(Default)]
pub(crate) struct Numbers {
    last: u32,
    by_name: BTreeMap<String, u32>,
}

impl Numbers {
    /// Gives numbers to ports that have none, and the requested ones where no other port has them.
    /// Returns the numbers of all.
    pub(crate) fn update<'a>(
        &mut self,
        ports: impl IntoIterator<Item = (&'a str, Option<u32>)>,
    ) -> BTreeMap<String, u32> {
        let ports: Vec<(&str, Option<u32>)> = ports.into_iter().collect();
        let there: HashSet<&str> = ports.iter().map(|(name, _)| *name).collect();
        self.by_name.retain(|name, _| there.contains(name.as_str()));
        let mut taken: BTreeSet<u32> = self.by_name.values().copied().collect();
        for (name, request) in ports {
            let has = self.by_name.get(name).copied();
            let number = match (has, request.filter(|number| !taken.contains(number))) {
                (_, Some(free)) => free,
                (Some(_), None) => continue,
                (None, None) => self.next(&taken),
            };
            has.map(|has| taken.remove(&has));
            taken.insert(number);
            self.by_name.insert(name.to_owned(), number);
        }
        self.by_name.clone()
    }

    fn next(&mut self, taken: &BTreeSet<u32>) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !taken.contains(&self.last) {
                return self.last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of these ports, in their order.
    fn updated(numbers: &mut Numbers, ports: &[(&str, Option<u32>)]) -> Vec<u32> {
        let all = numbers.update(ports.iter().copied());
        assert_eq!(all.len(), ports.len());
        ports.iter().map(|(name, _)| all[*name]).collect()
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let mut numbers = Numbers::default();
        assert_eq!(updated(&mut numbers, &[("b", None), ("a", None)]), [1, 2]);
        assert_eq!(updated(&mut numbers, &[("a", None)]), [2]);
        assert_eq!(updated(&mut numbers, &[("c", None), ("a", None), ("b", None)]), [3, 2, 4]);
    }

    #[test]
    fn a_requested_number_is_given_if_no_other_port_has_it() {
        let mut numbers = Numbers::default();
        assert_eq!(updated(&mut numbers, &[("a", None), ("b", Some(2)), ("c", None)]), [1, 2, 3]);
        // Two ports want one number: the first has it.
        assert_eq!(
            updated(&mut numbers, &[("a", Some(7)), ("b", Some(7)), ("c", None)]),
            [7, 2, 3]
        );
        assert_eq!(updated(&mut numbers, &[("b", Some(7)), ("c", None)]), [7, 3]);
        // Without a request it keeps its number.
        assert_eq!(updated(&mut numbers, &[("b", None), ("d", None)]), [7, 4]);
    }
}

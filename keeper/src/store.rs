//! What is kept under keys: values that the switch alone reads, and descriptors.
//!
//! Each entry knows the last switch that has put or got it. Once a switch has built everything that
//! it wants, the entries that it has not touched are those of a configuration that has changed:
//! settling drops them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::request::{LONGEST_KEY, LONGEST_VALUE};
use crate::wire::MOST_DESCRIPTORS;

/// Most entries, and most connections.
pub const MOST_ENTRIES: usize = 65_536;
/// Most bytes of all keys and values.
pub const MOST_BYTES: usize = 256 << 20;

/// Why the keeper does not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a key has 1 to {LONGEST_KEY} bytes, not {0}")]
    Key(usize),
    #[error("a value has up to {LONGEST_VALUE} bytes, not {0}")]
    Value(usize),
    #[error("an entry has up to {MOST_DESCRIPTORS} descriptors, not {0}")]
    Descriptors(usize),
    #[error("the keeper has {MOST_ENTRIES} entries and takes no more")]
    Entries,
    #[error("the keeper has {} MiB of values and takes no more", MOST_BYTES >> 20)]
    Bytes,
}

/// The number of a switch: 1 for the first that attaches, and so on.
pub(crate) type Switch = u64;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// The last switch that has put or got it.
    claimed: Switch,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: BTreeMap<String, Entry>,
    /// Of all keys and values.
    bytes: usize,
}

/// Checks the sizes of a key and its value.
pub(crate) fn check(key: &str, value: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > LONGEST_KEY {
        return Err(Refusal::Key(key.len()));
    }
    if value.len() > LONGEST_VALUE {
        return Err(Refusal::Value(value.len()));
    }
    Ok(())
}

impl Store {
    /// Keeps an entry; replaces that with the same key.
    pub(crate) fn put(
        &mut self,
        key: &str,
        value: &[u8],
        fds: Vec<OwnedFd>,
        switch: Switch,
    ) -> Result<(), Refusal> {
        check(key, value)?;
        if fds.len() > MOST_DESCRIPTORS {
            return Err(Refusal::Descriptors(fds.len()));
        }
        let size = |value: &[u8]| key.len() + value.len();
        let old = self.entries.get(key).map(|old| (size(&old.value), old.claimed));
        if old.is_none() && self.entries.len() >= MOST_ENTRIES {
            return Err(Refusal::Entries);
        }
        let (freed, claimed) = old.unwrap_or_default();
        let bytes = self.bytes - freed + size(value);
        if bytes > MOST_BYTES {
            return Err(Refusal::Bytes);
        }
        self.bytes = bytes;
        let entry = Entry { value: value.to_vec(), fds, claimed: claimed.max(switch) };
        self.entries.insert(key.to_owned(), entry);
        Ok(())
    }

    /// Returns an entry, which is claimed by that.
    pub(crate) fn get(&mut self, key: &str, switch: Switch) -> Option<&Entry> {
        let entry = self.entries.get_mut(key)?;
        entry.claimed = entry.claimed.max(switch);
        Some(entry)
    }

    /// Drops an entry; returns whether there was one.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.bytes -= key.len() + entry.value.len();
        true
    }

    /// Leaves an entry to be settled, unless it is claimed again: another switch may still need it.
    pub(crate) fn disclaim(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.claimed = 0;
        }
    }

    /// Drops at most `most` entries that this switch and later ones have not claimed; returns
    /// their keys.
    pub(crate) fn settle(&mut self, switch: Switch, most: usize) -> Vec<String> {
        let old = self.entries.iter().filter(|(_, entry)| entry.claimed < switch);
        let keys: Vec<String> = old.take(most).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.remove(key);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn descriptor() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn what_is_too_large_is_refused_and_changes_nothing() {
        let mut store = Store::default();
        store.put("tap/a", b"1", vec![descriptor()], 1).unwrap();
        let one = descriptor();
        let many = || (0..65).map(|_| one.as_fd().try_clone_to_owned().unwrap()).collect();
        let long = vec![0; LONGEST_VALUE + 1];
        let refused = [
            (store.put("", b"", Vec::new(), 1), "a key has 1 to 255 bytes, not 0"),
            (store.put(&"k".repeat(256), b"", Vec::new(), 1), "a key has 1 to 255 bytes, not 256"),
            (store.put("tap/a", &long, Vec::new(), 1), "a value has up to 65536 bytes, not 65537"),
            (store.put("tap/a", b"2", many(), 1), "an entry has up to 64 descriptors, not 65"),
        ];
        for (result, text) in refused {
            assert_eq!(result.unwrap_err().to_string(), text);
        }
        let entry = store.get("tap/a", 1).unwrap();
        assert_eq!((entry.value.as_slice(), entry.fds.len()), (b"1".as_slice(), 1));
    }

    #[test]
    fn there_are_at_most_so_many_entries_and_bytes() {
        let mut store = Store::default();
        for number in 0..MOST_ENTRIES {
            store.put(&number.to_string(), b"", Vec::new(), 1).unwrap();
        }
        let refused = store.put("more", b"", Vec::new(), 1).unwrap_err();
        assert_eq!(refused.to_string(), "the keeper has 65536 entries and takes no more");
        store.put("7", b"new", Vec::new(), 1).unwrap();
        assert!(store.remove("7"));
        store.put("more", b"", Vec::new(), 1).unwrap();

        let (mut store, value) = (Store::default(), vec![0; LONGEST_VALUE]);
        let refused = (0..MOST_ENTRIES)
            .find_map(|number| store.put(&number.to_string(), &value, Vec::new(), 1).err());
        assert_eq!(
            refused.unwrap().to_string(),
            "the keeper has 256 MiB of values and takes no more"
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(String, Vec<u8>, Switch),
        Get(String, Switch),
        Remove(String),
        Settle(Switch, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || "[ab]{0,2}";
        let step = prop_oneof![
            (key(), prop::collection::vec(any::<u8>(), 0..4), 1..4_u64)
                .prop_map(|(key, value, switch)| Step::Put(key, value, switch)),
            (key(), 1..4_u64).prop_map(|(key, switch)| Step::Get(key, switch)),
            key().prop_map(Step::Remove),
            (1..5_u64, 1..3_usize).prop_map(|(switch, most)| Step::Settle(switch, most)),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// The model: a list of all that is kept, with the latest switch of each.
        #[test]
        fn it_keeps_what_a_list_would(steps in steps()) {
            let mut store = Store::default();
            let mut model: Vec<(String, Vec<u8>, Switch)> = Vec::new();
            for step in steps {
                match step {
                    Step::Put(key, value, switch) => {
                        let kept = store.put(&key, &value, Vec::new(), switch).is_ok();
                        prop_assert_eq!(kept, !key.is_empty());
                        let before = model.iter().find(|(other, ..)| *other == key);
                        let latest = before.map_or(switch, |(.., other)| switch.max(*other));
                        model.retain(|(other, ..)| *other != key);
                        if kept {
                            model.push((key, value, latest));
                        }
                    }
                    Step::Get(key, switch) => {
                        let got = store.get(&key, switch).map(|entry| entry.value.clone());
                        let kept = model.iter_mut().find(|(other, ..)| *other == key);
                        let kept = kept.map(|(_, value, claimed)| {
                            *claimed = switch.max(*claimed);
                            value.clone()
                        });
                        prop_assert_eq!(got, kept);
                    }
                    Step::Remove(key) => {
                        let before = model.len();
                        model.retain(|(other, ..)| *other != key);
                        prop_assert_eq!(store.remove(&key), model.len() < before);
                    }
                    Step::Settle(switch, most) => {
                        let old: BTreeSet<String> = model
                            .iter()
                            .filter(|(.., claimed)| *claimed < switch)
                            .map(|(key, ..)| key.clone())
                            .collect();
                        let dropped = store.settle(switch, most);
                        prop_assert_eq!(dropped.len(), old.len().min(most));
                        prop_assert!(dropped.iter().all(|key| old.contains(key)));
                        model.retain(|(key, ..)| !dropped.contains(key));
                    }
                }
                let bytes: usize = model.iter().map(|(key, value, _)| key.len() + value.len()).sum();
                prop_assert_eq!((store.entries.len(), store.bytes), (model.len(), bytes));
            }
        }
    }
}

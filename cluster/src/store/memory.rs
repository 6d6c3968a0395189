//! A store in memory, which behaves as etcd does: revisions, reads at an earlier revision, watches
//! from one, leases and compaction.
//!
//! It keeps the versions of each row since the last compaction, and a log of which rows changed.
//! A driver takes the [`Memory::changes`] after a commit to those who watch them. What can go wrong
//! between a host and the store (delay, loss of the connection) is the driver's to play.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{Answer, Entry, Operation, Page, Revision, Txn};
use crate::key::Scope;

/// The revisions that were asked for are no longer kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("compacted: read the whole range")]
pub struct Compacted;

/// Names a connection's lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease(pub u64);

#[derive(Debug)]
struct Version {
    revision: Revision,
    value: Option<Arc<[u8]>>,
    lease: Option<Lease>,
}

/// The store.
#[derive(Default, Debug)]
pub struct Memory {
    /// The versions of each key, oldest first; never an empty list.
    rows: BTreeMap<Arc<str>, Vec<Version>>,
    /// Which key changed at which revision, since the compaction.
    log: VecDeque<(Revision, Arc<str>)>,
    leased: BTreeMap<Lease, BTreeSet<Arc<str>>>,
    revision: Revision,
    compacted: Revision,
}

impl Memory {
    /// The revision of the last commit.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Carries out a transaction; rows with a lease go with `lease`.
    pub fn commit(&mut self, lease: Lease, txn: &Txn) -> Answer {
        let mut found = txn.compares.iter().map(|(key, _)| self.get(&key.to_string()));
        let holds = |(entry, (_, revision)): (Entry, &_)| known_revision(&entry) == *revision;
        if !found.by_ref().zip(&txn.compares).all(holds) {
            let keys = txn.compares.iter();
            return Answer::Conflict(keys.map(|(key, _)| self.now(&key.to_string())).collect());
        }
        drop(found);
        if txn.operations.is_empty() {
            return Answer::Done(self.revision);
        }
        let revision = self.revision.next();
        for operation in &txn.operations {
            match operation {
                Operation::Put { key, value, leased } => {
                    let lease = leased.then_some(lease);
                    self.write(&key.to_string(), Some(value.as_slice().into()), lease, revision);
                }
                Operation::Delete { key } => self.write(&key.to_string(), None, None, revision),
            }
        }
        Answer::Done(self.revision)
    }

    /// Writes a row as it is, whatever its form: as another program could.
    pub fn put(&mut self, key: &str, value: &[u8]) {
        self.write(key, Some(value.into()), None, self.revision.next());
    }

    /// Removes the rows of a lease.
    pub fn end(&mut self, lease: Lease) {
        let revision = self.revision.next();
        for key in self.leased.remove(&lease).unwrap_or_default() {
            self.write(&key, None, None, revision);
        }
    }

    fn write(
        &mut self,
        key: &str,
        value: Option<Arc<[u8]>>,
        lease: Option<Lease>,
        revision: Revision,
    ) {
        let is_there = self.rows.get(key).and_then(|all| all.last()?.value.as_ref()).is_some();
        if value.is_none() && !is_there {
            return;
        }
        let key: Arc<str> = match self.rows.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => key.into(),
        };
        let versions = self.rows.entry(Arc::clone(&key)).or_default();
        if let Some(old) = versions.last().and_then(|last| last.lease)
            && let Some(keys) = self.leased.get_mut(&old)
        {
            keys.remove(&key);
        }
        if let Some(lease) = lease {
            self.leased.entry(lease).or_default().insert(Arc::clone(&key));
        }
        versions.push(Version { revision, value, lease });
        self.log.push_back((revision, key));
        self.revision = revision;
    }

    /// A row as it is.
    pub fn get(&self, key: &str) -> Entry {
        self.rows
            .get_key_value(key)
            .and_then(|(key, versions)| entry(key, versions, self.revision))
            .unwrap_or(Entry { key: key.into(), value: None, revision: Revision::ABSENT })
    }

    /// A row as it is; one that does not exist is known not to up to the last commit.
    fn now(&self, key: &str) -> Entry {
        let entry = self.get(key);
        let is_there = entry.value.is_some();
        Entry { revision: if is_there { entry.revision } else { self.revision }, ..entry }
    }

    /// A page of a range of at most `limit` rows, at a revision or the newest.
    ///
    /// # Errors
    /// The revision is not kept any more.
    pub fn range(
        &self,
        scope: &Scope,
        at: Option<Revision>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, Compacted> {
        let at = at.unwrap_or(self.revision);
        if at < self.compacted {
            return Err(Compacted);
        }
        let text = scope.to_string();
        let from = after.map_or(Bound::Included(text.as_str()), Bound::Excluded);
        let mut rows = self
            .rows
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| is_in(key, &text))
            .filter_map(|(key, versions)| entry(key, versions, at))
            .filter(|entry| entry.value.is_some());
        let page: Vec<Entry> = rows.by_ref().take(limit).collect();
        Ok(Page { more: rows.next().is_some(), rows: page, revision: at })
    }

    /// Returns the changes from a revision on, in order.
    ///
    /// # Errors
    /// Some of them are not kept any more.
    pub fn changes(&self, from: Revision) -> Result<impl Iterator<Item = Entry>, Compacted> {
        if from <= self.compacted {
            return Err(Compacted);
        }
        let first = self.log.partition_point(|(revision, _)| *revision < from);
        Ok(self.log.range(first..).filter_map(|(revision, key)| {
            let versions = self.rows.get(key)?;
            entry(key, versions, *revision)
        }))
    }

    /// The changes in a range from a revision on.
    ///
    /// # Errors
    /// Some of them are not kept any more.
    pub fn changes_in(&self, scope: &Scope, from: Revision) -> Result<Vec<Entry>, Compacted> {
        let text = scope.to_string();
        Ok(self.changes(from)?.filter(|entry| is_in(&entry.key, &text)).collect())
    }

    /// Forgets what was before a revision: rows that had been replaced or deleted by then.
    pub fn compact(&mut self, at: Revision) {
        let at = at.min(self.revision);
        self.compacted = self.compacted.max(at);
        while self.log.front().is_some_and(|(revision, _)| *revision <= at) {
            let Some((_, key)) = self.log.pop_front() else { return };
            let Some(versions) = self.rows.get_mut(&key) else { continue };
            let kept = versions.partition_point(|version| version.revision <= at);
            versions.drain(..kept.saturating_sub(1));
            let is_gone = versions.len() == 1 && versions[0].value.is_none();
            if is_gone && versions[0].revision <= at {
                self.rows.remove(&key);
            }
        }
    }
}

/// Whether a key is that of a scope, or begins with its prefix.
fn is_in(key: &str, scope: &str) -> bool {
    if scope.ends_with('/') { key.starts_with(scope) } else { key == scope }
}

fn known_revision(entry: &Entry) -> Revision {
    if entry.value.is_some() { entry.revision } else { Revision::ABSENT }
}

/// The version of a row at a revision.
fn entry(key: &Arc<str>, versions: &[Version], at: Revision) -> Option<Entry> {
    let count = versions.partition_point(|version| version.revision <= at);
    let Version { revision, value, .. } = versions.get(count.checked_sub(1)?)?;
    Some(Entry { key: Arc::clone(key), value: value.clone(), revision: *revision })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::testing::name;

    const LEASE: Lease = Lease(1);

    fn put(store: &mut Memory, key: &str, value: &str, known: Revision) -> Answer {
        let key: Key = key.parse().unwrap();
        let put = Operation::Put { key: key.clone(), value: value.into(), leased: false };
        store.commit(LEASE, &Txn { id: 0, compares: vec![(key, known)], operations: vec![put] })
    }

    #[test]
    fn a_commit_whose_compares_fail_changes_nothing_and_returns_the_rows() {
        let mut store = Memory::default();
        assert_eq!(put(&mut store, "port/a", "1", Revision::ABSENT), Answer::Done(Revision(1)));
        let Answer::Conflict(rows) = put(&mut store, "port/a", "2", Revision::ABSENT) else {
            panic!("no conflict");
        };
        assert_eq!(rows, [store.get("port/a")]);
        assert_eq!(store.get("port/a").value.as_deref(), Some(&b"1"[..]));
        assert_eq!(put(&mut store, "port/a", "2", Revision(1)), Answer::Done(Revision(2)));
    }

    #[test]
    fn pages_are_those_of_one_revision_while_rows_change() {
        let mut store = Memory::default();
        let scope: Scope = "n/000001/".parse().unwrap();
        for host in ["a", "b", "c"] {
            store.put(&format!("n/000001/h/{host}"), b"1");
        }
        store.put("n/000002/h/a", b"1");
        let first = store.range(&scope, None, None, 2).unwrap();
        assert!(first.more);
        store.put("n/000001/h/c", b"2");
        store.put("n/000001/h/d", b"2");
        let at = Some(first.revision);
        let second = store.range(&scope, at, Some(&first.rows[1].key), 2).unwrap();
        assert_eq!(second.rows.len(), 1);
        assert_eq!(second.rows[0].value.as_deref(), Some(&b"1"[..]));
        assert!(!second.more);
        let changed = store.changes_in(&scope, first.revision.next()).unwrap();
        assert_eq!(changed.len(), 2);
        store.compact(store.revision());
        assert_eq!(store.range(&scope, at, None, 9), Err(Compacted));
        assert_eq!(store.changes_in(&scope, first.revision), Err(Compacted));
        assert_eq!(store.range(&scope, None, None, 9).unwrap().rows.len(), 4);
    }

    #[test]
    fn rows_go_with_their_lease_unless_another_has_put_them_since() {
        let mut store = Memory::default();
        for (host, lease) in [("a", LEASE), ("b", LEASE), ("b", Lease(2))] {
            let key = Key::Live(name(host));
            let put = Operation::Put { key, value: b"{}".to_vec(), leased: true };
            store.commit(lease, &Txn { operations: vec![put], ..Txn::default() });
        }
        store.end(LEASE);
        assert_eq!(store.get("live/a").value, None);
        assert!(store.get("live/b").value.is_some());
        assert_eq!(store.changes(Revision(4)).unwrap().count(), 1);
        store.compact(Revision(4));
        assert_eq!(store.get("live/a").revision, Revision::ABSENT);
    }
}

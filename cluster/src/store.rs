//! What a host asks of a store, and what a store answers.
//!
//! Nothing here does I/O: a driver carries the [`Request`]s out on a store and hands the answers
//! back. A store keeps rows by key. Each commit has a [`Revision`], higher than all before, and
//! each row that of its last change. The driver promises:
//!
//! - While connected, each request is answered once, or the connection is reported as lost. After
//!   that, nothing of it arrives: neither answers nor events.
//! - A watch reports every change from its first revision on, in order. If the store has forgotten
//!   some of them (compaction), it reports that instead, and the watch ends.
//! - A connection has a lease of 30 s. Rows that were put with it go when it ends.
//!
//! [`memory`] is a store in memory, for simulations and tests; [`mod@file`] makes one out of a list
//! of peers, for clusters without a store.

pub mod file;
pub mod memory;

use std::sync::Arc;

use crate::key::{Key, Scope};

/// The number of a commit. [`Revision::ABSENT`] stands for a row that does not exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(pub u64);

impl Revision {
    /// Of a row that does not exist.
    pub const ABSENT: Revision = Revision(0);

    /// The revision after this one.
    pub const fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

/// A row as the store has it, or its absence. Keys and values come from other hosts, and
/// are checked when they are parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key, without the prefix of the cluster.
    pub key: Arc<str>,
    /// The value; `None` if there is no row, or no longer.
    pub value: Option<Arc<[u8]>>,
    /// When it was put or deleted.
    pub revision: Revision,
}

/// A part of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Its rows, by key.
    pub rows: Vec<Entry>,
    /// The revision that they are read at.
    pub revision: Revision,
    /// Whether rows follow.
    pub more: bool,
}

/// A change of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Writes a row.
    Put {
        /// Its key.
        key: Key,
        /// Its value.
        value: Vec<u8>,
        /// Whether it goes when the connection does.
        leased: bool,
    },
    /// Removes a row, if it exists.
    Delete {
        /// Its key.
        key: Key,
    },
}

/// All of `operations`, if every compared row is as the host knows it; else none of them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Txn {
    /// Names the transaction to its answer.
    pub id: u64,
    /// Keys, and the revisions that their rows must have.
    pub compares: Vec<(Key, Revision)>,
    /// At most [`Txn::MAX_OPERATIONS`], each of another key.
    pub operations: Vec<Operation>,
}

impl Txn {
    /// The limit of etcd's default configuration.
    pub const MAX_OPERATIONS: usize = 128;
}

/// What became of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is done, at this revision.
    Done(Revision),
    /// A row was not as compared: all compared rows as they are, in the order of
    /// [`Txn::compares`]. Those that do not exist have the revision of the store.
    Conflict(Vec<Entry>),
    /// The store cannot write, because it is full or has no leader. It may be done or not.
    Failed,
}

/// What a host wants of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Read a page of a range.
    Range {
        /// The range.
        scope: Scope,
        /// The revision at which to read; `None` for the newest. All pages of a range are read at
        /// the revision of the first.
        at: Option<Revision>,
        /// Read the keys after this one.
        after: Option<Arc<str>>,
    },
    /// Report the changes in a range.
    Watch {
        /// The range.
        scope: Scope,
        /// The first revision to report.
        from: Revision,
    },
    /// Report them no longer.
    Unwatch(Scope),
    /// Carry out a transaction.
    Commit(Txn),
}

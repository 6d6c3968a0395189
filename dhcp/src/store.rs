//! The lease store: a journal of checksummed records in one file.
//!
//! **Order of events.** The caller appends the records of one or many exchanges
//! ([`Journal::append`], one write and one sync) and only then sends the ACKs. So every lease that
//! a client knows of survives a crash.
//!
//! **Reading** ([`Journal::open`]) ends at the first incomplete record. The rest is the torn end of
//! a write whose ACKs were never sent. The file is then rewritten, and the damaged one kept under
//! another name.
//!
//! **Growth.** When the journal is much longer than the leases need, [`Journal::compact`] writes
//! the leases to `leases.new`, syncs it, renames it over `leases` and syncs the directory. At
//! every moment one of the two is whole.
//!
//! **Errors.** After a failed append the end of the file is unknown, so the journal accepts no more
//! records until [`Journal::compact`] has written a new file.

mod disk;
mod record;
#[cfg(test)]
mod simulated_disk;
#[cfg(test)]
mod tests;

pub use disk::Disk;
pub use record::{LeaseRecord, Record};

use std::io;

/// The journal's file name.
pub const JOURNAL: &str = "leases";
/// The next journal while it is written.
pub const NEXT: &str = "leases.new";
/// The last journal that was not whole, as it was found.
pub const DAMAGED: &str = "leases.damaged";
/// How many foreign files are set aside before opening fails.
const MAX_FOREIGN: usize = 16;
/// First octets of a journal: what it is, and the version of the format.
const MAGIC: [u8; 8] = *b"tramaDH\x01";
/// A journal below this size is not worth compacting, in octets.
const MIN_COMPACTED: usize = 256 * 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("lease store: {doing} {file:?}: {error}; check the disk and the folder's rights")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        file: String,
        /// What came of it.
        error: io::Error,
    },
    /// An append failed before.
    #[error("lease store: a write failed before; compact the journal first")]
    Stale,
    /// There are too many foreign files.
    #[error(
        "lease store: {JOURNAL:?} is not a lease journal, and {MAX_FOREIGN} such files were set \
         aside already; remove \"{JOURNAL}.foreign.*\""
    )]
    Foreign,
}

/// What was found when the store was opened, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// No journal: a first start.
    Nothing,
    /// A whole journal.
    Whole,
    /// A journal whose end was not whole: this many octets were kept, and this many not.
    Torn {
        /// Octets of whole records.
        kept: usize,
        /// Octets after them.
        lost: usize,
    },
    /// A file that is no journal of this version, set aside under this name.
    Foreign(String),
}

impl std::fmt::Display for Found {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Nothing => write!(out, "no lease journal: starting with no leases"),
            Found::Whole => write!(out, "the lease journal is whole"),
            Found::Torn { kept, lost } => write!(
                out,
                "the lease journal's last {lost} bytes are not whole, as after a crash; the \
                 {kept} bytes before are used, the file as found is kept as {DAMAGED:?}"
            ),
            Found::Foreign(name) => write!(
                out,
                "{JOURNAL:?} is no lease journal of this version; it is kept as {name:?}, \
                 starting with no leases"
            ),
        }
    }
}

/// An open journal.
#[derive(Debug)]
pub struct Journal<D> {
    disk: D,
    length: usize,
    compacted: usize,
    stale: bool,
}

impl<D: Disk> Journal<D> {
    /// Opens the journal of a folder: its records, oldest first, and what state it was in.
    ///
    /// # Errors
    /// The disk refuses. A damaged or foreign file is no error, see [`Found`].
    pub fn open(disk: D) -> Result<(Journal<D>, Vec<Record>, Found), StoreError> {
        let mut journal = Journal { disk, length: 0, compacted: 0, stale: false };
        let bytes = journal.disk.read(JOURNAL).map_err(failed("read", JOURNAL))?;
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            journal.compact(&[])?;
            return Ok((journal, Vec::new(), Found::Nothing));
        };
        let Some(body) = bytes.strip_prefix(&MAGIC) else {
            let name = journal.set_foreign_aside()?;
            journal.compact(&[])?;
            return Ok((journal, Vec::new(), Found::Foreign(name)));
        };
        let (records, whole) = Record::parse_all(body);
        let lost = body.len() - whole;
        if lost == 0 {
            // What is not yet on the disk goes there with the next append: a sync is for the file.
            journal.length = bytes.len();
            journal.compacted = bytes.len();
            return Ok((journal, records, Found::Whole));
        }
        journal.write_whole(DAMAGED, &bytes)?;
        journal.compact(&body[..whole])?;
        Ok((journal, records, Found::Torn { kept: MAGIC.len() + whole, lost }))
    }

    /// Appends encoded records ([`crate::server::Outcome::records`]) and makes them durable.
    ///
    /// # Errors
    /// They may or may not be in the file; the journal must be compacted before the next append.
    pub fn append(&mut self, records: &[u8]) -> Result<(), StoreError> {
        if self.stale {
            return Err(StoreError::Stale);
        }
        if records.is_empty() {
            return Ok(());
        }
        self.stale = true;
        self.disk.append(JOURNAL, records).map_err(failed("append to", JOURNAL))?;
        self.disk.sync(JOURNAL).map_err(failed("sync", JOURNAL))?;
        self.stale = false;
        self.length += records.len();
        Ok(())
    }

    /// Whether the journal is worth compacting: it doubled since, so that the cost per record
    /// stays the same however many leases there are; or an append failed.
    pub fn wants_compaction(&self) -> bool {
        self.stale || self.length > 2 * self.compacted.max(MIN_COMPACTED / 2)
    }

    /// Replaces the journal by one with these encoded records
    /// ([`crate::server::Server::snapshot`]).
    ///
    /// # Errors
    /// The disk refuses; the journal is as it was, or already the new one.
    pub fn compact(&mut self, records: &[u8]) -> Result<(), StoreError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(records);
        // If the rename fails half-way, it is unknown which file is the journal.
        let was_stale = std::mem::replace(&mut self.stale, true);
        self.write_whole(NEXT, &bytes).inspect_err(|_| self.stale = was_stale)?;
        self.disk.rename(NEXT, JOURNAL).map_err(failed("rename", NEXT))?;
        self.disk.sync_folder().map_err(failed("sync the folder of", JOURNAL))?;
        self.stale = false;
        self.length = bytes.len();
        self.compacted = bytes.len();
        Ok(())
    }

    /// The disk, for a caller that wants it back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn write_whole(&mut self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.disk.create(file).map_err(failed("create", file))?;
        self.disk.append(file, bytes).map_err(failed("write", file))?;
        self.disk.sync(file).map_err(failed("sync", file))
    }

    fn set_foreign_aside(&mut self) -> Result<String, StoreError> {
        for number in 1..=MAX_FOREIGN {
            let name = format!("{JOURNAL}.foreign.{number}");
            if self.disk.read(&name).map_err(failed("read", &name))?.is_none() {
                self.disk.rename(JOURNAL, &name).map_err(failed("rename", JOURNAL))?;
                self.disk.sync_folder().map_err(failed("sync the folder of", JOURNAL))?;
                return Ok(name);
            }
        }
        Err(StoreError::Foreign)
    }
}

fn failed(doing: &'static str, file: &str) -> impl FnOnce(io::Error) -> StoreError {
    let file = file.to_owned();
    move |error| StoreError::Io { doing, file, error }
}

//! The lease store on disk, and the thread that writes it.
//!
//! A write is durable after milliseconds, sometimes more: the gateway does not wait for it with
//! everything else that it does. While one write is under way, what comes meanwhile is collected,
//! so under load many leases share one write and one sync. Frames that tell clients of leases
//! leave when the write has succeeded, or never.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mio::Waker;
use rustix::fs::{Mode, OFlags, fsync, open, openat, renameat};
use trama_dhcp::store::{Disk, Found, Journal, Record, StoreError};

use crate::gateway::Output;

/// Time before a store that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Frames that may wait for a write; clients of those beyond ask again.
const WAITING: usize = 4096;

/// A folder, held open: it is the same one whatever happens to its path.
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder, which is made if it is missing, for its owner alone.
    pub fn open(path: &Path) -> io::Result<Folder> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Folder(open(path, flags, Mode::empty())?))
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}

impl Disk for Folder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match self.file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => {
                file?.read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
        }
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC).map(drop)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name, OFlags::WRONLY | OFlags::APPEND)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name, OFlags::RDONLY)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(fsync(&self.0)?)
    }
}

/// What is to be written.
struct Job {
    records: Vec<u8>,
    /// All leases, `records` among them, in place of what the store holds.
    snapshot: Option<Vec<u8>>,
    frames: Vec<Vec<u8>>,
}

/// What came of it.
struct Done {
    /// Those that may go.
    frames: Vec<Vec<u8>>,
    failed: Option<StoreError>,
    wants_compaction: bool,
}

/// A lease store that is written by a thread of its own.
pub(crate) struct Store {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    /// Records and frames of the next job.
    records: Vec<u8>,
    frames: Vec<Vec<u8>>,
    is_busy: bool,
    wants_compaction: bool,
    /// A write failed, and when it may be tried again.
    failed: Option<Duration>,
    warnings: Vec<String>,
}

impl Store {
    /// Opens the store of a folder: its records, oldest first, and, if it was not whole, what
    /// somebody should know. `waker` is woken when [`Store::take_done`] has something.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn open(
        folder: &Path,
        waker: Arc<Waker>,
    ) -> Result<(Store, Vec<Record>), Box<dyn std::error::Error>> {
        let (journal, records, found) = Journal::open(Folder::open(folder)?)?;
        let (jobs, orders) = channel();
        let (results, done) = channel();
        let work = move || write(journal, &orders, &results, &waker);
        std::thread::Builder::new().name("leases".into()).spawn(work)?;
        let warnings = match found {
            Found::Nothing | Found::Whole => Vec::new(),
            found => vec![format!("{}: {found}", folder.display())],
        };
        let store = Store {
            jobs,
            done,
            records: Vec::new(),
            frames: Vec::new(),
            is_busy: false,
            wants_compaction: false,
            failed: None,
            warnings,
        };
        Ok((store, records))
    }

    /// Takes over what is to be stored and what waits for that; frames that may go now come back
    /// as [`Output::frames`].
    pub fn carry_out(
        &mut self,
        now: Duration,
        snapshot: impl FnOnce() -> Vec<u8>,
        out: &mut Output,
    ) {
        self.records.append(&mut out.records);
        let room = WAITING.saturating_sub(self.frames.len());
        self.frames.extend(out.confirmed.drain(..).take(room));
        while let Ok(done) = self.done.try_recv() {
            self.finish(now, done, out);
        }
        if self.is_busy || (self.records.is_empty() && self.frames.is_empty()) {
            return;
        }
        if self.failed.is_some_and(|retry| now < retry) {
            // The next snapshot has what these records say.
            self.records.clear();
            self.frames.clear();
            return;
        }
        let snapshot = self.wants_compaction.then(snapshot);
        let (records, frames) =
            (std::mem::take(&mut self.records), std::mem::take(&mut self.frames));
        // The thread lives as long as this.
        self.is_busy = self.jobs.send(Job { records, snapshot, frames }).is_ok();
    }

    fn finish(&mut self, now: Duration, done: Done, out: &mut Output) {
        self.is_busy = false;
        self.wants_compaction = done.wants_compaction;
        out.frames.extend(done.frames);
        let was_failed = self.failed.take().is_some();
        if let Some(error) = done.failed {
            self.failed = Some(now + RETRY);
            if !was_failed {
                let text = format!("{error}; until it works again, no client gets a lease");
                self.warnings.push(text);
            }
        }
    }

    /// What somebody should be told of; each once.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// The thread: one write and one sync for each job.
fn write(
    mut journal: Journal<impl Disk>,
    jobs: &Receiver<Job>,
    done: &Sender<Done>,
    waker: &Waker,
) {
    while let Ok(job) = jobs.recv() {
        let written = match job.snapshot {
            Some(snapshot) => journal.compact(&snapshot),
            None => journal.append(&job.records),
        };
        let frames = if written.is_ok() { job.frames } else { Vec::new() };
        let failed = written.err();
        let wants_compaction = journal.wants_compaction();
        if done.send(Done { frames, failed, wants_compaction }).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

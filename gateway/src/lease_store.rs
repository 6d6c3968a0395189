//! The lease store on disk, and the thread that writes it.
//!
//! A write takes milliseconds or longer to be durable, and the gateway does not wait for it. What
//! arrives during a write is collected for the next one, so under load many leases share one write
//! and one sync. Frames with ACKs are sent after their write has succeeded, or never.
//!
//! The folder is opened by the process that starts the gateway, which may not open it itself. A
//! store that cannot be read or written (a full or read-only file system, a disk failure) is
//! retried every second: the thread opens it, or is given all leases to write. The log has a line
//! when the failure begins and one when it ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use mio::Waker;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fsync, openat, renameat};
use trama_dhcp::store::{Disk, Found, Journal, Record, StoreError};

use crate::io::Output;

/// Time until a failed store is retried.
const RETRY: Duration = Duration::from_secs(1);
/// How often a folder locked by another process is tried, and the pause between tries.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Frames that may wait for a write; other clients retransmit.
const MAX_WAITING: usize = 4096;
/// Bytes of records that may wait for a write; with more, all leases are written.
const MAX_BACKLOG: usize = 1 << 20;

/// An open folder, which stays the same if its path changes.
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Locks a folder for this process. While another process has it locked, this is tried `tries`
    /// times.
    fn lock(folder: &OwnedFd, mut tries: u32) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        // Opened again: a lock would end with the last copy of the descriptor, which others may
        // have.
        let folder = openat(folder, ".", flags, Mode::empty())?;
        // Another gateway has it, which may be about to end with its daemon.
        while let Err(error) = flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            tries = tries.saturating_sub(1);
            if tries == 0 {
                return Err(io::Error::new(error.kind(), "another gateway has it locked"));
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(Folder(folder))
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

/// A write.
struct Job {
    records: Vec<u8>,
    /// All leases, including `records`, which replace the contents of the store.
    snapshot: Option<Vec<u8>>,
    frames: Vec<Vec<u8>>,
}

/// A result of the thread.
enum Done {
    /// The folder is open, after it could not be opened at first.
    Opened(Vec<Record>, Found),
    Written {
        /// Frames that may be sent now.
        frames: Vec<Vec<u8>>,
        failed: Option<StoreError>,
        wants_compaction: bool,
    },
}

/// An open journal and its contents.
type Opened = (Journal<Folder>, Vec<Record>, Found);
/// Why it could not be opened.
type OpenError = Box<dyn std::error::Error + Send + Sync>;

fn open_journal(folder: &OwnedFd, tries: u32) -> Result<Opened, OpenError> {
    Ok(Journal::open(Folder::lock(folder, tries)?)?)
}

/// A lease store that is written by its own thread.
pub(crate) struct LeaseStore {
    /// The folder's name in messages.
    folder: PathBuf,
    jobs: Sender<Job>,
    done: Receiver<Done>,
    /// The records when the store was opened, oldest first, until they are taken.
    opened: Option<Vec<Record>>,
    is_open: bool,
    /// Records and frames of the next write.
    records: Vec<u8>,
    frames: Vec<Vec<u8>>,
    is_busy: bool,
    wants_compaction: bool,
    /// Why the store cannot be written, and when it is retried.
    failure: Option<(String, Duration)>,
    warnings: Vec<String>,
}

impl LeaseStore {
    /// Opens the store in an open folder, whose name is `name`. If that fails, the thread retries.
    /// `waker` is woken when [`LeaseStore::exchange`] has to be called.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn open(name: &Path, folder: OwnedFd, waker: Arc<Waker>) -> io::Result<LeaseStore> {
        let (jobs, orders) = channel();
        let (results, done) = channel();
        let mut store = LeaseStore::new(name.to_owned(), jobs, done);
        let journal = match open_journal(&folder, LOCK_TRIES) {
            Ok((journal, records, found)) => {
                store.opened_with(records, found);
                Some(journal)
            }
            Err(error) => {
                store.open_failed(&error);
                None
            }
        };
        let work = move || {
            let opened = journal.or_else(|| retry_open(&folder, &orders, &results, &waker));
            if let Some(journal) = opened {
                write(journal, &orders, &results, &waker);
            }
        };
        std::thread::Builder::new().name("leases".into()).spawn(work)?;
        Ok(store)
    }

    /// A store that stays closed, because its folder could not be opened for this process.
    pub(crate) fn without_folder(name: &Path) -> LeaseStore {
        let mut store = LeaseStore::new(name.to_owned(), channel().0, channel().1);
        let text = format!("no lease folder: {}", name.display());
        store.warnings.push(format!("{text}; no client gets a lease until it can be opened"));
        store.failure = Some((text, Duration::MAX));
        store
    }

    fn new(folder: PathBuf, jobs: Sender<Job>, done: Receiver<Done>) -> LeaseStore {
        LeaseStore {
            folder,
            jobs,
            done,
            opened: None,
            is_open: false,
            records: Vec::new(),
            frames: Vec::new(),
            is_busy: false,
            wants_compaction: false,
            failure: None,
            warnings: Vec::new(),
        }
    }

    fn opened_with(&mut self, records: Vec<Record>, found: Found) {
        if self.failure.take().is_some() {
            self.recovered();
        }
        (self.opened, self.is_open) = (Some(records), true);
        if !matches!(found, Found::Nothing | Found::Whole) {
            self.warnings.push(format!("{}: {found}", self.folder.display()));
        }
    }

    fn open_failed(&mut self, error: &OpenError) {
        let folder = self.folder.display();
        let text = format!("no DHCP: {folder}: {error}");
        self.warnings.push(format!(
            "{text}; retrying every second: make the folder writable for the gateway's \
             user, or set another as daemon.state"
        ));
        // The thread retries.
        self.failure = Some((text, Duration::MAX));
    }

    fn recovered(&mut self) {
        let folder = self.folder.display();
        self.warnings
            .push(format!("{folder}: the lease store works again, and clients get leases"));
    }

    /// Whether the store is for this folder, or open and so the only one.
    pub(crate) fn serves(&self, folder: &Path) -> bool {
        self.is_open || self.folder == folder
    }

    /// Takes the records when the store was opened; once.
    pub(crate) fn take_opened(&mut self) -> Option<Vec<Record>> {
        self.opened.take()
    }

    /// Why the store cannot be written.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|(text, _)| text.as_str())
    }

    /// When [`LeaseStore::exchange`] has to be called next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let retry = self.failure.as_ref().map(|(_, retry)| *retry);
        retry.filter(|_| self.is_open && !self.is_busy)
    }

    /// Takes over records, and frames that wait for them. Frames that may be sent now are returned
    /// in [`Output::frames`].
    pub(crate) fn exchange(
        &mut self,
        now: Duration,
        snapshot: impl FnOnce() -> Vec<u8>,
        out: &mut Output,
    ) {
        self.records.append(&mut out.records);
        let room = MAX_WAITING.saturating_sub(self.frames.len());
        self.frames.extend(out.confirmed.drain(..).take(room));
        while let Ok(done) = self.done.try_recv() {
            self.finish(now, done, out);
        }
        if self.records.len() > MAX_BACKLOG {
            self.records.clear();
            self.wants_compaction = true;
        }
        if !self.is_open || self.failure.as_ref().is_some_and(|(_, retry)| now < *retry) {
            // The next snapshot includes these records.
            self.records.clear();
            self.frames.clear();
            return;
        }
        let is_idle = self.records.is_empty() && self.frames.is_empty() && self.failure.is_none();
        if self.is_busy || is_idle {
            return;
        }
        let snapshot = std::mem::take(&mut self.wants_compaction).then(snapshot);
        let (records, frames) =
            (std::mem::take(&mut self.records), std::mem::take(&mut self.frames));
        // The thread runs as long as this value exists.
        self.is_busy = self.jobs.send(Job { records, snapshot, frames }).is_ok();
    }

    fn finish(&mut self, now: Duration, done: Done, out: &mut Output) {
        let (frames, failed, wants_compaction) = match done {
            Done::Opened(records, found) => return self.opened_with(records, found),
            Done::Written { frames, failed, wants_compaction } => {
                (frames, failed, wants_compaction)
            }
        };
        self.is_busy = false;
        self.wants_compaction |= wants_compaction;
        out.frames.extend(frames);
        match (failed, self.failure.take()) {
            (None, None) => {}
            (None, Some(_)) => self.recovered(),
            (Some(_), Some((text, _))) => self.failure = Some((text, now + RETRY)),
            (Some(error), None) => {
                let text = format!("{}: {error}", self.folder.display());
                self.warnings.push(format!("{text}; no client gets a lease until it works again"));
                self.failure = Some((text, now + RETRY));
            }
        }
    }

    /// Takes the warnings to log; each is returned once.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// Retries to open the folder. `None` if the store is no longer needed.
fn retry_open(
    folder: &OwnedFd,
    jobs: &Receiver<Job>,
    done: &Sender<Done>,
    waker: &Waker,
) -> Option<Journal<Folder>> {
    // No write is requested before the journal is open.
    while let Err(RecvTimeoutError::Timeout) = jobs.recv_timeout(RETRY) {
        let Ok((journal, records, found)) = open_journal(folder, 1) else { continue };
        done.send(Done::Opened(records, found)).ok()?;
        waker.wake().ok()?;
        return Some(journal);
    }
    None
}

/// The writing thread: one write and one sync for each job.
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
        if done.send(Done::Written { frames, failed, wants_compaction }).is_err()
            || waker.wake().is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mio::{Events, Poll, Token};
    use trama_dhcp::store::{JOURNAL, Record};

    use super::*;

    struct Bench {
        poll: Poll,
        store: LeaseStore,
    }

    fn open_folder(path: &Path) -> OwnedFd {
        std::fs::create_dir_all(path).unwrap();
        File::open(path).unwrap().into()
    }

    impl Bench {
        fn open(folder: &Path) -> (Bench, Vec<Record>) {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            let mut store = LeaseStore::open(folder, open_folder(folder), waker).unwrap();
            let records = store.take_opened().unwrap_or_default();
            (Bench { poll, store }, records)
        }

        /// Lets the store work until `wanted`.
        fn until(&mut self, now: Duration, wanted: impl Fn(&LeaseStore) -> bool, out: &mut Output) {
            let until = Instant::now() + Duration::from_secs(20);
            while !wanted(&self.store) {
                assert!(Instant::now() < until, "the store does not answer");
                let limit = Some(Duration::from_secs(1));
                self.poll.poll(&mut Events::with_capacity(4), limit).unwrap();
                self.store.exchange(now, || snapshot(9), out);
            }
        }

        /// Stores a record. Returns the number of frames that may be sent then.
        fn store(&mut self, now: Duration, number: u8) -> usize {
            let mut out = Output::default();
            freed(number).emit(&mut out.records);
            out.confirmed.push(vec![number]);
            self.store.exchange(now, || snapshot(number), &mut out);
            assert!(out.frames.is_empty() && out.records.is_empty() && out.confirmed.is_empty());
            self.until(now, |store| !store.is_busy, &mut out);
            out.frames.len()
        }
    }

    fn freed(number: u8) -> Record {
        Record::Freed([10, 0, 2, number].into())
    }

    fn snapshot(number: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        (0..=number).for_each(|number| freed(number).emit(&mut bytes));
        bytes
    }

    #[test]
    fn confirmed_records_are_there_the_next_time_and_the_journal_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/leases-lab");
        let (mut bench, records) = Bench::open(&folder);
        assert!(records.is_empty());
        assert_eq!((bench.store(Duration::ZERO, 0), bench.store(Duration::ZERO, 1)), (1, 1));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(folder.join(JOURNAL)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        let error = Folder::lock(&open_folder(&folder), 1).err().unwrap();
        assert!(error.to_string().contains("another gateway"), "{error}");
        drop(bench);
        let (_, records) = Bench::open(&folder);
        assert_eq!(records, [freed(0), freed(1)]);
    }

    /// A folder in the journal's place cannot be written, even by root.
    fn break_journal(folder: &Path) -> PathBuf {
        let journal = folder.join(JOURNAL);
        std::fs::remove_file(&journal).unwrap();
        std::fs::create_dir(&journal).unwrap();
        journal
    }

    #[test]
    fn a_failed_write_confirms_nothing_warns_once_and_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let (mut bench, _) = Bench::open(dir.path());
        let journal = break_journal(dir.path());
        assert_eq!(bench.store(Duration::ZERO, 0), 0);
        let warnings = bench.store.take_warnings();
        assert!(warnings[0].contains("no client gets a lease"), "{warnings:?}");
        // Not retried yet.
        assert_eq!(bench.store(RETRY / 2, 1), 0);
        assert_eq!(bench.store(RETRY, 2), 0);
        assert!(bench.store.take_warnings().is_empty());
        std::fs::remove_dir(&journal).unwrap();
        assert_eq!(bench.store(RETRY * 2, 3), 1);
        assert_eq!((bench.store.failure(), bench.store.deadline()), (None, None));
        let warnings = bench.store.take_warnings();
        assert!(matches!(&warnings[..], [it] if it.contains("works again")), "{warnings:?}");
        drop(bench);
        let (_, records) = Bench::open(dir.path());
        assert_eq!(records.len(), 4, "the snapshot made good what was lost");
    }

    #[test]
    fn a_failed_store_is_retried_without_requests() {
        let dir = tempfile::tempdir().unwrap();
        let (mut bench, _) = Bench::open(dir.path());
        let journal = break_journal(dir.path());
        assert_eq!(bench.store(Duration::ZERO, 0), 0);
        assert_eq!(bench.store.deadline(), Some(RETRY));
        let mut out = Output::default();
        bench.store.exchange(RETRY, || snapshot(9), &mut out);
        assert!(bench.store.is_busy);
        bench.until(RETRY, |store| !store.is_busy, &mut out);
        assert_eq!(bench.store.deadline(), Some(RETRY * 2), "once a second, no more");
        std::fs::remove_dir(&journal).unwrap();
        bench.store.exchange(RETRY * 2, || snapshot(9), &mut out);
        bench.until(RETRY * 2, |store| !store.is_busy, &mut out);
        assert_eq!((bench.store.failure(), out.frames.len()), (None, 0));
        drop(bench);
        assert_eq!(Bench::open(dir.path()).1.len(), 10);
    }

    #[test]
    fn a_folder_that_cannot_be_opened_is_opened_when_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("leases-lab");
        // A folder in the journal's place cannot be read.
        let journal = folder.join(JOURNAL);
        std::fs::create_dir_all(&journal).unwrap();
        let (mut bench, records) = Bench::open(&folder);
        assert!(records.is_empty() && bench.store.deadline().is_none());
        let failure = bench.store.failure().unwrap().to_owned();
        assert!(failure.contains("no DHCP") && failure.contains("leases-lab"), "{failure}");
        let warnings = bench.store.take_warnings();
        assert!(matches!(&warnings[..], [it] if it.starts_with(&failure)), "{warnings:?}");
        assert!(bench.store.take_opened().is_none());
        std::fs::remove_dir(&journal).unwrap();
        bench.until(Duration::ZERO, |store| store.failure().is_none(), &mut Output::default());
        assert_eq!(bench.store.take_opened(), Some(Vec::new()));
        let warnings = bench.store.take_warnings();
        assert!(matches!(&warnings[..], [it] if it.contains("works again")), "{warnings:?}");
        assert_eq!(bench.store(Duration::ZERO, 0), 1);
    }

    #[test]
    fn without_a_folder_the_failure_is_told_and_nothing_is_confirmed() {
        let mut store = LeaseStore::without_folder(Path::new("/state/leases-lab"));
        let failure = store.failure().unwrap().to_owned();
        assert_eq!(failure, "no lease folder: /state/leases-lab");
        assert!(store.take_warnings()[0].starts_with(&failure));
        let mut out = Output::default();
        freed(1).emit(&mut out.records);
        out.confirmed.push(vec![1]);
        store.exchange(Duration::ZERO, || panic!("not open"), &mut out);
        assert!(out.frames.is_empty() && out.confirmed.is_empty() && store.deadline().is_none());
    }

    #[test]
    fn a_hanging_disk_does_not_fill_the_memory_and_gets_a_snapshot_in_the_end() {
        let ((jobs, orders), (results, done)) = (channel(), channel());
        let mut store = LeaseStore::new(PathBuf::new(), jobs, done);
        store.is_open = true;
        let mut out = Output::default();
        for _ in 0..100_000 {
            freed(1).emit(&mut out.records);
            store.exchange(Duration::ZERO, || panic!("too early"), &mut out);
        }
        assert!(store.records.len() <= MAX_BACKLOG, "{} bytes", store.records.len());
        let first: Job = orders.try_recv().unwrap();
        assert!(first.snapshot.is_none() && orders.try_recv().is_err(), "one job at a time");
        let (frames, failed, wants_compaction) = (Vec::new(), None, false);
        results.send(Done::Written { frames, failed, wants_compaction }).unwrap();
        freed(2).emit(&mut out.records);
        store.exchange(Duration::ZERO, || snapshot(2), &mut out);
        let second: Job = orders.try_recv().unwrap();
        assert_eq!(second.snapshot, Some(snapshot(2)), "what was left out is in there");
    }
}

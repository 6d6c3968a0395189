//! Crashes of the switch, over the processes that follow each other.
//!
//! ```text
//!  a switch ── notes the port that each thread works for ──▶ memory in the keeper
//!     │ crashes: a handler marks that there                       │
//!     ▼                                                           ▼
//!  the next one ── reads mark and notes ──▶ `history` ──▶ port left out, or nothing kept
//! ```
//!
//! A switch that crashes is followed by another one, which goes on with the same guests. If one of
//! them made it crash, it does so again. So the next switch reads for which port the thread has
//! worked that crashed, and a port that has caused two crashes within a minute is left out for some
//! time: its device is not opened, its socket not made, its connection closed. What has happened is
//! in the keeper's entry, beside the memory of the notes, and so is forgotten with the keeper, at
//! an orderly end.

mod history;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use trama_keeper::Keeper;
use trama_switch::counters::Lasting;
use trama_switch::{Crash, KeptError, Note, Notes, PortId, Task, mark_crashes, notes};

use crate::succession::Seat;
use history::{History, Verdict};

pub use history::Restarts;

/// The keeper's key.
const KEY: &str = "crashes";
/// Workers and ports that are noted; those beyond are never under suspicion.
const SLOTS: usize = 16_640;
/// How close to each other crashes must be, and the shortest time for which a port is left out.
const MINUTE: Duration = Duration::from_secs(60);

/// The crashes of earlier switches, and the notes of this one.
pub struct Crashes {
    keeper: Option<Keeper>,
    starts_cold: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    history: History,
    /// `None` if there is no next switch that could read them.
    notes: Option<(Notes, OwnedFd)>,
    /// Those of the workers, in their order.
    workers: Vec<Lasting<Note>>,
    /// Whether another switch still has its notes with the keeper.
    is_beside: bool,
}

impl Crashes {
    /// Notes nothing and knows of no crash.
    pub fn none() -> Crashes {
        Crashes { keeper: None, starts_cold: false, inner: Mutex::default() }
    }

    /// Learns what the switch before has come to, which has ended by the signal `by` if that is
    /// known, and begins notes of its own.
    pub fn follow(seat: Option<&Seat>, by: Option<i32>) -> Crashes {
        let Some(seat) = seat else { return Crashes::none() };
        let (mut history, memory) = if seat.resumes { kept(&seat.keeper) } else { Kept::default() };
        let is_beside = seat.previous.is_some();
        let follows_dead = seat.resumes && !is_beside;
        let starts_cold = follows_dead && judge(&mut history, memory, by) == Verdict::StartCold;
        let warn = |error: &io::Error| tracing::warn!("crashes are not explained: {error}");
        let notes = begin_notes().inspect_err(warn).ok();
        let inner = Inner { history, notes, workers: Vec::new(), is_beside };
        if !is_beside {
            inner.put(&seat.keeper);
        }
        Crashes { keeper: Some(seat.keeper.clone()), starts_cold, inner: Mutex::new(inner) }
    }

    /// Whether this switch must not go on with what earlier ones had.
    pub fn starts_cold(&self) -> bool {
        self.starts_cold
    }

    /// The other switch has ended, of which this one takes the place.
    pub(crate) fn settle(&self) {
        let (mut inner, Some(keeper)) = (self.lock(), &self.keeper) else { return };
        if std::mem::take(&mut inner.is_beside) {
            // It may have left out a port meanwhile, or a user may have cleared one.
            inner.history = kept(keeper).0;
            inner.history.restarts.upgrade += 1;
            inner.put(keeper);
        }
    }

    /// Returns the note of the next worker.
    pub(crate) fn worker(&self) -> Lasting<Note> {
        let mut inner = self.lock();
        let note = inner.notes.as_mut().map(|(notes, _)| notes.worker()).unwrap_or_default();
        inner.workers.push(note.clone());
        note
    }

    /// A port was made; returns the note of its session's thread.
    pub(crate) fn port(&self, id: PortId, name: &str) -> Lasting<Note> {
        let mut inner = self.lock();
        inner.notes.as_mut().map(|(notes, _)| notes.port(id, name)).unwrap_or_default()
    }

    /// A port was removed, with its session's thread.
    pub(crate) fn removed(&self, id: PortId) {
        if let Some((notes, _)) = &mut self.lock().notes {
            notes.forget(id);
        }
    }

    /// A worker stands still, by its number; `None`: all go on.
    pub(crate) fn set_hung(&self, worker: Option<usize>) {
        let inner = self.lock();
        let note = worker.and_then(|number| inner.workers.get(number));
        if let Some((notes, _)) = &inner.notes {
            notes.set_hung(note.map(|note| &**note));
        }
    }

    /// Returns why a port is left out at present; `None` if it is not.
    pub(crate) fn left_out(&self, port: &str) -> Option<String> {
        self.lock().history.reason(port, now()).map(str::to_owned)
    }

    /// A user has removed the port or made it anew: nothing is held against it.
    pub(crate) fn clear(&self, port: &str) {
        let mut inner = self.lock();
        if inner.history.forget(port)
            && let Some(keeper) = &self.keeper
            && !inner.is_beside
        {
            inner.put(keeper);
        }
    }

    /// Returns how often one switch has followed another.
    pub(crate) fn restarts(&self) -> Restarts {
        self.lock().history.restarts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives the keeper the history and the memory of the notes.
    fn put(&self, keeper: &Keeper) {
        let Some((_, memory)) = &self.notes else { return };
        let value = serde_json::to_vec(&self.history).unwrap_or_default();
        if let Err(error) = keeper.put(KEY, &value, &[memory.as_fd()]) {
            tracing::warn!("crashes are not remembered: {error}");
        }
    }
}

/// What the keeper has: the history and the memory of the last notes.
type Kept = (History, Option<OwnedFd>);

fn kept(keeper: &Keeper) -> Kept {
    // What another version has put counts as absent.
    let Ok(Some(entry)) = keeper.get(KEY) else { return Kept::default() };
    let history = serde_json::from_slice(&entry.value).unwrap_or_default();
    (history, entry.fds.into_iter().next())
}

/// Makes memory for notes, in which a crash of this process is marked.
fn begin_notes() -> io::Result<(Notes, OwnedFd)> {
    let (notes, memory) = Notes::create(SLOTS)?;
    mark_crashes(notes.crash_mark())?;
    Ok((notes, memory))
}

/// Counts the end of the switch before, and says what follows.
fn judge(history: &mut History, memory: Option<OwnedFd>, by: Option<i32>) -> Verdict {
    let note = |error: &KeptError| tracing::info!("the last switch has no notes: {error}");
    let read = memory.and_then(|memory| notes::read(memory, by).inspect_err(note).ok());
    let Some(crash) = read.flatten() else {
        history.restarts.killed += 1;
        return Verdict::GoOn;
    };
    history.restarts.crash += 1;
    tracing::warn!("the last switch has crashed: {}", describe(&crash));
    let suspects = crash.suspects.iter().map(|suspect| suspect.port.clone()).collect();
    let verdict = history.crashed(suspects, now(), minute());
    match &verdict {
        Verdict::GoOn => {}
        Verdict::LeaveOut { port, time } => {
            let reason = format!(
                "port {port} brought the switch down twice ({}); left out for {} s",
                describe_for(&crash, port),
                time.as_secs()
            );
            tracing::error!("{reason}; removing and adding it ends that");
            history.explain(port, reason);
        }
        Verdict::StartCold => tracing::error!(
            "the switch has crashed again and again, and no port is known to be the reason: \
             nothing is kept, and guests are disconnected"
        ),
    }
    verdict
}

/// A crash in words.
fn describe(crash: &Crash) -> String {
    let tasks = crash.suspects.iter().map(|suspect| {
        let port = &suspect.port;
        match suspect.task {
            Task::Transmit => format!("the transmit queue of port {port} was served"),
            Task::Receive => format!("frames were delivered to port {port}"),
            Task::Request => format!("a request of the frontend of port {port} was carried out"),
        }
    });
    let tasks: Vec<String> = tasks.collect();
    match tasks.is_empty() {
        true => format!("{}, for no port", how(crash)),
        false => format!("{} while {}", how(crash), tasks.join(" and ")),
    }
}

/// The same, of one of the ports.
fn describe_for(crash: &Crash, port: &str) -> String {
    let suspect = crash.suspects.iter().find(|suspect| suspect.port == port);
    let task = match suspect.map(|suspect| suspect.task) {
        Some(Task::Receive) => "frames were delivered to it",
        Some(Task::Request) => "a request of its frontend was carried out",
        Some(Task::Transmit) | None => "its transmit queue was served",
    };
    format!("{} while {task}", how(crash))
}

fn how(crash: &Crash) -> String {
    if crash.is_hung {
        return "a worker stood still".to_owned();
    }
    let known = [(4, "SIGILL"), (6, "SIGABRT"), (7, "SIGBUS"), (8, "SIGFPE"), (11, "SIGSEGV")];
    let name = known.iter().find(|(number, _)| *number == crash.signal);
    name.map_or_else(|| format!("signal {}", crash.signal), |(_, name)| (*name).to_owned())
}

/// The time since the host's start, which all processes agree on.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A minute; in builds for tests `TRAMA_FAULT_MINUTE` says how many seconds it has.
fn minute() -> Duration {
    let stated = std::env::var("TRAMA_FAULT_MINUTE").ok().filter(|_| cfg!(debug_assertions));
    stated.and_then(|text| text.parse().ok()).map_or(MINUTE, Duration::from_secs)
}

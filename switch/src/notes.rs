//! What each thread works on, in memory that outlives the process.
//!
//! A worker notes the port whose rings it has in hands, and the port that it delivers to; the
//! thread of a session, whose requests it carries out. If the process crashes, the next one reads
//! there for which port the thread has worked that crashed ([`read`]). A note costs a frame's way a
//! store for each turn of a port, and one before and after each delivery.
//!
//! One memfd has a head, the crash's mark ([`CrashMark`]), and slots of one size: a worker's has
//! its note, a port's has the name besides. An id is written after the name that belongs to it, and
//! a port is served only then.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use trama_virtqueue::{CrashMark, LastingMemory, atomic_words};

use crate::counters::Lasting;
use crate::faults::{self, Place};
use crate::kept::KeptError;
use crate::types::PortId;

/// Longest name of a port that is noted whole, in bytes.
const MAX_NAME: usize = 64;
const MAGIC: u64 = u64::from_le_bytes(*b"trama-no");
/// The layout; another one is not read.
const LAYOUT: u64 = 1;
/// Set in [`Note::work`] besides the port's id.
const REQUEST: u64 = 1 << 63;
/// Bytes of the head, of the mark, and of a slot.
const SLOT: usize = 128;
const _: () = assert!(size_of::<Head>() == SLOT && size_of::<Note>() == SLOT);
const _: () = assert!(size_of::<CrashMark>() == SLOT);

atomic_words! {
    /// What is at the start of the memory.
    struct Head {
        magic: AtomicU64,
        layout: AtomicU64,
        /// Slots that have been taken at some time: those behind are untouched.
        used: AtomicU64,
        /// The thread of a worker that stands still; 0 if none does.
        hung: AtomicU64,
    }
}

atomic_words! {
    /// What a thread works on. Only that thread may write it.
    #[derive(Default)]
    pub struct Note {
        thread: AtomicU64,
        /// The id of the port that it works for, with [`REQUEST`]; 0 for none.
        work: AtomicU64,
        /// The id of the port that it delivers to; 0 for none.
        receiver: AtomicU64,
        /// The id of the port whose slot this is; 0 in a worker's.
        id: AtomicU64,
        /// The length of the name.
        length: AtomicU64,
        name: [AtomicU64; MAX_NAME / 8],
    }
}

impl Note {
    /// From now on the calling thread writes here.
    pub fn take(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread.store(thread as u64, Relaxed);
    }

    /// Serves the rings or the device of a port from now on.
    #[inline(always)]
    pub(crate) fn serve(&self, port: PortId) {
        self.work.store(port.0, Relaxed);
    }

    /// Delivers frames to a port from now on.
    #[inline(always)]
    pub(crate) fn deliver(&self, port: PortId) {
        self.receiver.store(port.0, Relaxed);
        faults::strike(Place::Receive, port);
    }

    /// The frames were delivered.
    #[inline(always)]
    pub(crate) fn delivered(&self) {
        self.receiver.store(0, Relaxed);
    }

    /// Carries out a request of a port's frontend from now on.
    pub fn request(&self, port: PortId) {
        self.work.store(port.0 | REQUEST, Relaxed);
        faults::strike(Place::Request, port);
    }

    /// Works for no port.
    #[inline(always)]
    pub fn idle(&self) {
        self.work.store(0, Relaxed);
    }
}

/// What was done for a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Its transmit ring was served, or its device read.
    Transmit,
    /// Frames were delivered to it.
    Receive,
    /// A request of its frontend was carried out.
    Request,
}

/// A port that a thread worked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// Its name.
    pub port: String,
    /// What was done for it.
    pub task: Task,
}

/// How a process has crashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crash {
    /// The signal's number.
    pub signal: i32,
    /// Whether a worker stood still.
    pub is_hung: bool,
    /// The ports that the thread worked for: the sender before the receiver.
    pub suspects: Vec<Suspect>,
}

/// The notes of one process.
pub struct Notes {
    memory: Arc<LastingMemory>,
    head: Lasting<Head>,
    slots: HashMap<PortId, usize>,
    free: Vec<usize>,
}

impl Notes {
    /// Makes memory for `slots` workers and ports, of which only what is used takes memory; also
    /// returns its descriptor, for the next process.
    ///
    /// # Errors
    /// The memory cannot be made.
    pub fn create(slots: usize) -> io::Result<(Notes, OwnedFd)> {
        let (memory, file) = LastingMemory::create(slot(slots))?;
        let head = head(&memory).map_err(io::Error::other)?;
        head.layout.store(LAYOUT, Relaxed);
        head.magic.store(MAGIC, Relaxed);
        let (slots, free) = (HashMap::new(), Vec::new());
        Ok((Notes { memory, head, slots, free }, file.into()))
    }

    /// Returns where [`trama_virtqueue::mark_crashes`] marks a crash.
    pub fn crash_mark(&self) -> Lasting<CrashMark> {
        mark(&self.memory).unwrap_or_default()
    }

    /// Returns the note of a worker. Without room, what it writes there is lost.
    pub fn worker(&mut self) -> Lasting<Note> {
        let note = self.take_slot().and_then(|index| self.note(index));
        note.unwrap_or_default()
    }

    /// Names a port; returns the note of its session's thread. Without room, neither is kept.
    pub fn port(&mut self, id: PortId, name: &str) -> Lasting<Note> {
        faults::arm(id, name);
        let Some(index) = self.take_slot() else { return Lasting::default() };
        let Some(note) = self.note(index) else { return Lasting::default() };
        write_name(&note, name);
        note.id.store(id.0, Relaxed);
        self.slots.insert(id, index);
        note
    }

    /// Forgets a port that was removed. Nothing may write its note any more.
    pub fn forget(&mut self, id: PortId) {
        let Some(index) = self.slots.remove(&id) else { return };
        if let Some(note) = self.note(index) {
            for word in [&note.id, &note.thread, &note.work] {
                word.store(0, Relaxed);
            }
        }
        self.free.push(index);
    }

    /// Notes that a worker stands still, which has this note; `None`: that all go on.
    pub fn set_hung(&self, worker: Option<&Note>) {
        self.head.hung.store(worker.map_or(0, |note| note.thread.load(Relaxed)), Relaxed);
    }

    fn take_slot(&mut self) -> Option<usize> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = self.head.used.load(Relaxed);
        self.note(index as usize)?;
        self.head.used.store(index + 1, Relaxed);
        Some(index as usize)
    }

    fn note(&self, index: usize) -> Option<Lasting<Note>> {
        note(&self.memory, index)
    }
}

/// Reads what a process has noted that has ended; `None` if it did not crash. If no handler could
/// mark the crash, it is known that it has ended by the signal `by`.
///
/// # Errors
/// It is not such memory, or that of another version.
pub fn read(fd: OwnedFd, by: Option<i32>) -> Result<Option<Crash>, KeptError> {
    let memory = LastingMemory::open(&File::from(fd))?;
    let head = head(&memory)?;
    if head.magic.load(Relaxed) != MAGIC {
        return Err(KeptError::NotThis { what: "notes" });
    }
    if head.layout.load(Relaxed) != LAYOUT {
        return Err(KeptError::OtherLayout { what: "notes" });
    }
    let mark = mark(&memory).ok_or(KeptError::Short { what: "notes" })?;
    let marked = i32::try_from(mark.signal.load(Relaxed)).ok().filter(|signal| *signal != 0);
    let Some(signal) = marked.or(by.filter(|signal| *signal == libc::SIGSYS)) else {
        return Ok(None);
    };
    let (hung, own) = (head.hung.load(Relaxed), mark.thread.load(Relaxed));
    // A worker that stands still is ended from outside, on any thread.
    let is_hung = hung != 0 && signal == libc::SIGABRT;
    let thread = if is_hung { hung } else { own };
    let used = usize::try_from(head.used.load(Relaxed)).unwrap_or(usize::MAX);
    let notes: Vec<_> = (0..used).map_while(|index| note(&memory, index)).collect();
    Ok(Some(Crash { signal, is_hung, suspects: suspects(&notes, thread) }))
}

/// Returns the ports that a thread worked for.
fn suspects(notes: &[Lasting<Note>], thread: u64) -> Vec<Suspect> {
    let own = |note: &&Lasting<Note>| thread != 0 && note.thread.load(Relaxed) == thread;
    let Some(note) = notes.iter().find(own) else { return Vec::new() };
    let (work, receiver) = (note.work.load(Relaxed), note.receiver.load(Relaxed));
    let task = if work & REQUEST == 0 { Task::Transmit } else { Task::Request };
    let named = |(id, task)| {
        let slot = notes.iter().find(|slot| id != 0 && slot.id.load(Relaxed) == id)?;
        Some(Suspect { port: name_of(slot)?, task })
    };
    [(work & !REQUEST, task), (receiver, Task::Receive)].into_iter().filter_map(named).collect()
}

/// Returns where a slot begins, in bytes: behind the head and the mark.
fn slot(index: usize) -> usize {
    index.saturating_add(2).saturating_mul(SLOT)
}

fn head(memory: &Arc<LastingMemory>) -> Result<Lasting<Head>, KeptError> {
    memory.at(0, Arc::new(())).ok_or(KeptError::Short { what: "notes" })
}

fn mark(memory: &Arc<LastingMemory>) -> Option<Lasting<CrashMark>> {
    memory.at(SLOT, Arc::new(()))
}

fn note(memory: &Arc<LastingMemory>, index: usize) -> Option<Lasting<Note>> {
    memory.at(slot(index), Arc::new(()))
}

fn write_name(note: &Note, name: &str) {
    let mut bytes = [0; MAX_NAME];
    let length = name.len().min(MAX_NAME);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    for (word, bytes) in note.name.iter().zip(bytes.as_chunks().0) {
        word.store(u64::from_le_bytes(*bytes), Relaxed);
    }
    note.length.store(length as u64, Relaxed);
}

/// Returns a slot's name. One that is cut off is no port's.
fn name_of(slot: &Note) -> Option<String> {
    let bytes: Vec<u8> =
        slot.name.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    let name = bytes.get(..usize::try_from(slot.length.load(Relaxed)).ok()?)?;
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes of two ports, as another process reads them after a crash of this thread.
    struct Scene {
        notes: Notes,
        memory: OwnedFd,
        worker: Lasting<Note>,
    }

    const ONE: PortId = PortId(7);
    const OTHER: PortId = PortId(9);

    impl Scene {
        fn new() -> Scene {
            let (mut notes, memory) = Notes::create(4).unwrap();
            let worker = notes.worker();
            worker.take();
            notes.port(ONE, "one");
            notes.port(OTHER, "other");
            Scene { notes, memory, worker }
        }

        fn crash(&self, signal: i32) {
            let mark = self.notes.crash_mark();
            mark.thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u64, Relaxed);
            mark.signal.store(signal as u64, Relaxed);
        }

        fn read(&self) -> Option<Crash> {
            read(self.memory.try_clone().unwrap(), None).unwrap()
        }

        fn suspects(&self) -> Vec<(String, Task)> {
            let suspects = self.read().unwrap().suspects.into_iter();
            suspects.map(|suspect| (suspect.port, suspect.task)).collect()
        }
    }

    #[test]
    fn a_crash_names_the_port_that_the_thread_worked_for() {
        let scene = Scene::new();
        scene.worker.serve(ONE);
        assert_eq!(scene.read(), None, "it did not crash");
        scene.crash(11);
        assert_eq!(scene.read().unwrap().signal, 11);
        assert_eq!(scene.suspects(), [("one".into(), Task::Transmit)]);
        scene.worker.deliver(OTHER);
        let both = [("one".into(), Task::Transmit), ("other".into(), Task::Receive)];
        assert_eq!(scene.suspects(), both);
        scene.worker.delivered();
        scene.worker.request(OTHER);
        assert_eq!(scene.suspects(), [("other".into(), Task::Request)]);
        scene.worker.idle();
        assert_eq!(scene.suspects(), []);
    }

    #[test]
    fn another_thread_s_crash_names_no_port_of_this_one() {
        let scene = Scene::new();
        scene.worker.serve(ONE);
        scene.crash(11);
        scene.notes.crash_mark().thread.fetch_add(1, Relaxed);
        assert_eq!(scene.suspects(), []);
    }

    #[test]
    fn a_worker_that_stands_still_names_its_port_when_the_process_is_aborted() {
        let scene = Scene::new();
        scene.worker.serve(ONE);
        scene.notes.set_hung(Some(&scene.worker));
        scene.crash(libc::SIGABRT);
        scene.notes.crash_mark().thread.fetch_add(1, Relaxed);
        assert!(scene.read().unwrap().is_hung);
        assert_eq!(scene.suspects(), [("one".into(), Task::Transmit)]);
        scene.notes.set_hung(None);
        assert_eq!(scene.suspects(), []);
        assert!(!scene.read().unwrap().is_hung);
    }

    #[test]
    fn a_session_s_thread_has_the_slot_of_its_port() {
        let (mut notes, memory) = Notes::create(1).unwrap();
        let note = notes.port(ONE, "one");
        note.take();
        note.request(ONE);
        let scene = Scene { notes, memory, worker: Lasting::default() };
        scene.crash(6);
        assert_eq!(scene.suspects(), [("one".into(), Task::Request)]);
    }

    #[test]
    fn slots_are_used_again_and_what_finds_no_room_is_not_kept() {
        let (mut notes, memory) = Notes::create(30).unwrap();
        let room = (1..).take_while(|id| notes.port(PortId(*id), "x").is_kept()).count() as u64;
        assert!((30..100).contains(&room), "{room} slots: whole pages");
        notes.forget(PortId(3));
        let note = notes.port(PortId(1000), "new");
        assert!(note.is_kept());
        note.take();
        note.serve(PortId(1000));
        let scene = Scene { notes, memory, worker: note };
        scene.crash(11);
        assert_eq!(scene.suspects(), [("new".into(), Task::Transmit)]);
        scene.worker.serve(PortId(3));
        assert_eq!(scene.suspects(), [], "it was removed");
    }

    #[test]
    fn a_process_that_its_filter_has_ended_has_crashed() {
        let scene = Scene::new();
        let read = |by| read(scene.memory.try_clone().unwrap(), by).unwrap();
        assert_eq!(read(Some(libc::SIGSYS)).unwrap().signal, libc::SIGSYS);
        assert_eq!(read(Some(libc::SIGKILL)), None);
    }

    #[test]
    fn other_memory_is_refused_with_the_reason() {
        let scene = Scene::new();
        let refusal = || read(scene.memory.try_clone().unwrap(), None).unwrap_err().to_string();
        scene.notes.head.layout.store(LAYOUT + 1, Relaxed);
        assert!(refusal().contains("another version"), "{}", refusal());
        scene.notes.head.magic.store(0, Relaxed);
        assert!(refusal().contains("not notes"), "{}", refusal());
    }
}

//! Which captures run, and what all have done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most captures at once.
const MAX_CAPTURES: usize = 8;

/// The captures that run, and counts of all that ran.
#[derive(Default)]
pub(crate) struct Captures {
    running: Mutex<Vec<Running>>,
    last: AtomicU64,
    frames: AtomicU64,
    missed: AtomicU64,
}

/// A capture, for the others to see.
struct Running {
    id: u64,
    /// What is captured, as the client wrote it.
    what: String,
    /// The client's user, if known.
    user: Option<u32>,
    since: Instant,
    end: Arc<AtomicBool>,
}

/// A capture's place among the running ones, which ends with it.
pub(crate) struct Slot {
    captures: Arc<Captures>,
    /// The number by which it is ended.
    pub id: u64,
    end: Arc<AtomicBool>,
}

/// What captures have done, for the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    /// Captures that run.
    pub running: u64,
    /// Frames that were captured.
    pub frames: u64,
    /// Frames that found no room in a queue, of a capture or of the ring.
    pub missed: u64,
}

impl Captures {
    /// Takes a place for a capture.
    ///
    /// # Errors
    /// All are taken; the text says by what.
    pub(super) fn begin(self: &Arc<Self>, what: String, user: Option<u32>) -> Result<Slot, String> {
        let mut running = self.lock();
        if running.len() >= MAX_CAPTURES {
            let all: Vec<String> = running.iter().map(Running::describe).collect();
            let all = all.join(", ");
            return Err(format!(
                "{MAX_CAPTURES} captures run, which is the most: {all}; end one of them"
            ));
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let end = Arc::new(AtomicBool::new(false));
        running.push(Running { id, what, user, since: Instant::now(), end: Arc::clone(&end) });
        Ok(Slot { captures: Arc::clone(self), id, end })
    }

    /// Asks a capture to end; returns whether it runs.
    pub(crate) fn end(&self, id: u64) -> bool {
        let running = self.lock();
        let found = running.iter().find(|it| it.id == id);
        found.inspect(|it| it.end.store(true, Ordering::Relaxed)).is_some()
    }

    /// Returns what captures have done.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            running: self.lock().len() as u64,
            frames: self.frames.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
        }
    }

    /// Counts frames that were captured, and others that found no room in a queue.
    pub(super) fn count(&self, frames: u64, missed: u64) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.missed.fetch_add(missed, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn describe(&self) -> String {
        let by = self.user.map(|user| format!(" by user {user}")).unwrap_or_default();
        format!("{}{by} for {} s", self.what, self.since.elapsed().as_secs())
    }
}

impl Slot {
    /// Returns whether the client wants the capture to end.
    pub(super) fn is_ending(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, frames: u64, missed: u64) {
        self.captures.count(frames, missed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.captures.lock().retain(|it| it.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_with_its_capture() {
        let captures = Arc::new(Captures::default());
        let begin = || captures.begin("vm1".to_owned(), Some(7));
        let mut slots: Vec<_> = (0..MAX_CAPTURES).map(|_| begin().unwrap()).collect();
        let refusal = begin().err().unwrap();
        assert!(refusal.contains("vm1 by user 7 for 0 s"), "{refusal}");
        let last = slots.pop().unwrap();
        assert!(captures.end(last.id) && last.is_ending());
        let id = last.id;
        drop(last);
        assert!(!captures.end(id));
        last_count(&begin().unwrap());
        assert_eq!(captures.totals().running, 7);
        assert_eq!((captures.totals().frames, captures.totals().missed), (3, 2));
    }

    fn last_count(slot: &Slot) {
        slot.count(3, 2);
    }
}

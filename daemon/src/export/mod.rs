//! Exports: samples of frames and counters of ports, sent to collectors by sFlow and IPFIX.
//!
//! ```text
//!  state/exports.rs   what is configured and runs ─▶ thread.rs    one thread for all exports
//!  worker ─ one frame in N ─ bounded queues ───────▶ session.rs   one protocol of one network
//!                                                    encoder.rs   trama-export: bytes
//!                                                    collectors.rs ─▶ UDP sockets of the helper
//! ```
//!
//! The thread sleeps while nothing is exported. The worker never waits for it: what finds no room
//! in a queue is counted as lost. A collector that does not listen is told of once, in the log and
//! in the column `status` of Bridge; the others get their datagrams.

mod collectors;
mod encoder;
mod session;
mod thread;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use thread::start;

/// A protocol of exports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Protocol {
    Sflow,
    Ipfix,
}

impl Protocol {
    pub(crate) const ALL: [Protocol; 2] = [Protocol::Sflow, Protocol::Ipfix];

    /// Returns its name in the metrics and among the keys of a network.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Sflow => "sflow",
            Protocol::Ipfix => "ipfix",
        }
    }
}

/// How exports go, by network and protocol: the fault of each collector that has one, in words.
pub(crate) type Statuses = BTreeMap<(String, Protocol), Vec<String>>;

/// What the exports' thread tells the others, and is told.
#[derive(Default)]
pub(crate) struct Exports {
    thread: Mutex<Option<JoinHandle<()>>>,
    is_ending: AtomicBool,
    statuses: Mutex<Statuses>,
    counts: [Counts; Protocol::ALL.len()],
}

/// What was exported by a protocol.
#[derive(Default)]
struct Counts {
    records: AtomicU64,
    lost: AtomicU64,
}

impl Exports {
    /// Has the thread look at what is configured.
    pub(crate) fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.thread().unpark();
        }
    }

    /// Returns how exports go.
    pub(crate) fn statuses(&self) -> Statuses {
        lock(&self.statuses).clone()
    }

    /// Returns the records that were sent by a protocol, and those that were lost.
    pub(crate) fn totals(&self, protocol: Protocol) -> (u64, u64) {
        let Counts { records, lost } = &self.counts[protocol as usize];
        (records.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    }

    /// Counts records that were sent, and others that were lost.
    pub(crate) fn count(&self, protocol: Protocol, sent: u64, lost: u64) {
        let counts = &self.counts[protocol as usize];
        counts.records.fetch_add(sent, Ordering::Relaxed);
        counts.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// Has the thread send what it has, and waits for its end.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.wake();
        let thread = lock(&self.thread).take();
        // One that has panicked has ended as well.
        let _ = thread.map(JoinHandle::join);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

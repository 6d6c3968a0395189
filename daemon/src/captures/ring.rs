//! The ring: the frames of the last seconds, kept for a capture that asks for them.
//!
//! ```text
//!  worker ─ all ports, queues of state/watches.rs ─▶ keeper.rs   one thread
//!                                                      │
//!                                                    store.rs    bounded, the oldest go
//!                                                      │ segments, shared
//!  session.rs ── its watches begin, then it asks ──────┘
//! ```
//!
//! The seam of a capture: its watches begin first. Then the keeper takes what its own watches have
//! seen until then, and hands out the segments. Of their frames the capture writes those that are
//! older than its watch of the same network: each frame is there once.
//!
//! The thread sleeps while no ring is configured, and no port is watched for it.

mod keeper;
mod store;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use trama_switch::Time;

pub use keeper::start;
pub(super) use store::Segment;
#[cfg(test)]
pub(super) use {keeper::SNAPLEN, store::Store};

/// How long the keeper may take to answer: it takes what is in its queues.
const ANSWER: Duration = Duration::from_secs(2);

/// What the keeper of the ring is told, and asked.
#[derive(Default)]
pub(crate) struct Ring {
    /// Bytes that it may take; 0 = there is no ring.
    size: AtomicUsize,
    /// Once its thread runs.
    keeper: OnceLock<Line>,
}

/// The way to the keeper's thread.
struct Line {
    asks: Sender<Ask>,
    /// Wakes the thread.
    wake: OwnedFd,
}

/// Asks for all frames that were seen before a time.
struct Ask {
    until: Time,
    answer: SyncSender<Vec<Arc<Segment>>>,
}

impl Ring {
    /// Sets how many bytes the ring may take, or that there is none.
    pub(crate) fn resize(&self, bytes: Option<usize>) {
        let bytes = bytes.unwrap_or(0);
        if self.size.swap(bytes, Ordering::Relaxed) != bytes {
            self.wake();
        }
    }

    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Returns the frames that were seen before `until`, and perhaps some later ones.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub(super) fn look_back(&self, until: Time) -> Result<Vec<Arc<Segment>>, String> {
        let (answer, answered) = sync_channel(1);
        // Without a thread the ask is dropped, and with it the other end.
        let _ = self.keeper.get().map(|line| line.asks.send(Ask { until, answer }));
        self.wake();
        answered
            .recv_timeout(ANSWER)
            .map_err(|_| "the ring does not answer; try again, or leave --last out".to_owned())
    }

    fn wake(&self) {
        if let Some(line) = self.keeper.get() {
            // It can only fail if the thread has much to wake up for already.
            let _ = rustix::io::write(&line.wake, &1u64.to_ne_bytes());
        }
    }
}

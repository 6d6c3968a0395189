//! Events: what happens on the networks, kept for a while and streamed to those who watch.
//!
//! ```text
//!  workers ─▶ last_drops.rs ─▶ drops.rs      frames of a reason in a second → one event
//!  gateways ─▶ supervisor.rs ─▶ gateways.rs  checked: a gateway may be in a guest's hands
//!  apply/, sessions, streams ─▶ links.rs                  │
//!  api/ ────────────────────▶ changes.rs                  ▼
//!                                            ring.rs      numbered, bounded
//!                                               ▲
//!  api/events.rs ◀── reader.rs ─────────────────┘         each reader looks by itself
//! ```
//!
//! No reader holds back what writes: one that is slow finds its next event overwritten, and is told
//! how many it has missed. `daemon.events` is the number of events that are kept; with 0 nothing is
//! noted, and gateways report nothing.

mod changes;
mod drops;
mod gateways;
mod links;
mod ports;
mod reader;
mod ring;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use trama_api::event::{Facts, Kind, Moment};
use trama_switch::PortId;
use trama_switch::news::DropNotice;

pub use changes::By;
pub(crate) use gateways::Limit;
pub(crate) use links::Frontends;
pub(crate) use ports::Known;
pub(crate) use reader::{Reader, Step, Wanted};

use ports::Ports;
use ring::Ring;

/// Drop notices that wait; the drops of others are counted by the next notice.
const WAITING: usize = 1024;

/// The events of a daemon.
pub struct Events {
    /// The same as the ring's, readable without its lock.
    capacity: AtomicUsize,
    ring: Mutex<Ring>,
    /// Has the number of the next event, for readers that wait.
    next: watch::Sender<u64>,
    ports: Ports,
    drops: SyncSender<DropNotice>,
    /// Events by type, and those that readers have missed.
    counts: [AtomicU64; Kind::ALL.len()],
    lost: AtomicU64,
}

/// How many events there were, for the metrics.
pub(crate) struct Totals {
    /// By type.
    pub(crate) counts: [(&'static str, u64); Kind::ALL.len()],
    /// Those that readers have missed, or that were too many for a gateway to report.
    pub(crate) lost: u64,
}

impl Events {
    /// Keeps this many events, and starts the thread that gathers drops.
    ///
    /// # Errors
    /// There are too many threads.
    pub fn start(capacity: usize) -> io::Result<Arc<Events>> {
        // So that the numbers of the next daemon are higher ones: no daemon has a million events a
        // second all the time.
        let first = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros() as u64;
        let (drops, notices) = std::sync::mpsc::sync_channel(WAITING);
        let events = Arc::new(Events {
            capacity: AtomicUsize::new(capacity),
            ring: Mutex::new(Ring::new(capacity, first)),
            next: watch::Sender::new(first),
            ports: Ports::default(),
            drops,
            counts: Default::default(),
            lost: AtomicU64::new(0),
        });
        drops::start(notices, Arc::downgrade(&events))?;
        Ok(events)
    }

    /// Returns whether events are kept.
    pub(crate) fn are_kept(&self) -> bool {
        self.capacity.load(Ordering::Relaxed) > 0
    }

    /// Changes how many events are kept.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        if self.capacity.swap(capacity, Ordering::Relaxed) == capacity {
            return;
        }
        self.ports.skip_drops();
        self.ring().set_capacity(capacity);
    }

    /// Adds an event that happens now.
    fn add(&self, kind: Kind, facts: Facts) {
        if !self.are_kept() {
            return;
        }
        let next = {
            let mut ring = self.ring();
            ring.push(Moment::now(), kind, facts);
            ring.next()
        };
        if let Some(at) = Kind::ALL.iter().position(|known| *known == kind) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
        }
        // Two writers may come here in another order; a reader looks at the ring in any case.
        self.next.send_replace(next);
    }

    fn count_lost(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::Relaxed);
    }

    /// Returns how many events there were.
    pub(crate) fn totals(&self) -> Totals {
        let count = |at: usize| (Kind::ALL[at].name(), self.counts[at].load(Ordering::Relaxed));
        Totals { counts: std::array::from_fn(count), lost: self.lost.load(Ordering::Relaxed) }
    }

    /// A port runs, or something of it has changed.
    pub(crate) fn set_port(&self, id: PortId, port: Known) {
        self.ports.set(id, port);
    }

    /// A port runs no more.
    pub(crate) fn forget_port(&self, id: PortId) {
        self.ports.forget(id);
    }

    /// A frame was dropped.
    pub(crate) fn note_drop(&self, notice: &DropNotice) {
        if self.are_kept() {
            // Without room, it is counted with the next one of its reason.
            let _ = self.drops.try_send(notice.clone());
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use trama_switch::{Device, Engine, PortSettings, VlanMode};

    use super::*;

    /// The number of a port, of which nothing else is left.
    pub(super) fn some_port() -> PortId {
        let settings = PortSettings {
            name: "p".into(),
            network: None,
            vlan: VlanMode::Access { tag: trama_frame::VlanId::NONE },
            cable: true,
            filter: Default::default(),
            mark: 0,
            hdr_len: Default::default(),
        };
        let (device, _handle) = trama_switch::dummy(16);
        Engine::new(1).add_port(settings, Device::Dummy(device)).unwrap().0
    }
}

//! The way from the worker that reads a VTEP's socket to another one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

use super::inbox::Inbox;
use crate::forward::Source;
use crate::ports::signal;

/// How often what one call has brought may wait in a mailbox: up to 1 MiB each.
const WAITING: usize = 16;

/// The way to another worker's end of a VTEP.
#[derive(Clone)]
pub struct VtepMailbox {
    sender: Sender<Inbox>,
    event: Arc<OwnedFd>,
    lost: Arc<AtomicU64>,
}

/// The end of that worker.
pub(super) struct Letters {
    receiver: Receiver<Inbox>,
    event: Arc<OwnedFd>,
    lost: Arc<AtomicU64>,
}

/// Makes a mailbox.
pub(super) fn mailbox() -> io::Result<(VtepMailbox, Letters)> {
    let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let lost = Arc::<AtomicU64>::default();
    let (sender, receiver) = bounded(WAITING);
    let mailbox = VtepMailbox { sender, event: event.clone(), lost: lost.clone() };
    Ok((mailbox, Letters { receiver, event, lost }))
}

impl VtepMailbox {
    /// Hands the selected datagrams of an inbox over; without room they are counted as lost.
    pub(super) fn put(&self, inbox: &Inbox) {
        if self.sender.try_send(inbox.copy()).is_err() {
            self.lost.fetch_add(inbox.len() as u64, Ordering::Relaxed);
        }
        signal(self.event.as_fd());
    }
}

impl Letters {
    /// Returns a descriptor that is readable when there is something.
    pub(super) fn event(&self) -> io::Result<OwnedFd> {
        self.event.try_clone()
    }

    /// Puts what was handed over next into `inbox`; returns whether there was anything.
    pub(super) fn take(&self, inbox: &mut Inbox) -> bool {
        // Before it is looked at, so that what comes later wakes the worker.
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
        let Ok(next) = self.receiver.try_recv() else { return false };
        drop(mem::replace(inbox, next));
        true
    }

    /// Returns how many datagrams found no room since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

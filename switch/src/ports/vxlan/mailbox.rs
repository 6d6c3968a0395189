//! The way from the worker that reads a VTEP's socket to another one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

use super::inbox::Inbox;
use super::losses::Losses;
use crate::ports::signal;

/// How often what one call has brought may wait in a mailbox: up to 1 MiB each.
const WAITING: usize = 16;

/// The way to another worker's end of a VTEP.
#[derive(Clone)]
pub struct VtepMailbox {
    sender: Sender<Inbox>,
    event: Arc<OwnedFd>,
    lost: Arc<Lost>,
}

/// Datagrams to be counted at that end: those without room, and those that were lost before.
#[derive(Default)]
struct Lost {
    busy: AtomicU64,
    overflow: AtomicU64,
}

/// The end of that worker.
pub(super) struct Letters {
    receiver: Receiver<Inbox>,
    event: Arc<OwnedFd>,
    lost: Arc<Lost>,
}

/// Makes a mailbox.
pub(super) fn mailbox() -> io::Result<(VtepMailbox, Letters)> {
    let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let lost = Arc::<Lost>::default();
    let (sender, receiver) = bounded(WAITING);
    let mailbox = VtepMailbox { sender, event: event.clone(), lost: lost.clone() };
    Ok((mailbox, Letters { receiver, event, lost }))
}

impl VtepMailbox {
    /// Hands the selected datagrams of an inbox over; without room they are lost. `losses` are
    /// those of this end, which has no port to count them at.
    pub(super) fn put(&self, inbox: &Inbox, losses: Losses) {
        let Losses { mut busy, overflow } = losses;
        if self.sender.try_send(inbox.copy()).is_err() {
            busy += inbox.selected_len() as u64;
        }
        self.lost.busy.fetch_add(busy, Ordering::Relaxed);
        self.lost.overflow.fetch_add(overflow, Ordering::Relaxed);
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

    /// Returns what was lost since the last call.
    pub(super) fn take_lost(&self) -> Losses {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Losses { busy: take(&self.lost.busy), overflow: take(&self.lost.overflow) }
    }
}

#[cfg(test)]
mod tests {
    use trama_frame::vxlan::{self, Vni};

    use super::super::inbox::NO_ADDRESS;
    use super::super::toward::Toward;
    use super::*;
    use crate::Tunnel;
    use crate::engine::PortId;

    #[test]
    fn what_finds_no_room_is_counted_by_datagrams() {
        let (mailbox, letters) = mailbox().unwrap();
        let mut inbox = Inbox::new();
        let datagram = [&vxlan::header(Vni::new(77).unwrap())[..], &[0; 60]].concat();
        for at in [0, 100, 200] {
            inbox.bytes[at..][..datagram.len()].copy_from_slice(&datagram);
            inbox.add(at, datagram.len(), datagram.len(), NO_ADDRESS, false);
        }
        let tunnel = Tunnel { port: PortId(1), worker: 1 };
        inbox.select(|_, _| Some(Toward { tunnel, refused: None })).unwrap();
        let lost = || {
            let Losses { busy, overflow } = letters.take_lost();
            (busy, overflow)
        };
        (0..WAITING).for_each(|_| mailbox.put(&inbox, Losses::default()));
        assert_eq!(lost(), (0, 0));
        mailbox.put(&inbox, Losses { busy: 10, overflow: 7 });
        assert_eq!(lost(), (13, 7));
    }
}

//! The receiving end of the tunnels with one local address and UDP port.
//!
//! One worker reads the socket. What is for a port of another worker goes into the mailbox of that
//! worker's end, as far as there is room; what does not fit is counted there. While a network moves
//! from one worker to another, its datagrams wait where they are.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::Segment;

use super::inbox::{Inbox, MESSAGES, NO_ADDRESS, ROOM};
use super::losses::Losses;
use super::mailbox::{Letters, VtepMailbox, mailbox};
use super::tunnels::Tunnels;
use crate::drop_reason::DropReason;
use crate::ports::messages::Messages;
use crate::ports::{Sink, Watched, Watcher};

/// Where datagrams come from.
enum Entrance {
    Socket { socket: OwnedFd, messages: Messages },
    Mailbox(Letters),
}

/// A worker's end of a VTEP.
pub struct Vtep {
    entrance: Entrance,
    /// Absent while its frames are switched.
    inbox: Option<Box<Inbox>>,
    tunnels: Arc<Tunnels>,
    /// The number of its worker.
    worker: usize,
    is_drained: bool,
    losses: Losses,
    /// The kernel's count of dropped datagrams; `None` before the first message.
    kernel_drops: Option<u32>,
    pub(crate) watched: Option<Watched>,
}

impl Vtep {
    fn with(entrance: Entrance, inbox: Inbox, worker: usize) -> Vtep {
        let (inbox, tunnels) = (Some(Box::new(inbox)), Arc::default());
        let losses = Losses::default();
        let (is_drained, kernel_drops, watched) = (false, None, None);
        Vtep { entrance, inbox, tunnels, worker, is_drained, losses, kernel_drops, watched }
    }

    /// Makes the end that reads a bound UDP socket, which should merge datagrams (`UDP_GRO`) and
    /// tell how many it has dropped (`SO_RXQ_OVFL`).
    pub fn of_socket(socket: OwnedFd, worker: usize) -> Vtep {
        let messages = Messages::of_segments(MESSAGES);
        Vtep::with(Entrance::Socket { socket, messages }, Inbox::new(), worker)
    }

    /// Makes an end to which that one hands over, and its mailbox.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn of_mailbox(worker: usize) -> io::Result<(Vtep, VtepMailbox)> {
        let (mailbox, letters) = mailbox()?;
        Ok((Vtep::with(Entrance::Mailbox(letters), Inbox::empty(), worker), mailbox))
    }

    pub(crate) fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        let fd = match &self.entrance {
            Entrance::Socket { socket, .. } => socket.try_clone()?,
            Entrance::Mailbox(letters) => letters.event()?,
        };
        self.watched = Some(watcher.watch(fd)?);
        Ok(())
    }

    /// Replaces the tunnels; returns those before.
    pub(crate) fn set_tunnels(&mut self, tunnels: Arc<Tunnels>) -> Arc<Tunnels> {
        std::mem::replace(&mut self.tunnels, tunnels)
    }

    pub(crate) fn tunnels(&self) -> Arc<Tunnels> {
        self.tunnels.clone()
    }

    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// Makes the next datagrams ready: those that are held, or else what one more call brings.
    /// Returns whether there are any.
    pub(crate) fn fetch(&mut self) -> bool {
        let Some(inbox) = &mut self.inbox else { return false };
        if !inbox.is_done() {
            return true;
        }
        inbox.clear();
        match &mut self.entrance {
            Entrance::Socket { socket, messages } => {
                let rooms = inbox.bytes.chunks_exact_mut(ROOM);
                // Mostly EAGAIN.
                let count = messages.receive(socket.as_fd(), rooms).unwrap_or(0);
                self.is_drained = count < MESSAGES;
                for i in 0..count {
                    let it = messages.received(i);
                    let from = it.from.ip().unwrap_or(NO_ADDRESS);
                    let segment = messages.segment(i).unwrap_or(it.len);
                    inbox.add(i * ROOM, it.len, segment, from, it.is_cut);
                    let drops = messages.drops(i).unwrap_or(0);
                    let before = self.kernel_drops.replace(drops).unwrap_or(drops);
                    self.losses.overflow += u64::from(drops.wrapping_sub(before));
                }
            }
            Entrance::Mailbox(letters) => self.is_drained = !letters.take(inbox),
        }
        !inbox.is_done()
    }

    /// Returns whether nothing is left, so that the next datagram wakes the worker.
    pub(crate) fn arm(&self) -> bool {
        self.is_drained && self.inbox.as_ref().is_none_or(|inbox| inbox.is_done())
    }

    /// Takes the datagrams, which go back by [`Vtep::release`].
    pub(crate) fn take(&mut self) -> Option<Box<Inbox>> {
        self.inbox.take_if(|inbox| !inbox.is_done())
    }

    /// Gives them back, with the losses that are not counted yet.
    pub(crate) fn release(&mut self, inbox: Box<Inbox>, losses: Losses) {
        self.inbox = Some(inbox);
        self.losses = losses;
    }

    /// Returns what was lost since the last call.
    pub(crate) fn take_losses(&mut self) -> Losses {
        let mut losses = std::mem::take(&mut self.losses);
        if let Entrance::Mailbox(letters) = &self.entrance {
            let Losses { busy, overflow } = letters.take_lost();
            losses.busy += busy;
            losses.overflow += overflow;
        }
        losses
    }
}

/// It takes no frames: no network has its port.
impl Sink for Vtep {
    fn put(&mut self, _: &[u8; HEADER], _: &[u8], _: &[Segment<'_>]) -> Result<(), DropReason> {
        Err(DropReason::EgressNotReady)
    }
}

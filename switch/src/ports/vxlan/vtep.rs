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
    pub(crate) watched: Option<Watched>,
}

impl Vtep {
    fn with(entrance: Entrance, inbox: Inbox, worker: usize) -> Vtep {
        let (inbox, tunnels) = (Some(Box::new(inbox)), Arc::default());
        Vtep { entrance, inbox, tunnels, worker, is_drained: false, watched: None }
    }

    /// Makes the end that reads a bound UDP socket, which should merge datagrams (`UDP_GRO`).
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

    pub(crate) fn release(&mut self, inbox: Box<Inbox>) {
        self.inbox = Some(inbox);
    }

    /// Returns how many datagrams found no room in the mailbox since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        match &self.entrance {
            Entrance::Mailbox(letters) => letters.take_lost(),
            Entrance::Socket { .. } => 0,
        }
    }
}

/// It takes no frames: no network has its port.
impl Sink for Vtep {
    fn put(&mut self, _: &[u8; HEADER], _: &[u8], _: &[Segment<'_>]) -> Result<(), DropReason> {
        Err(DropReason::EgressNotReady)
    }
}

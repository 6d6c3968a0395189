//! A byte stream as a port: each Ethernet frame follows its length in 4 bytes, big-endian, as QEMU
//! (`-netdev stream`), passt, socket_vmnet and libkrun have it. Nothing is shared with the peer.
//!
//! The port exists always, its connection comes and goes: control accepts or connects, and gives
//! the port a [`StreamLink`] between two bursts. The worker never waits for the peer. It reads much
//! at a time and delivers the frames from where they were read to. What a full socket does not take
//! is kept, at most a burst, and sent before anything else; until then frames to the peer are
//! dropped. A peer that stalls costs others nothing: its port is then not even tried.
//!
//! There is no virtio-net header on the way, so frames arrive without offloads and leave complete.

pub(crate) mod end;
pub(crate) mod inbox;
mod outbox;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::Segment;

use super::{Sink, Unsent, Watched, Watcher};
use crate::drop_reason::DropReason;
pub use end::StreamEnd;
use inbox::Inbox;
use outbox::Outbox;

/// A connection with the memory that it needs; made and dropped outside the worker.
pub struct StreamLink {
    socket: OwnedFd,
    watched: Option<Watched>,
    /// Absent while its frames are delivered.
    inbox: Option<Box<Inbox>>,
    outbox: Outbox,
    end: Option<StreamEnd>,
    /// Whether a frame ended with the connection.
    has_cut: bool,
}

impl StreamLink {
    /// Makes one of a connected stream socket.
    pub fn new(socket: OwnedFd) -> StreamLink {
        let (inbox, outbox) = (Some(Box::new(Inbox::new())), Outbox::new());
        StreamLink { socket, watched: None, inbox, outbox, end: None, has_cut: false }
    }

    /// Makes the next burst ready: frames that are held, or else what one more read brings. Returns
    /// whether there was anything, if only a part of a frame.
    fn fetch(&mut self) -> bool {
        let Some(inbox) = &mut self.inbox else { return false };
        if inbox.next_burst() > 0 {
            return true;
        }
        let end = match inbox.bad_length() {
            Some(length) => StreamEnd::Length(length),
            None => match rustix::net::recv(&self.socket, inbox.room(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => StreamEnd::Closed,
                Ok((_, len)) => {
                    inbox.filled(len);
                    inbox.next_burst();
                    return true;
                }
                Err(Errno::AGAIN) => return false,
                Err(error) => StreamEnd::Error(error.raw_os_error()),
            },
        };
        self.end = Some(end);
        self.has_cut = inbox.is_within_frame();
        false
    }

    fn put(&mut self, head: &[u8], body: &[Segment<'_>]) -> Result<(), DropReason> {
        let was_full = self.outbox.is_full();
        let put = self.outbox.put(self.socket.as_fd(), head, body);
        self.follow(was_full);
        put
    }

    fn send(&mut self) {
        let was_full = self.outbox.is_full();
        self.outbox.send(self.socket.as_fd());
        self.follow(was_full);
    }

    /// While something waits, the socket wakes the worker once it takes more.
    fn follow(&mut self, was_full: bool) {
        let is_full = self.outbox.is_full();
        if was_full != is_full
            && let Some(watched) = &mut self.watched
        {
            watched.set_writable(is_full);
        }
    }
}

/// The device of a stream port.
#[derive(Default)]
pub struct Stream {
    pub(super) link: Option<StreamLink>,
}

impl Stream {
    /// Makes one without a connection.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Returns whether frames can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.end.is_none() && !link.outbox.is_closed())
    }

    /// Returns why its connection has ended, until it gets another one.
    pub(crate) fn end(&self) -> Option<StreamEnd> {
        self.link.as_ref()?.end
    }

    /// Replaces its connection; returns the one before.
    ///
    /// # Errors
    /// The socket cannot be registered with epoll; the connection before is unchanged.
    pub(crate) fn connect(
        &mut self,
        mut link: StreamLink,
        watcher: &Watcher,
    ) -> io::Result<Option<StreamLink>> {
        link.watched = Some(watcher.watch(link.socket.try_clone()?)?);
        Ok(self.link.replace(link))
    }

    /// Gives its connection up.
    pub(crate) fn disconnect(&mut self) -> Option<StreamLink> {
        self.link.take()
    }

    pub(super) fn watched(&mut self) -> Option<&mut Watched> {
        self.link.as_mut()?.watched.as_mut()
    }

    /// Begins a turn: sends what waits since the socket was full.
    pub(crate) fn resume(&mut self) {
        if let Some(link) = self.link.as_mut().filter(|link| link.outbox.is_full()) {
            link.send();
        }
    }

    /// Takes the next burst, which goes back by [`Stream::release`]; `None` if nothing was sent.
    pub(crate) fn fetch(&mut self) -> Option<Box<Inbox>> {
        let link = self.link.as_mut().filter(|link| link.end.is_none())?;
        if link.fetch() { link.inbox.take() } else { None }
    }

    pub(crate) fn release(&mut self, inbox: Box<Inbox>) {
        if let Some(link) = &mut self.link {
            link.inbox = Some(inbox);
        }
    }

    /// Returns whether a frame ended with the connection; once.
    pub(crate) fn take_cut(&mut self) -> bool {
        self.link.as_mut().is_some_and(|link| std::mem::take(&mut link.has_cut))
    }
}

impl Sink for Stream {
    fn put(
        &mut self,
        _: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        self.link.as_mut().ok_or(DropReason::EgressNotReady)?.put(head, body)
    }

    fn finish(&mut self) -> Unsent {
        if let Some(link) = self.link.as_mut().filter(|link| !link.outbox.is_full()) {
            link.send();
        }
        Unsent::default()
    }
}

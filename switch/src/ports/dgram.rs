//! Datagrams as a port: one Ethernet frame each, over a Unix socket (vfkit, krunkit, QEMU) or UDP
//! (VirtualBox's UDPTunnel, QEMU, GNS3). Nothing is shared with the peer.
//!
//! A burst is received with one system call and sent with one. The switch connects no socket: the
//! peer may come, go and come again, and datagrams of others are seen and counted. Where no peer is
//! set, the one that sent last is it. A socket that was connected before keeps its peer. Frames
//! arrive without offloads and leave complete.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::{MAX_BURST, Segment};

use super::messages::{Address, Messages};
use super::pool::{POOL_BURST, PoolBurst};
use super::{Sink, Unsent, Watched, Watcher};
use crate::counters::PortCounters;
use crate::drop_reason::DropReason;

/// Bytes of frames that wait for the end of a burst. Smaller than a full burst of large frames,
/// which is sent in parts.
const CAPACITY: usize = 256 << 10;
/// The first datagram of vfkit's protocol: no frame, and no answer is expected.
const HELLO: &[u8] = b"VFKT";

/// The other end of a datagram port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DgramPeer {
    /// This one. Datagrams of others are dropped.
    Fixed(Address),
    /// The one that sent last, if there was one.
    Last(Option<Address>),
    /// The one that the socket is connected to, which may have no address.
    Connected,
}

/// What a datagram port has to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DgramReport {
    /// The other end, as far as it is known.
    pub peer: Option<Address>,
    /// The operating system's error of the last datagram that was not sent, by number.
    pub send_error: Option<i32>,
}

/// The device of a datagram port.
pub struct Dgram {
    socket: OwnedFd,
    peer: DgramPeer,
    inbound: Messages,
    outbound: Messages,
    /// The frames that wait, one after the other, and where each ends.
    bytes: Box<[u8]>,
    ends: [usize; MAX_BURST],
    waiting: usize,
    unsent: Unsent,
    send_error: Option<i32>,
    /// Datagrams that were not taken since they were last counted.
    wrong_peer: u64,
    giants: u64,
    /// Whether nothing was left when it was last read.
    is_drained: bool,
    pub(super) watched: Option<Watched>,
}

impl Dgram {
    /// Makes one of a bound datagram socket.
    pub fn new(socket: OwnedFd, peer: DgramPeer) -> Dgram {
        Dgram {
            socket,
            peer,
            inbound: Messages::new(POOL_BURST),
            outbound: Messages::new(MAX_BURST),
            bytes: vec![0; CAPACITY].into_boxed_slice(),
            ends: [0; MAX_BURST],
            waiting: 0,
            unsent: Unsent::default(),
            send_error: None,
            wrong_peer: 0,
            giants: 0,
            is_drained: false,
            watched: None,
        }
    }

    pub(crate) fn watch(&mut self, watcher: &Watcher) -> io::Result<()> {
        self.watched = Some(watcher.watch(self.socket.try_clone()?)?);
        Ok(())
    }

    fn to(&self) -> Option<Address> {
        match self.peer {
            DgramPeer::Fixed(peer) => Some(peer),
            DgramPeer::Last(peer) => peer,
            DgramPeer::Connected => Some(Address::NONE),
        }
    }

    /// Returns whether there is a peer to send to.
    pub(crate) fn is_ready(&self) -> bool {
        self.to().is_some()
    }

    pub(crate) fn report(&self) -> DgramReport {
        DgramReport { peer: self.to(), send_error: self.send_error }
    }

    /// Fills `burst`, which is empty, with frames. Out of line, so that it costs the turns of TAPs
    /// nothing.
    #[inline(never)]
    pub(crate) fn fetch(&mut self, burst: &mut PoolBurst) {
        let received = self.inbound.receive(self.socket.as_fd(), burst.rooms());
        // Mostly EAGAIN.
        let count = received.unwrap_or(0);
        self.is_drained = count < POOL_BURST;
        for i in 0..count {
            let received = self.inbound.received(i);
            if self.is_taken(burst.room(i), &received.from, received.len, received.is_cut) {
                burst.commit_room(i, received.len);
            }
        }
    }

    /// Returns whether a new datagram is needed for the socket to wake the worker: what waits may
    /// be behind datagrams that were not taken.
    pub(crate) fn arm(&self) -> bool {
        self.is_drained
    }

    /// Returns whether a datagram is a frame of the peer's; counts it if not.
    fn is_taken(&mut self, room: &[u8], from: &Address, len: usize, is_cut: bool) -> bool {
        match &mut self.peer {
            DgramPeer::Fixed(peer) if peer != from => {
                self.wrong_peer += 1;
                return false;
            }
            // One without an address cannot be answered.
            DgramPeer::Last(last) if from.is_named() && last.as_ref() != Some(from) => {
                *last = Some(*from);
            }
            _ => {}
        }
        self.giants += u64::from(is_cut);
        !is_cut && room[..len] != *HELLO
    }

    /// Counts what was received and is no frame of the peer's.
    pub(crate) fn count_refused(&mut self, counters: &PortCounters) {
        if self.wrong_peer != 0 {
            counters.drop(DropReason::WrongPeer, std::mem::take(&mut self.wrong_peer));
        }
        if self.giants != 0 {
            counters.drop(DropReason::Giant, std::mem::take(&mut self.giants));
        }
    }

    fn end(&self) -> usize {
        self.waiting.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// Sends the frames that wait. Each iteration sends some or gives some up.
    fn send(&mut self) {
        let mut done = 0;
        while done < self.waiting {
            let (bytes, ends) = (&self.bytes, &self.ends);
            let start = |i: usize| if i == 0 { 0 } else { ends[i - 1] };
            let frames = (done..self.waiting).map(|i| &bytes[start(i)..ends[i]]);
            let Some(to) = self.to() else { break };
            let error = match self.outbound.send(self.socket.as_fd(), &to, frames) {
                Ok(sent) => {
                    done += sent;
                    continue;
                }
                Err(error) => error.raw_os_error().unwrap_or_default(),
            };
            self.send_error = Some(error);
            let rest = self.waiting - done;
            let (reason, given_up) = match error {
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => (DropReason::EgressFull, rest),
                libc::ECONNREFUSED | libc::ENOENT | libc::ENOTCONN => {
                    (DropReason::EgressNotReady, rest)
                }
                libc::EMSGSIZE => (DropReason::EgressTooLarge, 1),
                _ => (DropReason::DeviceError, rest),
            };
            for i in done..done + given_up {
                let start = if i == 0 { 0 } else { self.ends[i - 1] };
                self.unsent.add(reason, self.ends[i] - start, false);
            }
            done += given_up;
        }
        self.waiting = 0;
    }
}

impl Sink for Dgram {
    fn put(
        &mut self,
        _: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
        if self.waiting == MAX_BURST || self.bytes.len() - self.end() < len {
            self.send();
        }
        let start = self.end();
        let room = &mut self.bytes[start..];
        room[..head.len()].copy_from_slice(head);
        let mut filled = head.len();
        for segment in body {
            filled += segment.copy_to(&mut room[filled..]);
        }
        self.ends[self.waiting] = start + filled;
        self.waiting += 1;
        Ok(())
    }

    fn finish(&mut self) -> Unsent {
        self.send();
        std::mem::take(&mut self.unsent)
    }
}

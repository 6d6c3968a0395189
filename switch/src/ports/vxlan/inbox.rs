//! Datagrams that were received, until their frames are switched.

use std::net::{IpAddr, Ipv4Addr};

use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_frame::vxlan::{self, Vni};
use trama_virtqueue::{MAX_BURST, RingError, Segment};

use super::toward::Toward;
use crate::forward::Source;

/// Messages that are received with one call.
pub(super) const MESSAGES: usize = 16;
/// Room for a message: the longest datagram, or many that the kernel has merged.
pub(super) const ROOM: usize = 64 << 10;
/// Most datagrams that are held. The kernel merges at most 64 into a message, or passes on at most
/// 128 that were sent as one.
const MOST_PIECES: usize = MESSAGES * 128;

/// A datagram.
#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    len: u32,
    from: IpAddr,
    /// Whether it is not whole.
    is_cut: bool,
}

/// Datagrams one after the other. As a [`Source`], the frames of those that go to one port next.
pub(crate) struct Inbox {
    pub(super) bytes: Box<[u8]>,
    pieces: Vec<Piece>,
    /// How many were passed on.
    done: usize,
    /// The next ones.
    next: usize,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        let bytes = vec![0; MESSAGES * ROOM].into_boxed_slice();
        Inbox { bytes, pieces: Vec::with_capacity(MOST_PIECES), done: 0, next: 0 }
    }

    /// Makes one without room to receive into.
    pub(super) fn empty() -> Inbox {
        Inbox { bytes: Box::default(), pieces: Vec::with_capacity(MAX_BURST), done: 0, next: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        (self.done, self.next) = (0, 0);
    }

    /// Returns whether all datagrams were passed on.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.pieces.len()
    }

    /// Adds the datagrams of a message of `len` bytes at `start`, each of `segment` bytes but the
    /// last. Those without room are left out; the kernel does not merge so many.
    pub(super) fn add(
        &mut self,
        start: usize,
        len: usize,
        segment: usize,
        from: IpAddr,
        is_cut: bool,
    ) {
        let segment = segment.max(1);
        let count = len.div_ceil(segment).max(1);
        for i in 0..count.min(MOST_PIECES - self.pieces.len()) {
            let at = i * segment;
            self.pieces.push(Piece {
                start: (start + at) as u32,
                len: segment.min(len - at) as u32,
                from,
                // What is missing was at the end.
                is_cut: is_cut && i + 1 == count,
            });
        }
    }

    fn datagram(&self, piece: &Piece) -> &[u8] {
        &self.bytes[piece.start as usize..][..piece.len as usize]
    }

    /// Selects the next datagrams for one port, at most a burst. `find` returns where a datagram
    /// goes by its VNI and outer source address. Those for which there is no port are passed over.
    pub(crate) fn select(
        &mut self,
        find: impl Fn(Option<Vni>, IpAddr) -> Option<Toward>,
    ) -> Option<Toward> {
        let (mut toward, mut last) = (None, None);
        self.next = 0;
        while self.next < MAX_BURST
            && let Some(piece) = self.pieces.get(self.done + self.next)
        {
            let vni = vxlan::parse(self.datagram(piece)).ok().filter(|_| !piece.is_cut);
            let end = Some((vni, piece.from));
            // Mostly it is the end of the one before.
            let found = if end == last { toward } else { find(vni, piece.from) };
            match (found, toward) {
                (None, None) => self.done += 1,
                (_, None) => {
                    (toward, last) = (found, end);
                    self.next = 1;
                }
                _ if found == toward => self.next += 1,
                _ => break,
            }
        }
        toward
    }

    /// Passes over the selected ones.
    pub(crate) fn advance(&mut self) {
        self.done += self.next;
        self.next = 0;
    }

    fn selected(&self) -> &[Piece] {
        &self.pieces[self.done..self.done + self.next]
    }

    /// Copies the selected datagrams.
    pub(super) fn copy(&self) -> Inbox {
        let mut copy = Inbox::empty();
        let mut bytes = Vec::with_capacity(self.selected().iter().map(|it| it.len as usize).sum());
        for piece in self.selected() {
            copy.pieces.push(Piece { start: bytes.len() as u32, ..*piece });
            bytes.extend_from_slice(self.datagram(piece));
        }
        copy.bytes = bytes.into();
        copy
    }

    fn frame(&self, i: usize) -> &[u8] {
        &self.datagram(&self.selected()[i])[vxlan::LEN..]
    }
}

/// Only of datagrams that are not refused: they have a header.
impl Source for Inbox {
    fn len(&self) -> usize {
        self.next
    }

    fn header(&self, _: usize) -> [u8; HEADER] {
        [0; HEADER]
    }

    fn head(&self, i: usize) -> &[u8] {
        let frame = self.frame(i);
        &frame[..frame.len().min(PRIVATE_HEAD)]
    }

    fn frame_len(&self, i: usize) -> usize {
        self.frame(i).len()
    }

    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R {
        let frame = self.frame(i);
        let (head, rest) = frame.split_at(frame.len().min(PRIVATE_HEAD));
        f(head, &[Segment::from(rest)][usize::from(rest.is_empty())..])
    }

    fn error(&self, _: usize) -> Option<RingError> {
        None
    }
}

/// The address of a sender that has none; it has no tunnel.
pub(super) const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

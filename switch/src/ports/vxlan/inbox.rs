//! Datagrams that were received, until their frames are switched.

use std::net::{IpAddr, Ipv4Addr};

use trama_frame::gro::Merge;
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

/// Most datagrams of which a frame is made.
const MOST_MERGED: usize = 64;

/// A frame, of one datagram or of several.
#[derive(Clone, Copy)]
struct Frame {
    /// The place of the first datagram among all.
    first: u32,
    count: u16,
    /// Where the payload begins in each but the first.
    payload: u16,
    len: u32,
    header: [u8; HEADER],
}

/// Datagrams one after the other. As a [`Source`], the frames of those that go to one port next.
pub(crate) struct Inbox {
    pub(super) bytes: Box<[u8]>,
    pieces: Vec<Piece>,
    /// How many were passed on.
    done: usize,
    /// The next ones.
    next: usize,
    /// The frames of the next ones, at most a burst.
    frames: Vec<Frame>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        let bytes = vec![0; MESSAGES * ROOM].into_boxed_slice();
        Inbox { bytes, ..Inbox::with_room_for(MOST_PIECES) }
    }

    /// Makes one without room to receive into.
    pub(super) fn empty() -> Inbox {
        Inbox::with_room_for(0)
    }

    fn with_room_for(pieces: usize) -> Inbox {
        let (pieces, frames) = (Vec::with_capacity(pieces), Vec::with_capacity(MAX_BURST));
        Inbox { bytes: Box::default(), pieces, done: 0, next: 0, frames }
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

    /// Selects the next datagrams for one port. `find` returns where a datagram goes by its VNI and
    /// outer source address. Those for which there is no port are passed over.
    pub(crate) fn select(
        &mut self,
        find: impl Fn(Option<Vni>, IpAddr) -> Option<Toward>,
    ) -> Option<Toward> {
        let (mut toward, mut last) = (None, None);
        self.next = 0;
        while let Some(piece) = self.pieces.get(self.done + self.next) {
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

    /// Returns how many datagrams are selected.
    pub(crate) fn selected_len(&self) -> usize {
        self.next
    }

    /// Makes frames of the selected datagrams, at most a burst; further ones are not selected then.
    /// TCP segments that follow each other become a large frame.
    pub(crate) fn merge(&mut self) {
        self.frames.clear();
        let mut used = 0;
        while self.frames.len() < MAX_BURST && used < self.next {
            let first = self.done + used;
            let len = self.inner(first).len() as u32;
            let mut frame =
                Frame { first: first as u32, count: 1, payload: 0, len, header: [0; HEADER] };
            if used + 1 < self.next {
                self.extend(&mut frame, (self.next - used).min(MOST_MERGED));
            }
            used += usize::from(frame.count);
            self.frames.push(frame);
        }
        self.next = used;
    }

    /// Joins the datagrams that follow to a frame, up to `most`.
    fn extend(&mut self, frame: &mut Frame, most: usize) {
        let place = frame.first as usize;
        let first = self.inner(place);
        let Some(mut merge) = Merge::begin(first) else { return };
        let mut rest = place + 1..place + most;
        while rest.next().is_some_and(|next| merge.join(first, self.inner(next))) {}
        if merge.count() == 1 {
            return;
        }
        // None exceeds what an IP packet can be.
        frame.count = merge.count() as u16;
        (frame.payload, frame.len) = (merge.payload_start() as u16, merge.frame_len() as u32);
        let Piece { start, len, .. } = self.pieces[place];
        let first = &mut self.bytes[start as usize..][vxlan::LEN..len as usize];
        frame.header = merge.finish(first).to_bytes();
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

    /// Returns the frame in a datagram.
    fn inner(&self, place: usize) -> &[u8] {
        &self.datagram(&self.pieces[place])[vxlan::LEN..]
    }
}

/// Only of datagrams that are not refused: they have a header. Its frames are those that
/// [`Inbox::merge`] has made.
impl Source for Inbox {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn header(&self, i: usize) -> [u8; HEADER] {
        self.frames[i].header
    }

    fn head(&self, i: usize) -> &[u8] {
        let frame = self.inner(self.frames[i].first as usize);
        &frame[..frame.len().min(PRIVATE_HEAD)]
    }

    fn frame_len(&self, i: usize) -> usize {
        self.frames[i].len as usize
    }

    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R {
        let Frame { first, count, payload, .. } = self.frames[i];
        let (first, count, payload) = (first as usize, usize::from(count), usize::from(payload));
        let frame = self.inner(first);
        let (head, rest) = frame.split_at(frame.len().min(PRIVATE_HEAD));
        if count == 1 {
            return f(head, &[Segment::from(rest)][usize::from(rest.is_empty())..]);
        }
        let mut body = [Segment::from(rest); MOST_MERGED];
        for (i, segment) in body.iter_mut().enumerate().take(count).skip(1) {
            *segment = Segment::from(&self.inner(first + i)[payload..]);
        }
        f(head, &body[usize::from(rest.is_empty())..count])
    }

    fn error(&self, _: usize) -> Option<RingError> {
        None
    }
}

/// The address of a sender that has none; it has no tunnel.
pub(super) const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

//! Frames into a byte stream: a burst is gathered and sent with one system call. What the socket
//! does not take stays, and is sent before anything else.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;
use trama_virtqueue::Segment;

use super::end::{LENGTH, MAX_LENGTH};
use crate::drop_reason::DropReason;

/// Bytes that wait at most. Smaller than a full burst of large frames, which is sent in parts.
const CAPACITY: usize = 256 << 10;

/// What was put and the socket has not taken yet.
pub(super) struct Outbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    state: State,
}

/// Whether the socket takes more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// It was full. Nothing is added before what waits is sent.
    Full,
    /// The peer takes nothing more.
    Closed,
}

impl Outbox {
    /// Makes an empty one. Its memory is only populated as far as bytes use it.
    pub(super) fn new() -> Outbox {
        let bytes = vec![0; CAPACITY].into_boxed_slice();
        Outbox { bytes, start: 0, end: 0, state: State::Open }
    }

    /// Returns whether the socket was full and something waits for it.
    pub(super) fn is_full(&self) -> bool {
        self.state == State::Full
    }

    /// Returns whether the peer takes nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Adds a frame; sends the waiting ones first if there is no room.
    ///
    /// # Errors
    /// The socket is full, or the frame is longer than any.
    pub(super) fn put(
        &mut self,
        socket: BorrowedFd<'_>,
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let length = head.len() + body.iter().map(Segment::len).sum::<usize>();
        if length > MAX_LENGTH {
            return Err(DropReason::EgressTooLarge);
        }
        if self.state == State::Open && self.bytes.len() - self.end < LENGTH + length {
            self.send(socket);
        }
        match self.state {
            // The peer counts as not connected.
            State::Closed => return Err(DropReason::EgressNotReady),
            State::Full => return Err(DropReason::EgressFull),
            State::Open => {}
        }
        let (prefix, room) = self.bytes[self.end..].split_at_mut(LENGTH);
        prefix.copy_from_slice(&(length as u32).to_be_bytes());
        room[..head.len()].copy_from_slice(head);
        let mut filled = head.len();
        for segment in body {
            filled += segment.copy_to(&mut room[filled..]);
        }
        self.end += LENGTH + filled;
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) {
        if self.start == self.end {
            return;
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.state = match rustix::net::send(socket, &self.bytes[self.start..self.end], flags) {
            Ok(sent) if sent == self.end - self.start => State::Open,
            Ok(sent) => {
                self.start += sent;
                State::Full
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => State::Full,
            // What the peer has sent before it ended is still read, and that it has ended with it.
            Err(_) => State::Closed,
        };
        if self.state != State::Full {
            (self.start, self.end) = (0, 0);
        }
    }
}

//! Frames out of a byte stream: bytes as they were read, and where in them the frames of a burst
//! are.

use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_virtqueue::{MAX_BURST, RingError, Segment};

use super::end::{LENGTH, MAX_LENGTH, MIN_LENGTH};
use crate::forward::Source;

/// Bytes that are held at a time. The largest frame fits behind the rest of another one.
const CAPACITY: usize = 128 << 10;

const _: () = assert!(CAPACITY >= LENGTH + MAX_LENGTH);

/// What was read of a stream and not delivered yet.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    /// Where the bytes are that belong to no burst yet.
    start: usize,
    end: usize,
    /// Where the frames of the burst begin, and how long they are.
    frames: [(u32, u32); MAX_BURST],
    len: usize,
    /// A length that no frame has; nothing behind it can be understood.
    bad_length: Option<u32>,
}

impl Inbox {
    /// Makes an empty one. Its memory is only populated as far as bytes use it.
    pub(super) fn new() -> Inbox {
        Inbox {
            bytes: vec![0; CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
            frames: [(0, 0); MAX_BURST],
            len: 0,
            bad_length: None,
        }
    }

    /// Returns the room for more of the stream; never empty while no whole frame is held.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.bytes[self.end..]
    }

    /// Takes `len` bytes that were read into [`Inbox::room`].
    pub(super) fn filled(&mut self, len: usize) {
        self.end += len;
    }

    /// Returns whether the bytes held end within a frame.
    pub(super) fn is_within_frame(&self) -> bool {
        self.start != self.end
    }

    /// Returns the length that ended the stream, if one has.
    pub(super) fn bad_length(&self) -> Option<u32> {
        self.bad_length
    }

    /// Makes the whole frames that are held the burst, up to [`MAX_BURST`]; returns how many.
    pub(super) fn next_burst(&mut self) -> usize {
        self.len = 0;
        while self.len < MAX_BURST {
            let held = &self.bytes[self.start..self.end];
            let Some((length, rest)) = held.split_first_chunk::<LENGTH>() else { break };
            let length = u32::from_be_bytes(*length);
            if !(MIN_LENGTH as u32..=MAX_LENGTH as u32).contains(&length) {
                self.bad_length = Some(length);
                break;
            }
            if rest.len() < length as usize {
                break;
            }
            let frame = self.start + LENGTH;
            self.frames[self.len] = (frame as u32, length);
            self.len += 1;
            self.start = frame + length as usize;
        }
        self.len
    }

    fn frame(&self, i: usize) -> &[u8] {
        let (start, length) = self.frames[i];
        &self.bytes[start as usize..][..length as usize]
    }
}

impl Source for Inbox {
    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn header(&self, _: usize) -> [u8; HEADER] {
        [0; HEADER]
    }

    #[inline]
    fn head(&self, i: usize) -> &[u8] {
        let frame = self.frame(i);
        &frame[..frame.len().min(PRIVATE_HEAD)]
    }

    #[inline]
    fn frame_len(&self, i: usize) -> usize {
        self.frames[i].1 as usize
    }

    #[inline]
    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R {
        let frame = self.frame(i);
        let (head, rest) = frame.split_at(frame.len().min(PRIVATE_HEAD));
        f(head, &[Segment::from(rest)][usize::from(rest.is_empty())..])
    }

    fn error(&self, _: usize) -> Option<RingError> {
        None
    }
}

#[cfg(test)]
mod tests;

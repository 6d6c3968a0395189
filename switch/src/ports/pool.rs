//! A burst in private buffers, for devices that do not share memory.

use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_virtqueue::{RingError, Segment};

use crate::forward::{MAX_FRAME, Source};

/// Room for a virtio-net header and the largest frame. A multiple of a cache line but not of a
/// page, so that the beginnings of the buffers do not share one cache set.
const STRIDE: usize = (HEADER + MAX_FRAME).next_multiple_of(4096) + 64;

/// Frames per burst of a device that is read frame by frame: a burst of 64 KiB frames then fits
/// into a level-2 cache.
pub(crate) const POOL_BURST: usize = 16;

/// Up to [`POOL_BURST`] frames, each in its own buffer.
pub(crate) struct PoolBurst {
    bytes: Box<[u8]>,
    /// Bytes of each frame, without the header.
    lens: [u32; POOL_BURST],
    len: usize,
}

impl PoolBurst {
    /// Makes an empty burst. Its memory is only populated as far as frames use it.
    pub(crate) fn new() -> PoolBurst {
        PoolBurst {
            bytes: vec![0; STRIDE * POOL_BURST].into_boxed_slice(),
            lens: [0; POOL_BURST],
            len: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == POOL_BURST
    }

    /// Returns the next free buffer: header, then frame.
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        let start = self.len * STRIDE;
        &mut self.bytes[start..start + HEADER + MAX_FRAME]
    }

    /// Appends the frame of `frame_len` bytes that was written into [`PoolBurst::buffer`].
    pub(crate) fn commit(&mut self, frame_len: usize) {
        debug_assert!(frame_len <= MAX_FRAME);
        self.lens[self.len] = frame_len as u32;
        self.len += 1;
    }

    /// Returns all buffers of an empty burst, for a device that fills many with one call; each
    /// without the room for a header.
    pub(crate) fn rooms(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let buffers = self.bytes.chunks_exact_mut(STRIDE);
        buffers.map(|buffer| &mut buffer[HEADER..HEADER + MAX_FRAME])
    }

    /// Returns one of [`PoolBurst::rooms`].
    pub(crate) fn room(&self, i: usize) -> &[u8] {
        &self.bytes[i * STRIDE + HEADER..][..MAX_FRAME]
    }

    /// Appends the frame that was written into room `i`, from where earlier ones were appended or
    /// left out. It has a plain header.
    pub(crate) fn commit_room(&mut self, i: usize, frame_len: usize) {
        let (from, to) = (i * STRIDE + HEADER, self.len * STRIDE + HEADER);
        if from != to {
            self.bytes.copy_within(from..from + frame_len, to);
        }
        self.bytes[to - HEADER..to].fill(0);
        self.commit(frame_len);
    }

    fn frame(&self, i: usize) -> &[u8] {
        let start = i * STRIDE + HEADER;
        &self.bytes[start..start + self.lens[i] as usize]
    }
}

impl Source for PoolBurst {
    fn len(&self) -> usize {
        self.len
    }

    fn header(&self, i: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header.copy_from_slice(&self.bytes[i * STRIDE..i * STRIDE + HEADER]);
        header
    }

    fn head(&self, i: usize) -> &[u8] {
        let frame = self.frame(i);
        &frame[..frame.len().min(PRIVATE_HEAD)]
    }

    fn frame_len(&self, i: usize) -> usize {
        self.lens[i] as usize
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

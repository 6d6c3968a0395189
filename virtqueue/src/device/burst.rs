//! The frames of one burst: private copies of the bytes that decide, segments of the rest.
//!
//! Header and head are copied once, at fetch. Every decision uses the copy and the copy is
//! delivered, so a guest that rewrites its buffers meanwhile changes only its payload.

use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::copy::{copy, copy_small, prefetch};
use crate::error::RingError;
use crate::memory::GuestMemory;
use crate::ring::{HEADER_LEN, MAX_BURST};
use crate::segment::Segment;

/// Private bytes of a frame with a plain header: enough for MAC addresses, tags and EtherType.
const PLAIN_HEAD: usize = 64;
/// Private bytes of a frame with offloads: enough for all of its headers.
const OFFLOAD_HEAD: usize = 128;

/// Most segments of one burst, besides one for each frame: 64 frames of 64 KiB in 1 KiB buffers.
pub(super) const MAX_SEGMENTS: usize = 4096;

#[repr(C, align(64))]
struct Frame {
    head: [u8; OFFLOAD_HEAD],
    header: [u8; HEADER_LEN],
    /// Bytes of the frame without the virtio-net header.
    len: u32,
    head_len: u16,
    /// The chain's head descriptor.
    id: u16,
    /// The body, as a range of the burst's segments.
    first: u16,
    last: u16,
    /// Source of the fast path's copy: the header, then the frame.
    header_at: *const u8,
    frame_at: *const u8,
    error: Option<RingError>,
}

impl Frame {
    const EMPTY: Frame = Frame {
        head: [0; OFFLOAD_HEAD],
        header: [0; HEADER_LEN],
        len: 0,
        head_len: 0,
        id: 0,
        first: 0,
        last: 0,
        header_at: std::ptr::null(),
        frame_at: std::ptr::null(),
        error: None,
    };

    /// Returns how many of the frame's bytes are copied.
    #[inline(always)]
    fn head_limit(&self) -> usize {
        // The first two bytes are flags and GSO type; a plain header has neither.
        if self.header[0] | self.header[1] == 0 { PLAIN_HEAD } else { OFFLOAD_HEAD }
    }
}

/// Frames fetched from a transmit ring by [`crate::TxQueue::fetch`]. Keeps the guest's memory
/// mapped; allocates only when created.
pub struct TxBurst {
    memory: Option<Arc<GuestMemory>>,
    len: usize,
    frames: Box<[Frame]>,
    /// Valid as long as `memory` is held, despite the nominal lifetime; lent out only for the
    /// lifetime of a borrow of the burst.
    segments: Vec<Segment<'static>>,
}

// SAFETY: the pointers are into memory that `memory` keeps mapped, and are only copied from.
unsafe impl Send for TxBurst {}

impl Default for TxBurst {
    fn default() -> Self {
        Self::new()
    }
}

impl TxBurst {
    /// Most bytes of a [`head`](Self::head).
    pub const MAX_HEAD: usize = OFFLOAD_HEAD;

    /// Makes an empty burst with room for [`MAX_BURST`] frames.
    pub fn new() -> TxBurst {
        TxBurst {
            memory: None,
            len: 0,
            frames: (0..MAX_BURST).map(|_| Frame::EMPTY).collect(),
            segments: Vec::with_capacity(MAX_SEGMENTS + MAX_BURST),
        }
    }

    /// Returns the number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the burst is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes the frames and releases the guest's memory.
    pub fn clear(&mut self) {
        self.len = 0;
        self.segments.clear();
        self.memory = None;
    }

    /// Returns a private copy of the frame's virtio-net header, filled up with zeros if it is
    /// short.
    #[inline]
    pub fn header(&self, i: usize) -> &[u8; HEADER_LEN] {
        &self.frames[..self.len][i].header
    }

    /// Returns a private copy of the frame's first bytes: 64, or 128 if the header is not plain
    /// (flags or GSO type set), or the whole frame if it is shorter.
    #[inline]
    pub fn head(&self, i: usize) -> &[u8] {
        let frame = &self.frames[..self.len][i];
        &frame.head[..usize::from(frame.head_len)]
    }

    /// Returns the length of the frame without the virtio-net header. The ring bounds it by 32 bits
    /// only: check it against the largest frame size before copying the body.
    #[inline]
    pub fn frame_len(&self, i: usize) -> usize {
        self.frames[..self.len][i].len as usize
    }

    /// Returns the frame after its head, still in the guest's memory.
    #[inline]
    pub fn body(&self, i: usize) -> &[Segment<'_>] {
        let frame = &self.frames[..self.len][i];
        &self.segments[usize::from(frame.first)..usize::from(frame.last)]
    }

    /// Returns the chain's error; such an entry has no bytes and is completed like the others.
    #[inline]
    pub fn error(&self, i: usize) -> Option<RingError> {
        self.frames[..self.len][i].error
    }

    /// Returns the chain's head descriptor.
    #[inline(always)]
    pub(super) fn id(&self, i: usize) -> u16 {
        self.frames[..self.len][i].id
    }

    /// Empties the burst to take frames in `memory`.
    #[inline]
    pub(super) fn begin(&mut self, memory: &Arc<GuestMemory>) {
        self.len = 0;
        self.segments.clear();
        if !self.memory.as_ref().is_some_and(|held| Arc::ptr_eq(held, memory)) {
            self.memory = Some(memory.clone());
        }
    }

    /// Enters a chain whose header and frame each lie in one piece; `gather` copies them.
    #[inline(always)]
    pub(super) fn push(&mut self, id: u16, header: *const u8, frame: *const u8, len: u32) {
        prefetch(header);
        prefetch(frame.wrapping_add(PLAIN_HEAD - 1));
        let entry = &mut self.frames[self.len];
        entry.id = id;
        entry.len = len;
        entry.header_at = header;
        entry.frame_at = frame;
        self.len += 1;
    }

    /// Enters a chain that is completed without being read.
    #[cold]
    pub(super) fn push_error(&mut self, id: u16, error: RingError) {
        self.push_done(id);
        self.frames[self.len - 1].error = Some(error);
    }

    fn push_done(&mut self, id: u16) {
        let entry = &mut self.frames[self.len];
        entry.id = id;
        entry.header = [0; HEADER_LEN];
        (entry.len, entry.head_len, entry.first, entry.last) = (0, 0, 0, 0);
        entry.header_at = std::ptr::null();
        entry.error = None;
        self.len += 1;
    }

    /// Returns the number of segments, to be passed to `drop_segments`.
    pub(super) fn segments_len(&self) -> usize {
        self.segments.len()
    }

    /// Removes the segments of a chain that could not be entered.
    pub(super) fn drop_segments(&mut self, len: usize) {
        self.segments.truncate(len);
    }

    /// Adds one segment of a chain; `false` if there is no room. One place for each frame of the
    /// fast path stays free.
    ///
    /// # Safety
    /// `len` bytes at `ptr` are in the memory given to `begin`.
    pub(super) unsafe fn push_segment(&mut self, ptr: *const u8, len: usize) -> bool {
        let room = self.segments.len() < MAX_SEGMENTS;
        if room {
            // SAFETY: the burst holds the memory for as long as it holds the segment.
            self.segments.push(unsafe { Segment::new(ptr, len) });
        }
        room
    }

    /// Enters a chain whose bytes are the segments from `first` on. Copies the header, of at most
    /// [`HEADER_LEN`] bytes, and the head; the rest becomes the body.
    pub(super) fn push_segments(
        &mut self,
        id: u16,
        first: usize,
        header_len: usize,
    ) -> Result<(), RingError> {
        // spec: virtio any-framing
        let total: usize = self.segments[first..].iter().map(Segment::len).sum();
        let len = total.checked_sub(header_len).ok_or(RingError::HeaderTooShort)?;
        self.push_done(id);
        let entry = &mut self.frames[self.len - 1];
        let after = take(&mut self.segments, first, &mut entry.header[..header_len]);
        let head_len = entry.head_limit().min(len);
        let after = take(&mut self.segments, after, &mut entry.head[..head_len]);
        entry.len = len as u32;
        entry.head_len = head_len as u16;
        entry.first = after as u16;
        entry.last = self.segments.len() as u16;
        Ok(())
    }

    /// Copies header and head of the frames entered by `push`, whose lines were prefetched.
    #[inline(always)]
    pub(super) fn gather(&mut self) {
        for entry in &mut self.frames[..self.len] {
            if entry.header_at.is_null() {
                continue;
            }
            let len = entry.len as usize;
            // SAFETY: push was given 12 readable bytes at header_at and len at frame_at; the
            // private side has room for 12 and for 128 bytes. The burst holds the memory for as
            // long as it holds the segment.
            unsafe {
                let low = entry.header_at.cast::<u64>().read_unaligned();
                let high = entry.header_at.add(8).cast::<u32>().read_unaligned();
                // The header decides the length and must not be read again for it. (A volatile read
                // of 12 bytes at any address would be one of each byte.)
                compiler_fence(Ordering::SeqCst);
                entry.header[..8].copy_from_slice(&low.to_ne_bytes());
                entry.header[8..].copy_from_slice(&high.to_ne_bytes());
                let head_len = len.min(entry.head_limit());
                if head_len <= PLAIN_HEAD {
                    copy_small(entry.frame_at, entry.head.as_mut_ptr(), head_len);
                } else {
                    copy(entry.frame_at, entry.head.as_mut_ptr(), head_len);
                }
                entry.head_len = head_len as u16;
                entry.error = None;
                entry.first = self.segments.len() as u16;
                if len > head_len {
                    let body = Segment::new(entry.frame_at.add(head_len), len - head_len);
                    self.segments.push(body);
                }
                entry.last = self.segments.len() as u16;
            }
        }
        // From here on only the copies count; the compiler may not read the originals again.
        compiler_fence(Ordering::SeqCst);
    }
}

/// Fills `to` from the segments at `first` on, and returns where the rest begins.
fn take(segments: &mut [Segment<'static>], mut first: usize, to: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < to.len() {
        let n = segments[first].copy_to(&mut to[filled..]);
        filled += n;
        segments[first] = segments[first].skip(n);
        if segments[first].is_empty() {
            first += 1;
        }
    }
    first
}

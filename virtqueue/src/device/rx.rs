//! Puts frames on a ring on which the driver receives.

use std::sync::Arc;

use super::chain::{Direction, More};
use super::head::Head;
use super::{DeviceRing, Unlogged, Writes};
use crate::copy::{copy, copy_header, header_words, prefetch, prefetch_write};
use crate::error::{PushError, RingError};
use crate::memory::GuestMemory;
use crate::ring::{DESC_NEXT, DESC_WRITE, HEADER_LEN, Index, MAX_BURST, RingSetup};
use crate::segment::Segment;

/// Most ranges that one frame is spread over: 64 KiB in 64-byte buffers.
const MAX_RANGES: usize = 1024;

const HEADER: u32 = HEADER_LEN as u32;
/// Buffers made ready at a time if `expect` was not called.
const READY: u16 = 8;

/// Device side of a receive ring: the device writes. It never wants kicks.
///
/// [`expect`](Self::expect), any number of [`push`](Self::push), then one
/// [`publish`](Self::publish).
///
/// Buffers are made ready ahead of their frames: descriptors are read and checked, and the lines to
/// be written are prefetched. The driver's core had these lines last. Where that core is far, each
/// line takes as long as several frames, so the transfers must overlap.
///
/// `W` is what becomes of its writes: frames, and the used ring.
pub struct RxQueue<W = Unlogged> {
    ring: DeviceRing<W>,
    /// Flags of a descriptor that takes a frame directly, apart from DESC_NEXT. With short headers
    /// no descriptor has them: all frames then take the general path, and the direct path is
    /// compiled for the long header, at no cost.
    direct: u32,
    /// The buffers from the next one to this available index are in `ready`.
    ready_to: Index,
    /// By available index, modulo the array's length.
    ready: [Ready; MAX_BURST],
    /// Destination of the current frame if it takes more than one descriptor.
    ranges: Vec<(*mut u8, usize)>,
}

/// A chain that was read and checked, with the places for a header and for a frame in one piece.
#[derive(Clone, Copy)]
struct Ready {
    header_at: *mut u8,
    frame_at: *mut u8,
    /// Writable bytes there.
    room: u32,
    id: u32,
}

impl Ready {
    const NONE: Ready =
        Ready { header_at: std::ptr::null_mut(), frame_at: std::ptr::null_mut(), room: 0, id: 0 };
}

// SAFETY: the pointers are into memory that the ring keeps mapped.
unsafe impl<W: Send> Send for RxQueue<W> {}

impl RxQueue {
    /// Makes a queue over the ring that logs nothing, with kicks disarmed.
    ///
    /// # Errors
    /// The ring cannot be used as set up: its size, an address, or its alignment.
    pub fn new(setup: RingSetup) -> Result<RxQueue, RingError> {
        Self::of(setup)
    }
}

impl<W: Writes> RxQueue<W> {
    /// Makes a queue over the ring, as [`RxQueue::new`] does; [`crate::Logged`] needs a log.
    ///
    /// # Errors
    /// As for [`RxQueue::new`]; or the log is too small.
    pub fn of(setup: RingSetup) -> Result<RxQueue<W>, RingError> {
        let mut ring = DeviceRing::new(setup)?;
        ring.disarm();
        let long = ring.setup.features.header_len() == HEADER_LEN;
        let direct = if long { u32::from(DESC_WRITE) } else { u32::MAX };
        let ranges = Vec::with_capacity(MAX_RANGES);
        let ready_to = ring.next;
        Ok(RxQueue { ring, direct, ready_to, ready: [Ready::NONE; MAX_BURST], ranges })
    }

    /// Makes buffers ready for up to this many frames to be pushed, at most [`MAX_BURST`]. Without
    /// it the frames take the same path but wait longer for their lines.
    #[inline]
    pub fn expect(&mut self, frames: usize) {
        let wanted = frames.min(MAX_BURST) as u16;
        if self.ring.waiting() < wanted && self.ring.refresh_avail().is_err() {
            // The next push returns the error.
            self.ready_to = self.ring.next;
            return;
        }
        self.ring.prefetch_used(wanted);
        self.make_ready(wanted.min(self.ring.waiting()));
    }

    /// Makes the next `count` waiting buffers ready, up to one of another form.
    #[inline(always)]
    fn make_ready(&mut self, count: u16) {
        let (raw, direct, mut window) = (self.ring.raw, self.direct, self.ring.window);
        let mut index = self.ready_to;
        for _ in index.since(self.ring.next)..count {
            let id = raw.read_head(index.get());
            if id >= raw.size() {
                break;
            }
            let desc = raw.read_desc(id);
            let slot = &mut self.ready[usize::from(index.get()) % MAX_BURST];
            // spec: virtio readable-not-written
            if u32::from(desc.flags) == direct
                && desc.len >= HEADER
                && let Some(at) = window.range(desc.addr, desc.len)
            {
                slot.header_at = at;
                slot.frame_at = at.wrapping_add(HEADER_LEN);
                slot.room = desc.len - HEADER;
                slot.id = u32::from(id);
            } else if let Some(ready) = self.ring.read_header_split(id, direct) {
                *slot = ready;
                window = self.ring.window;
            } else {
                break;
            }
            prefetch(slot.header_at);
            prefetch_write(slot.frame_at);
            index.advance(1);
        }
        self.ready_to = index;
    }

    /// Copies one frame: header (its num_buffers is filled in here, or left out of short headers),
    /// head, body. It takes one chain, or with mergeable buffers as many as it fills. All or
    /// nothing: on `Full` and `TooLarge` the ring is as it was. A malformed chain breaks the ring.
    ///
    /// # Errors
    /// [`PushError::Full`] and [`PushError::TooLarge`] concern this frame only;
    /// [`PushError::Broken`] the ring.
    #[inline(always)]
    pub fn push<H: Head>(
        &mut self,
        header: &[u8; HEADER_LEN],
        head: H,
        body: &[Segment<'_>],
    ) -> Result<(), PushError> {
        let total = HEADER_LEN + head.len() + len_of(body);
        let index = self.ring.next;
        let ready = self.ready[usize::from(index.get()) % MAX_BURST];
        if index == self.ready_to || (ready.room as usize) < total - HEADER_LEN {
            return self.push_other(header, head, body, total);
        }
        // SAFETY: a header is writable at `header_at`, and `room` bytes, which are enough, at
        // `frame_at`.
        unsafe { copy_frame(header, head, body, ready.header_at, ready.frame_at) };
        self.ring.writes.data(&self.ring.setup.memory, ready.header_at, HEADER_LEN);
        self.ring.writes.data(&self.ring.setup.memory, ready.frame_at, total - HEADER_LEN);
        self.ring.raw.write_used(self.ring.used.get(), ready.id as u16, total as u32);
        self.ring.next.advance(1);
        self.ring.used.advance(1);
        Ok(())
    }

    /// Puts a frame on the ring when no ready buffer fits. Out of line, so that the common case
    /// stays short.
    #[inline(never)]
    fn push_other<H: Head>(
        &mut self,
        header: &[u8; HEADER_LEN],
        head: H,
        body: &[Segment<'_>],
        total: usize,
    ) -> Result<(), PushError> {
        let waiting = match self.ring.waiting() {
            0 => self.ring.refresh_avail().map_err(PushError::Broken)?,
            waiting => waiting,
        };
        if waiting == 0 {
            return Err(PushError::Full);
        }
        if self.ready_to == self.ring.next {
            self.make_ready(1);
            let ready = self.ready[usize::from(self.ring.next.get()) % MAX_BURST];
            if self.ready_to != self.ring.next && ready.room as usize >= total - HEADER_LEN {
                self.make_ready(waiting.min(READY));
                return self.push(header, head, body);
            }
        }
        let next = self.ring.next;
        let result = self.push_spread(header, head, body, total);
        let ready = self.ready_to.since(next);
        if self.ring.broken.is_some() || ready < self.ring.next.since(next) {
            self.ready_to = self.ring.next;
        }
        result
    }

    /// Puts a frame into descriptors of any form. `total` counts a header of full length.
    fn push_spread<H: Head>(
        &mut self,
        header: &[u8; HEADER_LEN],
        head: H,
        body: &[Segment<'_>],
        total: usize,
    ) -> Result<(), PushError> {
        let header_len = self.ring.setup.features.header_len();
        let total = total - HEADER_LEN + header_len;
        let chains = self.plan(total)?;
        let mut header = *header;
        [header[10], header[11]] = chains.to_le_bytes();
        let mut spread = Spread { ranges: self.ranges.iter(), at: std::ptr::null_mut(), room: 0 };
        // SAFETY: the plan has room for `total` bytes, and that many are put.
        unsafe {
            spread.put((&header[..header_len]).into());
            head.for_each_segment(|segment| spread.put(segment));
            body.iter().for_each(|segment| spread.put(*segment));
        }
        if W::MARKS {
            let memory = &self.ring.setup.memory;
            self.ranges.iter().for_each(|&(at, len)| self.ring.writes.data(memory, at, len));
        }
        self.ring.next.advance(chains);
        self.ring.used.advance(chains);
        Ok(())
    }

    /// Reserves room for `total` bytes and writes the used elements for it; the driver sees them at
    /// the next publish. Returns the number of chains.
    fn plan(&mut self, total: usize) -> Result<u16, PushError> {
        self.ranges.clear();
        let (mut chains, mut room) = (0u16, 0);
        // One descriptor for each range of at least a byte, and one that finds no room; the walk of
        // each chain adds one for a reference to an indirect table. Only chains with empty buffers
        // need more.
        let mut budget = total.min(MAX_RANGES) + 1;
        while room < total {
            if chains > 0 && !self.ring.setup.features.mergeable {
                return Err(PushError::TooLarge);
            }
            if chains == self.ring.waiting()
                && self.ring.refresh_avail().map_err(PushError::Broken)? == chains
            {
                let whole_ring = chains == self.ring.raw.size();
                return Err(if whole_ring { PushError::TooLarge } else { PushError::Full });
            }
            let id = self
                .ring
                .head(self.ring.next.get().wrapping_add(chains))
                .map_err(PushError::Broken)?;
            budget += 1;
            let gain = self.plan_chain(id, total - room, &mut budget)?;
            self.ring.raw.write_used(self.ring.used.get().wrapping_add(chains), id, gain as u32);
            if W::MARKS {
                // At once: the element stays, unpublished, if there is no room for the frame.
                self.ring.mark_used(Index::new(self.ring.used.get().wrapping_add(chains)), 1);
            }
            room += gain;
            chains += 1;
        }
        Ok(chains)
    }

    /// Adds the ranges of one chain to the plan, up to `need` bytes; returns how many it found.
    fn plan_chain(&mut self, id: u16, need: usize, budget: &mut usize) -> Result<usize, PushError> {
        let (ranges, mut found, mut full) = (&mut self.ranges, 0, false);
        let least = self.ring.setup.features.header_len().min(need);
        let desc = self.ring.raw.read_desc(id);
        if desc.flags == DESC_WRITE
            && desc.len as usize >= least
            && ranges.len() < MAX_RANGES
            && *budget > 0
            && let Some(at) = self.ring.translate(desc.addr, desc.len)
        {
            *budget -= 1;
            let len = need.min(desc.len as usize);
            ranges.push((at, len));
            return Ok(len);
        }
        let walked = self.ring.walk(id, Direction::ToDriver, budget, |ptr, len| {
            full = ranges.len() == MAX_RANGES;
            if full {
                return Ok(More::No);
            }
            let len = len.min(need - found);
            ranges.push((ptr, len));
            found += len;
            Ok(if found == need { More::No } else { More::Yes })
        });
        match walked {
            Err(error) => Err(PushError::Broken(self.ring.mark_broken(error))),
            Ok(()) if full => Err(PushError::TooLarge),
            // Each buffer must hold at least a header (virtio 1.2, section 5.1.6.3.1). A driver
            // that posts empty ones would make the device walk the ring for nothing.
            Ok(()) if found < least => {
                Err(PushError::Broken(self.ring.mark_broken(RingError::HeaderTooShort)))
            }
            Ok(()) => Ok(found),
        }
    }

    /// Reads the available index again; `push` does so itself when it runs out of buffers.
    pub fn refresh(&mut self) {
        if self.ring.refresh_avail().is_err() {
            // The next push returns the error.
            self.ready_to = self.ring.next;
        }
    }

    /// Returns the number of buffers that wait for frames, by the available index last read.
    #[inline]
    pub fn waiting(&self) -> u16 {
        self.ring.waiting()
    }

    /// Returns the number of the ring's descriptors.
    pub fn size(&self) -> u16 {
        self.ring.raw.size()
    }

    /// Makes the frames visible (one release store). Returns `true` if the driver wants a call.
    #[inline]
    pub fn publish(&mut self) -> bool {
        // The next burst will probably read as many descriptors as were just used; prefetch them.
        self.ring.prefetch_descriptors(self.ring.used.since(self.ring.published));
        self.ring.publish()
    }

    /// Continues from the used index in the ring's memory, which another device has moved
    /// meanwhile. That one wants no kicks either.
    pub fn catch_up(&mut self) {
        self.ring.catch_up();
        self.ready_to = self.ring.next;
    }

    /// Returns the index to resume at (vhost-user GET_VRING_BASE).
    pub fn next(&self) -> u16 {
        self.ring.next.get()
    }

    /// Moves the ring to a new memory map. On error the old one stays.
    ///
    /// # Errors
    /// A part of the ring does not lie in the new map.
    pub fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingError> {
        self.ready_to = self.ring.next;
        self.ring.set_memory(memory)
    }

    /// Returns whether the memory vanished under the ring.
    pub fn memory_lost(&self) -> bool {
        self.ring.setup.memory.is_lost()
    }
}

impl<W: Writes> DeviceRing<W> {
    /// Returns the chain at `id` if it takes a frame in one piece: as one descriptor in another
    /// region than the last, or as one for the header alone and one for the frame, whatever
    /// follows. Drivers without mergeable buffers and VIRTIO_F_ANY_LAYOUT lay out their buffers
    /// like this. `direct` is [`RxQueue::direct`].
    #[inline(never)]
    fn read_header_split(&mut self, id: u16, direct: u32) -> Option<Ready> {
        let first = self.raw.read_desc(id);
        let id = u32::from(id);
        if u32::from(first.flags) == direct && first.len >= HEADER {
            let header_at = self.translate(first.addr, first.len)?;
            let frame_at = header_at.wrapping_add(HEADER_LEN);
            return Some(Ready { header_at, frame_at, room: first.len - HEADER, id });
        }
        let is_header = first.flags == DESC_WRITE | DESC_NEXT && first.len == HEADER;
        if !is_header || first.next >= self.raw.size() {
            return None;
        }
        let data = self.raw.read_desc(first.next);
        if u32::from(data.flags & !DESC_NEXT) != direct {
            return None;
        }
        let header_at = self.translate(first.addr, first.len)?;
        let frame_at = self.translate(data.addr, data.len)?;
        Some(Ready { header_at, frame_at, room: data.len, id })
    }
}

/// Writes a frame that takes one chain: its header at `header_at`, the rest in one piece at `at`.
///
/// # Safety
/// [`HEADER_LEN`] bytes are writable at `header_at`, and as many as head and body have at `at`.
#[inline(always)]
unsafe fn copy_frame<H: Head>(
    header: &[u8; HEADER_LEN],
    head: H,
    body: &[Segment<'_>],
    header_at: *mut u8,
    mut at: *mut u8,
) {
    // SAFETY: the caller's promise; each step stays within what is left of it.
    unsafe {
        let (low, high) = header_words(header);
        // The last field, num_buffers, is 1 without mergeable buffers too.
        copy_header((low, high & 0xffff | 1 << 16), header_at);
        head.write_to(at);
        at = at.add(head.len());
        match body {
            [] => {}
            [only] => copy(only.as_ptr(), at, only.len()),
            several => copy_several(several, at),
        }
    }
}

/// Returns the length of a body. Most have at most one segment. A loop, which compilers unroll and
/// prepare long before it is known to be needed, cost each of them 25 instructions.
#[inline(always)]
fn len_of(body: &[Segment<'_>]) -> usize {
    #[inline(never)]
    fn of_several(body: &[Segment<'_>]) -> usize {
        body.iter().map(Segment::len).sum()
    }
    match body {
        [] => 0,
        [only] => only.len(),
        several => of_several(several),
    }
}

/// Copies segments one after another.
///
/// # Safety
/// As many bytes as they have are writable at `at`.
#[inline(never)]
unsafe fn copy_several(body: &[Segment<'_>], mut at: *mut u8) {
    for segment in body {
        // SAFETY: as the caller promises; each step stays within what is left of it.
        unsafe {
            copy(segment.as_ptr(), at, segment.len());
            at = at.add(segment.len());
        }
    }
}

/// Writes bytes in sequence over ranges of guest memory.
struct Spread<'a> {
    ranges: std::slice::Iter<'a, (*mut u8, usize)>,
    at: *mut u8,
    room: usize,
}

impl Spread<'_> {
    /// # Safety
    /// Each range has the stated number of writable bytes. Bytes beyond the last range are not
    /// written.
    unsafe fn put(&mut self, mut from: Segment<'_>) {
        while !from.is_empty() {
            if self.room == 0 {
                let Some(&(at, room)) = self.ranges.next() else { return };
                (self.at, self.room) = (at, room);
            }
            let (part, rest) = from.split_at(self.room);
            // SAFETY: part is no longer than the room at `at`.
            unsafe {
                copy(part.as_ptr(), self.at, part.len());
                self.at = self.at.add(part.len());
            }
            self.room -= part.len();
            from = rest;
        }
    }
}

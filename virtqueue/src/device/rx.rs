//! Putting frames on a ring that the driver receives on.

use std::sync::Arc;

use super::DeviceRing;
use super::chain::{Direction, More};
use crate::copy::{copy, copy_header, prefetch, prefetch_write};
use crate::error::{PushError, RingError};
use crate::memory::GuestMemory;
use crate::ring::{DESC_NEXT, DESC_WRITE, HEADER_LEN, RingSetup};
use crate::segment::Segment;

/// Most runs of bytes that one frame is spread over: 64 KiB in 64-byte buffers.
const MAX_RUNS: usize = 1024;

/// How many buffers ahead the lines of a buffer are asked for. The driver's core had them last, and
/// the header is compared before it is written: waiting for both was two thirds of a frame's time.
/// With testpmd on the other core, 60-byte frames took 67 ns of worker each without looking ahead,
/// 54 at 4 buffers, 48 at 8 and at 16.
pub(crate) const LOOK_AHEAD: u16 = 8;

/// Device side of a ring that the driver receives on: we write. No kicks are ever wanted on it.
///
/// Any number of [`push`](Self::push), then one [`publish`](Self::publish). `AHEAD` is a parameter
/// for the benchmark that compares its values; 0 is not to look ahead.
pub struct RxQueue<const AHEAD: u16 = LOOK_AHEAD> {
    ring: DeviceRing,
    /// Flags of a descriptor that a frame goes straight into, but for DESC_NEXT. No descriptor has
    /// them where headers are short: all frames then take the general path, and the direct one is
    /// compiled for the long header, at no cost.
    direct: u32,
    /// Where the frame in hand goes if it takes more than one descriptor.
    runs: Vec<(*mut u8, usize)>,
}

// SAFETY: the runs are pointers into memory that the ring keeps mapped, and mean nothing between
// calls.
unsafe impl<const AHEAD: u16> Send for RxQueue<AHEAD> {}

impl RxQueue {
    /// A queue over the ring, with kicks disarmed.
    pub fn new(setup: RingSetup) -> Result<RxQueue, RingError> {
        Self::looking_ahead(setup)
    }
}

impl<const AHEAD: u16> RxQueue<AHEAD> {
    /// As [`RxQueue::new`], with another `AHEAD`.
    pub fn looking_ahead(setup: RingSetup) -> Result<Self, RingError> {
        let mut ring = DeviceRing::new(setup)?;
        ring.disarm();
        let long = ring.setup.features.header_len() == HEADER_LEN;
        let direct = if long { u32::from(DESC_WRITE) } else { u32::MAX };
        Ok(RxQueue { ring, direct, runs: Vec::with_capacity(MAX_RUNS) })
    }

    /// Copies one frame: header (whose num_buffers is filled in here, or left out where headers are
    /// short), head, body. It takes one chain, or with mergeable buffers as many as it fills. All
    /// or nothing: on `Full` and `TooLarge` the ring is as it was. A malformed chain breaks the
    /// ring.
    #[inline]
    pub fn push(
        &mut self,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), PushError> {
        let ring = &mut self.ring;
        if ring.waiting() == 0 && ring.look().map_err(PushError::Broken)? == 0 {
            return Err(PushError::Full);
        }
        ring.look_ahead(AHEAD);
        let total = HEADER_LEN + head.len() + body.iter().map(Segment::len).sum::<usize>();
        let id = ring.head(ring.next.get()).map_err(PushError::Broken)?;
        let desc = ring.raw.read_desc(id);
        if u32::from(desc.flags) == self.direct
            && desc.len as usize >= total
            && let Some(at) = ring.translate(desc.addr, desc.len)
        {
            // SAFETY: at least total bytes are writable at `at`, the header's and the frame's.
            unsafe { copy_frame(header, head, body, at, at.add(HEADER_LEN)) };
            ring.raw.write_used(ring.used.get(), id, total as u32);
            ring.next.advance(1);
            ring.used.advance(1);
            return Ok(());
        }
        self.push_other(header, head, body, total)
    }

    /// Puts a frame into a chain of another form. Out of line, so that the common form stays short.
    #[inline(never)]
    fn push_other(
        &mut self,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
        total: usize,
    ) -> Result<(), PushError> {
        let ring = &mut self.ring;
        let id = ring.head(ring.next.get()).map_err(PushError::Broken)?;
        let Some((header_at, at)) = ring.apart(id, self.direct, total - HEADER_LEN) else {
            return self.push_spread(header, head, body, total);
        };
        // SAFETY: a header is writable at `header_at` and the rest of total at `at`.
        unsafe { copy_frame(header, head, body, header_at, at) };
        ring.raw.write_used(ring.used.get(), id, total as u32);
        ring.next.advance(1);
        ring.used.advance(1);
        Ok(())
    }

    /// Puts a frame into descriptors of any form. `total` counts a header that is not short.
    fn push_spread(
        &mut self,
        header: &[u8; HEADER_LEN],
        head: &[u8],
        body: &[Segment<'_>],
        total: usize,
    ) -> Result<(), PushError> {
        let header_len = self.ring.setup.features.header_len();
        let total = total - HEADER_LEN + header_len;
        let chains = self.plan(total)?;
        let header = with_buffers(header, chains);
        let mut spread = Spread { runs: self.runs.iter(), at: std::ptr::null_mut(), room: 0 };
        // SAFETY: the plan has room for total bytes, which is what is put.
        unsafe {
            spread.put((&header[..header_len]).into());
            spread.put(head.into());
            body.iter().for_each(|segment| spread.put(*segment));
        }
        self.ring.next.advance(chains);
        self.ring.used.advance(chains);
        Ok(())
    }

    /// Finds room for `total` bytes and writes the used elements for it, which the driver does not
    /// see before they are published. Returns the number of chains.
    fn plan(&mut self, total: usize) -> Result<u16, PushError> {
        self.runs.clear();
        let (mut chains, mut room) = (0u16, 0);
        // One descriptor for each run, of a byte at least, and one that finds no room any more; the
        // walk of each chain adds one that may refer to an indirect table. Only chains with empty
        // buffers need more.
        let mut budget = total.min(MAX_RUNS) + 1;
        while room < total {
            if chains > 0 && !self.ring.setup.features.mergeable {
                return Err(PushError::TooLarge);
            }
            if chains == self.ring.waiting()
                && self.ring.look().map_err(PushError::Broken)? == chains
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
            room += gain;
            chains += 1;
        }
        Ok(chains)
    }

    /// Adds the runs of one chain to the plan, up to `need` bytes; returns how many it found.
    fn plan_chain(&mut self, id: u16, need: usize, budget: &mut usize) -> Result<usize, PushError> {
        let (runs, mut found, mut full) = (&mut self.runs, 0, false);
        let least = self.ring.setup.features.header_len().min(need);
        let walked = self.ring.walk(id, Direction::ToDriver, budget, |ptr, len| {
            full = runs.len() == MAX_RUNS;
            if full {
                return Ok(More::No);
            }
            let len = len.min(need - found);
            runs.push((ptr, len));
            found += len;
            Ok(if found == need { More::No } else { More::Yes })
        });
        match walked {
            Err(error) => Err(PushError::Broken(self.ring.breaks(error))),
            Ok(()) if full => Err(PushError::TooLarge),
            // Each buffer must hold a header at least (virtio 1.2, section 5.1.6.3.1); a driver that
            // posts empty ones would have us walk the ring for nothing.
            Ok(()) if found < least => {
                Err(PushError::Broken(self.ring.breaks(RingError::HeaderTooShort)))
            }
            Ok(()) => Ok(found),
        }
    }

    /// Looks at the available index again; `push` does it itself when it runs out of buffers.
    pub fn refresh(&mut self) {
        // An error is remembered, and told by the next push.
        let _ = self.ring.look();
    }

    /// Makes the frames visible (one release store); true: the driver wants a call.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Index to resume at (vhost-user GET_VRING_BASE).
    pub fn next(&self) -> u16 {
        self.ring.next.get()
    }

    /// Moves the ring to a new memory map. On error the old one stays.
    pub fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingError> {
        self.ring.set_memory(memory)
    }

    /// Whether the memory vanished under the ring.
    pub fn memory_lost(&self) -> bool {
        self.ring.setup.memory.is_lost()
    }
}

impl DeviceRing {
    /// Where header and frame go if the chain at `id` has a descriptor for the header alone and room
    /// for all `len` bytes of the frame in the next; what follows is not needed. So do drivers lay
    /// their buffers out that know neither mergeable buffers nor VIRTIO_F_ANY_LAYOUT. `direct` is
    /// [`RxQueue::direct`].
    #[inline(always)]
    fn apart(&mut self, id: u16, direct: u32, len: usize) -> Option<(*mut u8, *mut u8)> {
        let first = self.raw.read_desc(id);
        let is_header = first.flags == DESC_WRITE | DESC_NEXT && first.len as usize == HEADER_LEN;
        if !is_header || first.next >= self.raw.size() {
            return None;
        }
        let data = self.raw.read_desc(first.next);
        if u32::from(data.flags & !DESC_NEXT) != direct || (data.len as usize) < len {
            return None;
        }
        Some((self.translate(first.addr, first.len)?, self.translate(data.addr, data.len)?))
    }

    /// Asks for the lines that a frame soon to come begins in. What is read here decides nothing
    /// else: the entry and the descriptor are read again, and checked, when it is their turn.
    #[inline(always)]
    fn look_ahead(&self, ahead: u16) {
        if ahead == 0 || self.waiting() <= ahead {
            return;
        }
        let id = self.raw.read_head(self.next.get().wrapping_add(ahead));
        if id >= self.raw.size() {
            return;
        }
        if let Some((at, _)) = self.window.at(self.raw.read_desc(id).addr) {
            prefetch(at);
            prefetch_write(at.wrapping_add(HEADER_LEN));
        }
    }
}

/// The header with its last field, num_buffers, set. It is 1 without mergeable buffers too.
#[inline(always)]
fn with_buffers(header: &[u8; HEADER_LEN], chains: u16) -> [u8; HEADER_LEN] {
    let mut header = *header;
    [header[10], header[11]] = chains.to_le_bytes();
    header
}

/// Writes a frame that one chain takes: its header at `header_at`, the rest in one piece at `at`.
///
/// # Safety
/// [`HEADER_LEN`] bytes are writable at `header_at`, and as many as head and body have at `at`.
#[inline(always)]
unsafe fn copy_frame(
    header: &[u8; HEADER_LEN],
    head: &[u8],
    body: &[Segment<'_>],
    header_at: *mut u8,
    mut at: *mut u8,
) {
    // SAFETY: the caller's promise; each step stays within what is left of it.
    unsafe {
        copy_header(with_buffers(header, 1), header_at);
        copy(head.as_ptr(), at, head.len());
        at = at.add(head.len());
        for segment in body {
            copy(segment.as_ptr(), at, segment.len());
            at = at.add(segment.len());
        }
    }
}

/// Writes bytes one after another over runs of guest memory.
struct Spread<'a> {
    runs: std::slice::Iter<'a, (*mut u8, usize)>,
    at: *mut u8,
    room: usize,
}

impl Spread<'_> {
    /// # Safety
    /// Each run is as many writable bytes as it says. Bytes beyond the last run are not written.
    unsafe fn put(&mut self, mut from: Segment<'_>) {
        while !from.is_empty() {
            if self.room == 0 {
                let Some(&(at, room)) = self.runs.next() else { return };
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

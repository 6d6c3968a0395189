//! Takes frames from a ring on which the driver transmits.

use std::sync::Arc;

use super::burst::{MAX_SEGMENTS, TxBurst};
use super::chain::{Direction, More};
use super::{DeviceRing, Unlogged, Writes};
use crate::error::RingError;
use crate::memory::GuestMemory;
use crate::ring::{DESC_NEXT, HEADER_LEN, MAX_BURST, RingSetup};

/// Most descriptors that one burst reads outside the fast path: one for each segment, one that
/// finds no room, and one for each chain that refers to an indirect table. Only chains with empty
/// buffers, or that share descriptors, need more.
const MAX_DESCRIPTORS: usize = MAX_SEGMENTS + 1 + MAX_BURST;

/// Device side of a transmit ring: the device reads.
///
/// One burst is [`fetch`](Self::fetch), [`complete`](Self::complete) and, for one or more bursts,
/// [`publish`](Self::publish).
///
/// `W` is what becomes of its writes: those of the used ring.
pub struct TxQueue<W = Unlogged> {
    ring: DeviceRing<W>,
}

/// Outcome of taking one chain.
enum Taken {
    Entered,
    /// The burst has no room for its segments; the chain stays on the ring.
    NoRoom,
}

impl TxQueue {
    /// Makes a queue over the ring that logs nothing. Does not touch the ring before the first
    /// call.
    ///
    /// # Errors
    /// The ring cannot be used as set up: its size, an address, or its alignment.
    pub fn new(setup: RingSetup) -> Result<TxQueue, RingError> {
        Self::of(setup)
    }
}

impl<W: Writes> TxQueue<W> {
    /// Makes a queue over the ring, as [`TxQueue::new`] does; [`crate::Logged`] needs a log.
    ///
    /// # Errors
    /// As for [`TxQueue::new`]; or the log is too small.
    pub fn of(setup: RingSetup) -> Result<TxQueue<W>, RingError> {
        Ok(TxQueue { ring: DeviceRing::new(setup)? })
    }

    /// Returns the number of waiting chains (one acquire load). An error means that the ring is
    /// broken for good.
    ///
    /// # Errors
    /// The driver broke the rules of the ring, or its memory was lost; the ring stays broken.
    #[inline]
    pub fn pending(&mut self) -> Result<u16, RingError> {
        self.ring.refresh_avail()
    }

    /// Takes up to `max` chains, and at most [`MAX_BURST`], into `burst`, which is cleared first;
    /// returns their number. A malformed chain becomes an entry whose `error` is set. An error here
    /// means that the ring is broken for good, and nothing was taken.
    ///
    /// # Errors
    /// The driver broke the rules of the ring, or its memory was lost; the ring stays broken.
    pub fn fetch(&mut self, burst: &mut TxBurst, max: usize) -> Result<usize, RingError> {
        let waiting = match self.ring.refresh_avail() {
            Ok(waiting) if waiting > 0 => usize::from(waiting),
            // spec: virtio spurious-kick
            other => {
                burst.clear();
                return other.map(usize::from);
            }
        };
        burst.begin(&self.ring.setup.memory);
        let want = waiting.min(max).min(MAX_BURST);
        // Chosen per burst, so that the common header's length is known at compile time.
        let taken = if self.ring.setup.features.header_len() == HEADER_LEN {
            self.take(burst, want, |queue, head, burst, budget| {
                queue.take_common(head, burst, budget)
            })
        } else {
            self.take(burst, want, |queue, head, burst, budget| queue.take_any(head, burst, budget))
        };
        if let Err(error) = taken {
            burst.clear();
            return Err(error);
        }
        self.ring.next.advance(burst.len() as u16);
        self.ring.prefetch_used(burst.len() as u16);
        self.ring.prefetch_descriptors(MAX_BURST as u16);
        burst.gather();
        Ok(burst.len())
    }

    /// Enters chains by `take_common`, which gets their heads, until `burst` has `want`.
    #[inline(always)]
    fn take(
        &mut self,
        burst: &mut TxBurst,
        want: usize,
        take_common: impl Fn(&mut Self, u16, &mut TxBurst, &mut usize) -> Result<Taken, RingError>,
    ) -> Result<(), RingError> {
        let start = self.ring.next.get();
        let mut budget = MAX_DESCRIPTORS;
        while burst.len() < want {
            let head = self.ring.head(start.wrapping_add(burst.len() as u16))?;
            if let Taken::NoRoom = take_common(self, head, burst, &mut budget)? {
                break;
            }
        }
        Ok(())
    }

    /// Enters the chain at `head` into the burst. Handles two forms directly: header and frame in
    /// one descriptor, or in one each. The header has full length.
    #[inline(always)]
    fn take_common(
        &mut self,
        head: u16,
        burst: &mut TxBurst,
        budget: &mut usize,
    ) -> Result<Taken, RingError> {
        const HEADER: u32 = HEADER_LEN as u32;
        let ring = &mut self.ring;
        let desc = ring.raw.read_desc(head);
        if desc.flags == 0 && desc.len >= HEADER {
            if let Some(ptr) = ring.translate(desc.addr, desc.len) {
                burst.push(head, ptr, ptr.wrapping_add(HEADER_LEN), desc.len - HEADER);
                return Ok(Taken::Entered);
            }
        } else if desc.flags == DESC_NEXT && desc.len == HEADER && desc.next < ring.raw.size() {
            let data = ring.raw.read_desc(desc.next);
            if data.flags == 0
                && data.len <= u32::MAX - HEADER
                && let Some(header) = ring.translate(desc.addr, HEADER)
                && let Some(frame) = ring.translate(data.addr, data.len)
            {
                burst.push(head, header, frame, data.len);
                return Ok(Taken::Entered);
            }
        }
        self.take_any(head, burst, budget)
    }

    /// Enters a chain of any form. Out of line, so that the loop over the common forms stays small.
    #[inline(never)]
    fn take_any(
        &mut self,
        head: u16,
        burst: &mut TxBurst,
        budget: &mut usize,
    ) -> Result<Taken, RingError> {
        let first = burst.segments_len();
        let header_len = self.ring.setup.features.header_len();
        let result = self.ring.walk(head, Direction::FromDriver, budget, |ptr, len| {
            // SAFETY: the walk gives ranges of bytes in the ring's memory, which the burst holds.
            match unsafe { burst.push_segment(ptr, len) } {
                true => Ok(More::Yes),
                false => Err(RingError::ChainTooLarge),
            }
        });
        let result = result.and_then(|()| burst.push_segments(head, first, header_len));
        match result {
            Ok(()) => return Ok(Taken::Entered),
            Err(RingError::ChainTooLong) => {
                return Err(self.ring.mark_broken(RingError::ChainTooLong));
            }
            // Other chains' segments take the room: it may fit in the next burst.
            Err(RingError::ChainTooLarge) if first > 0 => {
                burst.drop_segments(first);
                return Ok(Taken::NoRoom);
            }
            Err(error) => {
                burst.drop_segments(first);
                burst.push_error(head, error);
            }
        }
        Ok(Taken::Entered)
    }

    /// Puts the burst's chains, in order, on the used ring; not yet visible. With IN_ORDER one
    /// element that names the last chain completes all (virtio 1.2, section 2.7.9).
    #[inline]
    pub fn complete(&mut self, burst: &TxBurst) {
        let (count, used) = (burst.len(), self.ring.used.get());
        // spec: virtio in-order-batch
        if self.ring.setup.features.in_order {
            if let Some(last) = count.checked_sub(1) {
                self.ring.raw.write_used(used, burst.id(last), 0);
            }
        } else {
            for i in 0..count {
                self.ring.raw.write_used(used.wrapping_add(i as u16), burst.id(i), 0);
            }
        }
        self.ring.used.advance(count as u16);
    }

    /// Makes completions visible (one release store). Returns `true` if the driver wants a call.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Declares that no kicks are wanted.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Requests a kick for the next chain. Returns `true` if a chain waits already; its kick may
    /// never come.
    #[must_use = "a chain that waits already may never be kicked for"]
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    /// Continues from the used index in the ring's memory, which another device has moved
    /// meanwhile. Like [`TxQueue::new`] it leaves what the driver was told about kicks.
    pub fn catch_up(&mut self) {
        self.ring.catch_up();
    }

    /// Returns the index to resume at (vhost-user GET_VRING_BASE). Everything fetched must be
    /// completed.
    pub fn next(&self) -> u16 {
        self.ring.next.get()
    }

    /// Moves the ring to a new memory map. On error the old one stays.
    ///
    /// # Errors
    /// A part of the ring does not lie in the new map.
    pub fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingError> {
        self.ring.set_memory(memory)
    }

    /// Returns whether the memory vanished under the ring.
    pub fn memory_lost(&self) -> bool {
        self.ring.setup.memory.is_lost()
    }
}

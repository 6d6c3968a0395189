//! Walking one descriptor chain, whatever its form (virtio 1.2, section 2.7.5).
//!
//! The fast paths of the queues serve the chains that drivers commonly make; this serves the rest
//! and finds every fault. Its work is bounded for each chain by the ring's size plus one indirect
//! table, and for all chains of a burst or frame together by a budget: nothing keeps a hostile
//! driver from naming one long chain by every head.

use super::DeviceRing;
use crate::error::RingError;
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};

/// Most descriptors of an indirect table. The specification's bound is the queue size, which Linux
/// passes on small queues: its tables depend on the frame's fragments (at most 47), not on the
/// ring.
const MAX_INDIRECT: u32 = 256;

/// Who may write the chain's buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The driver: we read.
    FromDriver,
    /// The device: we write.
    ToDriver,
}

/// Whether the receiver of segments wants the next one.
pub(super) enum More {
    Yes,
    No,
}

impl DeviceRing {
    /// Hands each run of bytes of the chain at `head` to `segment`, in order, until it has enough.
    /// A buffer that crosses regions comes in several runs; an empty one in none. Each descriptor
    /// read is taken off the budget, and one too many is [`RingError::ChainTooLong`].
    pub(super) fn walk(
        &mut self,
        head: u16,
        direction: Direction,
        budget: &mut usize,
        mut segment: impl FnMut(*mut u8, usize) -> Result<More, RingError>,
    ) -> Result<(), RingError> {
        let mut table = self.raw.desc().cast_const();
        let mut table_len = u32::from(self.raw.size());
        let mut indirect = false;
        let mut index = u32::from(head);
        let mut taken = 0;
        let mut total = 0u64;
        loop {
            if index >= table_len {
                return Err(RingError::DescriptorOutOfRange);
            }
            taken += 1;
            if taken > table_len {
                return Err(RingError::ChainTooLong);
            }
            *budget = budget.checked_sub(1).ok_or(RingError::ChainTooLong)?;
            // SAFETY: the table has table_len descriptors, index is below.
            let desc = unsafe { Descriptor::read_unaligned(table.add(16 * index as usize)) };
            if desc.flags & DESC_INDIRECT != 0 {
                if indirect || desc.flags & DESC_NEXT != 0 {
                    return Err(RingError::NestedIndirect);
                }
                (table, table_len) = self.indirect_table(desc)?;
                (indirect, index, taken) = (true, 0, 0);
                continue;
            }
            if (desc.flags & DESC_WRITE != 0) != (direction == Direction::ToDriver) {
                return Err(RingError::WrongDirection);
            }
            total += u64::from(desc.len);
            if total > u64::from(u32::MAX) {
                return Err(RingError::ChainTooLarge);
            }
            if let More::No = self.split(desc.addr, desc.len, &mut segment)? {
                return Ok(());
            }
            if desc.flags & DESC_NEXT == 0 {
                return Ok(());
            }
            index = u32::from(desc.next);
        }
    }

    /// The table that an indirect descriptor refers to, and its number of descriptors.
    fn indirect_table(&mut self, desc: Descriptor) -> Result<(*const u8, u32), RingError> {
        if !self.setup.features.indirect {
            return Err(RingError::IndirectNotNegotiated);
        }
        let count = desc.len / 16;
        if count == 0 || !desc.len.is_multiple_of(16) || count > MAX_INDIRECT {
            return Err(RingError::IndirectLength);
        }
        let table = self.translate(desc.addr, desc.len).ok_or(RingError::BadAddress)?;
        Ok((table.cast_const(), count))
    }

    /// Hands on one buffer, cut where regions meet.
    fn split(
        &mut self,
        mut address: u64,
        len: u32,
        segment: &mut impl FnMut(*mut u8, usize) -> Result<More, RingError>,
    ) -> Result<More, RingError> {
        let mut left = u64::from(len);
        while left > 0 {
            if self.window.at(address).is_none() {
                self.window =
                    self.setup.memory.guest_window(address).ok_or(RingError::BadAddress)?;
            }
            let (ptr, room) = self.window.at(address).ok_or(RingError::BadAddress)?;
            let run = left.min(room);
            if let More::No = segment(ptr, run as usize)? {
                return Ok(More::No);
            }
            left -= run;
            // Regions do not wrap, so only the end of the last one can be the end of all addresses.
            address = address.wrapping_add(run);
        }
        Ok(More::Yes)
    }
}

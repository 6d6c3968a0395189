//! Walks one descriptor chain of any form (virtio 1.2, section 2.7.5).
//!
//! The fast paths of the queues serve the forms that drivers commonly use; this serves the rest and
//! finds every fault. The ring's size plus one indirect table bounds the work for each chain, and a
//! budget bounds it for all chains of a burst or frame together: a hostile driver can name one long
//! chain by every head.

use super::{DeviceRing, Writes};
use crate::error::RingError;
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};

/// Most descriptors of an indirect table. The specification's bound is the queue size, but Linux
/// exceeds it on small queues: its tables depend on the frame's fragments (at most 47), not on the
/// ring.
const MAX_INDIRECT: u32 = 256;

/// Direction of the chain's buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Device-readable.
    FromDriver,
    /// Device-writable.
    ToDriver,
}

/// Whether the consumer of segments wants the next one.
pub(super) enum More {
    Yes,
    No,
}

impl<W: Writes> DeviceRing<W> {
    /// Passes each contiguous range of the chain at `head` to `segment`, in order, until it has
    /// enough. A buffer that crosses regions yields several ranges, an empty one none. Each
    /// descriptor read is taken off the budget; one too many is [`RingError::ChainTooLong`].
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
            // SAFETY: the table has table_len descriptors, and index is below.
            let desc = unsafe { Descriptor::read_unaligned(table.add(16 * index as usize)) };
            // spec: virtio indirect-write-flag indirect-last
            if desc.flags & DESC_INDIRECT != 0 {
                if indirect || desc.flags & DESC_NEXT != 0 {
                    return Err(RingError::NestedIndirect);
                }
                (table, table_len) = self.indirect_table(desc)?;
                (indirect, index, taken) = (true, 0, 0);
                continue;
            }
            // spec: virtio readable-not-written writable-not-read
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

    /// Returns the table of an indirect descriptor, and its number of descriptors.
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

    /// Passes on one buffer, cut at region boundaries.
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
            let len_here = left.min(room);
            if let More::No = segment(ptr, len_here as usize)? {
                return Ok(More::No);
            }
            left -= len_here;
            // Regions do not wrap, so only the end of the last one can be the end of the address
            // space.
            address = address.wrapping_add(len_here);
        }
        Ok(More::Yes)
    }
}

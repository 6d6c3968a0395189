//! Driver side of a transmit ring.

use std::sync::Arc;

use super::{DriverError, DriverMemory, DriverOptions, DriverRing, RingAddresses};
use crate::copy::{copy, copy_header};
use crate::memory::GuestMemory;
use crate::ring::{HEADER_LEN, RingSetup};

/// Driver side of a transmit ring: any number of [`send`](Self::send), then one
/// [`publish`](Self::publish); [`reclaim`](Self::reclaim) now and then.
pub struct DriverTx {
    ring: DriverRing,
}

impl DriverTx {
    /// Lays a ring out in `memory`.
    pub fn new(memory: &Arc<DriverMemory>, options: DriverOptions) -> Result<Self, DriverError> {
        Ok(DriverTx { ring: DriverRing::new(memory, options)? })
    }

    /// Where the ring is.
    pub fn addresses(&self) -> RingAddresses {
        self.ring.addresses
    }

    /// What a device needs to run the ring in `memory`, a map of [`DriverMemory::spec`].
    pub fn setup(&self, memory: Arc<GuestMemory>) -> RingSetup {
        self.ring.setup(memory)
    }

    /// Queues one frame, the concatenation of `parts`; the device sees it after `publish`.
    #[inline]
    pub fn send(&mut self, header: &[u8; HEADER_LEN], parts: &[&[u8]]) -> Result<(), DriverError> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if len > self.ring.options.buffer_size - HEADER_LEN {
            return Err(DriverError::TooLarge(len));
        }
        let chain = self.ring.pop_free().ok_or(DriverError::Full)?;
        let mut at = self.ring.buffer(chain);
        // SAFETY: the buffer has room for header and frame.
        unsafe {
            copy_header(*header, at);
            at = at.add(HEADER_LEN);
            for part in parts {
                copy(part.as_ptr(), at, part.len());
                at = at.add(part.len());
            }
        }
        self.ring.describe(chain, HEADER_LEN + len, 0);
        self.ring.post(chain);
        Ok(())
    }

    /// Makes queued frames available; true: the device wants a kick.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes back the chains that the device has completed; returns their number.
    pub fn reclaim(&mut self) -> Result<usize, DriverError> {
        let waiting = self.ring.look()?;
        while self.ring.used != self.ring.seen {
            let (id, _) = self.ring.raw.read_used(self.ring.used.get());
            let last = self.ring.chain(id)?;
            if self.ring.options.features.in_order {
                self.reclaim_to(last)?;
            } else {
                self.ring.push_free(last);
                self.ring.used.advance(1);
            }
        }
        Ok(usize::from(waiting))
    }

    /// Takes back every chain up to `last`, for which one used element stands (virtio 1.2, section
    /// 2.7.9).
    fn reclaim_to(&mut self, last: u16) -> Result<(), DriverError> {
        loop {
            if self.ring.used == self.ring.seen {
                return Err(DriverError::Device("used chains out of order"));
            }
            let chain = self.ring.posted[self.ring.entry(self.ring.used)];
            self.ring.push_free(chain);
            self.ring.used.advance(1);
            if chain == last {
                return Ok(());
            }
        }
    }

    /// Frames that `send` takes before the ring is full.
    pub fn free(&self) -> usize {
        usize::from(self.ring.free())
    }

    /// No calls wanted.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Calls wanted; true: there is something to reclaim already.
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }
}

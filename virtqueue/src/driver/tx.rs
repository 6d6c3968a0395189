//! Driver side of a transmit ring.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{DriverError, DriverMemory, DriverOptions, DriverRing, RingAddresses};
use crate::copy::{copy, copy_header, header_words, prefetch_write};
use crate::memory::GuestMemory;
use crate::ring::{HEADER_LEN, RingSetup};

/// Driver side of a transmit ring: any number of [`send`](Self::send), then one
/// [`publish`](Self::publish); [`reclaim`](Self::reclaim) now and then.
pub struct DriverTx {
    ring: DriverRing,
}

impl DriverTx {
    /// Lays a ring out in `memory`.
    ///
    /// # Errors
    /// The options contradict each other, or `memory` has no room for the ring.
    pub fn new(memory: &Arc<DriverMemory>, options: DriverOptions) -> Result<Self, DriverError> {
        Ok(DriverTx { ring: DriverRing::new(memory, options)? })
    }

    /// Returns the addresses of the ring.
    pub fn addresses(&self) -> RingAddresses {
        self.ring.addresses
    }

    /// Returns the setup for a device that runs the ring in `memory`, a map of
    /// [`DriverMemory::spec`].
    pub fn setup(&self, memory: Arc<GuestMemory>) -> RingSetup {
        self.ring.setup(memory)
    }

    /// Queues one frame, the concatenation of `parts`; visible to the device after `publish`. The
    /// last two bytes of `header` are left out of short headers.
    ///
    /// # Errors
    /// [`DriverError::Full`]: no buffer is free. [`DriverError::TooLarge`]: a buffer is shorter
    /// than the frame.
    #[inline]
    pub fn send(&mut self, header: &[u8; HEADER_LEN], parts: &[&[u8]]) -> Result<(), DriverError> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if len > self.ring.options.buffer_size - self.ring.header_len {
            return Err(DriverError::TooLarge(len));
        }
        let chain = self.ring.pop_free().ok_or(DriverError::Full)?;
        let mut at = self.ring.buffer(chain);
        // SAFETY: the buffer has room for header and frame.
        unsafe {
            copy_header(header_words(header), at);
            at = at.add(self.ring.header_len);
            for part in parts {
                copy(part.as_ptr(), at, part.len());
                at = at.add(part.len());
            }
        }
        self.ring.describe(chain, self.ring.header_len + len, 0);
        self.ring.post(chain);
        Ok(())
    }

    /// Fills every buffer with the same frame, for [`send_again`](Self::send_again). The device
    /// must have completed all frames sent, and `reclaim` must have taken them back.
    ///
    /// # Errors
    /// The frame is longer than a buffer, or the device still has buffers.
    pub fn prepare(&mut self, header: &[u8; HEADER_LEN], frame: &[u8]) -> Result<(), DriverError> {
        if frame.len() > self.ring.options.buffer_size - self.ring.header_len {
            return Err(DriverError::TooLarge(frame.len()));
        }
        let chains = self.ring.options.chains();
        if self.ring.free() != chains {
            return Err(DriverError::Options("buffers are prepared while the device has none"));
        }
        for chain in 0..chains {
            let at = self.ring.buffer(chain);
            // SAFETY: the buffer has room for header and frame.
            unsafe {
                copy_header(header_words(header), at);
                copy(frame.as_ptr(), at.add(self.ring.header_len), frame.len());
            }
            self.ring.describe(chain, self.ring.header_len + frame.len(), 0);
        }
        Ok(())
    }

    /// Prefetches the first lines of the next `frames` frames that [`send_again`](Self::send_again)
    /// will change. The device's core has read them, and each would stall on its own.
    #[inline]
    pub fn expect(&self, frames: usize) {
        let mut place = self.ring.free_first;
        for _ in 0..frames.min(self.free()) {
            let chain = self.ring.free[self.ring.entry(place)];
            prefetch_write(self.ring.buffer(chain).wrapping_add(HEADER_LEN));
            place.advance(1);
        }
    }

    /// Queues the frame in the next free buffer again (see [`prepare`](Self::prepare)), after
    /// `change` has edited it: a frame costs only the bytes written.
    ///
    /// # Errors
    /// [`DriverError::Full`]: no buffer is free.
    #[inline(always)]
    pub fn send_again(&mut self, change: impl FnOnce(&mut Queued<'_>)) -> Result<(), DriverError> {
        let ring = &mut self.ring;
        let chain = ring.pop_free().ok_or(DriverError::Full)?;
        let len = (ring.described[usize::from(chain)] as usize).saturating_sub(ring.header_len);
        let at = ring.buffer(chain).wrapping_add(ring.header_len);
        change(&mut Queued { at, len, _ring: PhantomData });
        ring.post(chain);
        Ok(())
    }

    /// Makes queued frames available. Returns `true` if the device wants a kick.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes back the chains that the device has completed; returns their number.
    ///
    /// # Errors
    /// The device violated the ring protocol.
    pub fn reclaim(&mut self) -> Result<usize, DriverError> {
        let waiting = self.ring.refresh_used()?;
        self.ring.prefetch_used(waiting);
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

    /// Takes back every chain up to `last`, all completed by one used element (virtio 1.2, section
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

    /// Returns how many frames `send` takes before the ring is full.
    pub fn free(&self) -> usize {
        usize::from(self.ring.free())
    }

    /// Declares that no calls are wanted.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Requests a call. Returns `true` if there is something to reclaim already.
    #[must_use = "a chain that is used already may never be called for"]
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }
}

/// A queued frame in its buffer.
pub struct Queued<'a> {
    at: *mut u8,
    len: usize,
    _ring: PhantomData<&'a mut DriverTx>,
}

impl Queued<'_> {
    /// Overwrites the `N` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not all within the frame.
    #[inline(always)]
    pub fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        assert!(N <= self.len && offset <= self.len - N, "{offset} + {N} of {}", self.len);
        // SAFETY: len bytes are writable at `at`, a buffer that the device does not have.
        unsafe { self.at.add(offset).cast::<[u8; N]>().write_unaligned(bytes) };
    }
}

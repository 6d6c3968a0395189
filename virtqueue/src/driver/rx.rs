//! Driver side of a receive ring.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{DriverError, DriverMemory, DriverOptions, DriverRing, RingAddresses};
use crate::copy::{copy, prefetch};
use crate::memory::GuestMemory;
use crate::ring::{DESC_WRITE, HEADER_LEN, MAX_BURST, RingSetup};

/// A received frame, read in place.
#[derive(Clone, Copy, Debug)]
pub struct InPlace<'a> {
    /// Its virtio-net header.
    pub header: [u8; HEADER_LEN],
    /// Its bytes, without the header.
    pub frame: &'a [u8],
}

/// Driver side of a receive ring: [`refill`](Self::refill) gives buffers, [`recv`](Self::recv)
/// takes frames.
pub struct DriverRx {
    ring: DriverRing,
}

impl DriverRx {
    /// Lays a ring out in `memory`. The device has no buffers before the first `refill`.
    ///
    /// # Errors
    /// The options contradict each other, or `memory` has no room for the ring.
    pub fn new(memory: &Arc<DriverMemory>, options: DriverOptions) -> Result<Self, DriverError> {
        let mut ring = DriverRing::new(memory, options)?;
        for chain in 0..options.chains() {
            ring.describe(chain, options.buffer_size, DESC_WRITE);
        }
        Ok(DriverRx { ring })
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

    /// Gives all free buffers to the device. Returns `true` if it wants a kick.
    pub fn refill(&mut self) -> bool {
        while let Some(chain) = self.ring.pop_free() {
            self.ring.post(chain);
        }
        self.ring.publish()
    }

    /// Takes one received frame into `frame` (cleared first) and returns its header, or `None` if
    /// no frame waits. The num_buffers that a short header leaves out is 1.
    ///
    /// # Errors
    /// The device violated the ring protocol.
    pub fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<[u8; HEADER_LEN]>, DriverError> {
        frame.clear();
        // SAFETY: a chain that the device has given back, to its length.
        self.take(|bytes, len| unsafe { append(frame, bytes, len) })
    }

    /// Takes one received frame and returns its header and its bytes, or `None` if no frame waits.
    /// The bytes lie in the ring's memory, or in `scratch` if they are not contiguous there. Only
    /// for a device that is trusted not to write to buffers it has given back.
    ///
    /// # Errors
    /// The device violated the ring protocol.
    pub fn recv_in_place<'a>(
        &'a mut self,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<InPlace<'a>>, DriverError> {
        scratch.clear();
        let (mut at, mut whole) = (std::ptr::null(), 0);
        let header = self.take(|bytes, len| {
            if whole == 0 {
                at = bytes;
            }
            if scratch.is_empty() && bytes == at.wrapping_add(whole) {
                whole += len;
                return;
            }
            // SAFETY: chains that the device has given back, to their lengths.
            unsafe {
                if scratch.is_empty() {
                    append(scratch, at, whole);
                }
                append(scratch, bytes, len);
            }
        })?;
        let Some(header) = header else { return Ok(None) };
        if !scratch.is_empty() || whole == 0 {
            return Ok(Some(InPlace { header, frame: scratch }));
        }
        // SAFETY: `whole` bytes from `at` on are those of chains that the device has given back. It
        // gets them again at the next `refill`, which the borrow of `self` prevents. The device is
        // trusted not to write there meanwhile (see above).
        let frame = unsafe { std::slice::from_raw_parts(at, whole) };
        Ok(Some(InPlace { header, frame }))
    }

    /// Takes up to `max` received frames without reading their bytes; returns their number.
    ///
    /// # Errors
    /// The device violated the ring protocol.
    pub fn discard(&mut self, max: usize) -> Result<usize, DriverError> {
        let mut count = 0;
        while count < max && self.take(|_, _| ())?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Reads the used index once and passes each frame found, `max` at most, to `frame`, which
    /// reads what it needs: nothing is copied. Returns the number of frames.
    ///
    /// # Errors
    /// The device violated the ring protocol.
    #[inline]
    pub fn recv_each(
        &mut self,
        max: usize,
        mut frame: impl FnMut(&Received<'_>),
    ) -> Result<usize, DriverError> {
        if self.ring.used == self.ring.seen {
            self.ring.refresh_used()?;
        }
        let (mut count, mut prefetched) = (0, 0);
        while count < max && self.ring.used != self.ring.seen {
            if prefetched == 0 {
                prefetched = self.prefetch_frames(max - count);
            }
            prefetched -= 1;
            let (mut first, mut len) = (None, 0);
            let header = self.take(|bytes, n| {
                first.get_or_insert((bytes, n));
                len += n;
            })?;
            let (Some(header), Some((at, readable))) = (header, first) else { break };
            frame(&Received { header, at, readable, len, _ring: PhantomData });
            count += 1;
        }
        Ok(count)
    }

    /// Prefetches the first lines of the next frames, for at most `max` buffers and one burst: the
    /// device's core has written them. Returns the number of frames, at least one. No decision
    /// depends on these reads: the elements are read again and checked in their turn.
    #[inline(always)]
    fn prefetch_frames(&self, max: usize) -> u16 {
        let ring = &self.ring;
        let count = usize::from(ring.seen.since(ring.used)).min(max).min(MAX_BURST) as u16;
        ring.prefetch_used(count);
        let mut index = ring.used;
        for _ in 0..count {
            if let Some(chain) = ring.predicted_chain(index) {
                prefetch(ring.buffer(chain).wrapping_add(HEADER_LEN));
            }
            index.advance(1);
        }
        count.max(1)
    }

    /// Returns the number of buffers that `refill` would give to the device.
    pub fn free(&self) -> usize {
        usize::from(self.ring.free())
    }

    /// Takes one frame and passes on its bytes buffer by buffer.
    #[inline(always)]
    fn take(
        &mut self,
        mut chunk: impl FnMut(*const u8, usize),
    ) -> Result<Option<[u8; HEADER_LEN]>, DriverError> {
        let ring = &mut self.ring;
        if ring.used == ring.seen && ring.refresh_used()? == 0 {
            return Ok(None);
        }
        let (buffer, len) = Self::next_buffer(ring)?;
        let len = len
            .checked_sub(ring.header_len)
            .ok_or(DriverError::Device("wrote less than a header"))?;
        // SAFETY: a buffer is longer than a header, and the device has given it back.
        let mut header = unsafe { buffer.cast::<[u8; HEADER_LEN]>().read_unaligned() };
        if ring.options.features.short_header {
            header[ring.header_len..].copy_from_slice(&1u16.to_le_bytes());
        }
        chunk(buffer.wrapping_add(ring.header_len), len);
        let buffers = u16::from_le_bytes([header[10], header[11]]);
        if ring.options.features.mergeable && buffers != 1 {
            let more = buffers.checked_sub(1).unwrap_or(u16::MAX);
            if more > ring.seen.since(ring.used) && more > ring.refresh_used()? {
                return Err(DriverError::Device("published a frame in part"));
            }
            for _ in 0..more {
                let (buffer, len) = Self::next_buffer(ring)?;
                chunk(buffer, len);
            }
        }
        Ok(Some(header))
    }

    /// Takes the next used chain: its buffer and the number of bytes written there. The buffer
    /// stays unchanged until the next `refill`.
    #[inline(always)]
    fn next_buffer(ring: &mut DriverRing) -> Result<(*const u8, usize), DriverError> {
        let (id, len) = ring.raw.read_used(ring.used.get());
        let chain = ring.chain(id)?;
        let len = len as usize;
        if len > ring.options.buffer_size {
            return Err(DriverError::Device("wrote more than a buffer holds"));
        }
        ring.push_free(chain);
        ring.used.advance(1);
        Ok((ring.buffer(chain).cast_const(), len))
    }

    /// Declares that no calls are wanted.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Requests a call. Returns `true` if a frame waits already.
    #[must_use = "a frame that waits already may never be called for"]
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }
}

/// Appends `len` bytes to `frame`.
///
/// # Safety
/// `len` bytes are readable at `bytes`.
#[inline(always)]
unsafe fn append(frame: &mut Vec<u8>, bytes: *const u8, len: usize) {
    frame.reserve(len);
    // SAFETY: as the caller promises; they are reserved after the vector's end.
    unsafe {
        copy(bytes, frame.as_mut_ptr().add(frame.len()), len);
        frame.set_len(frame.len() + len);
    }
}

/// A received frame in its buffers, given back by the device.
pub struct Received<'a> {
    header: [u8; HEADER_LEN],
    at: *const u8,
    /// Bytes of the frame in the first buffer.
    readable: usize,
    len: usize,
    _ring: PhantomData<&'a DriverRx>,
}

impl Received<'_> {
    /// Returns the virtio-net header.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// Returns the length of the frame.
    #[inline(always)]
    pub fn frame_len(&self) -> usize {
        self.len
    }

    /// Returns the `N` bytes at `offset`, or `None` if they are not all in the frame's first
    /// buffer.
    #[inline(always)]
    pub fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        // SAFETY: `readable` bytes are readable at `at`. Whatever a faulty device may still write
        // there is a valid byte.
        (end <= self.readable)
            .then(|| unsafe { self.at.add(offset).cast::<[u8; N]>().read_unaligned() })
    }
}

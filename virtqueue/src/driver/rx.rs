//! Driver side of a receive ring.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{DriverError, DriverMemory, DriverOptions, DriverRing, RingAddresses};
use crate::copy::{copy, prefetch};
use crate::memory::GuestMemory;
use crate::ring::{DESC_WRITE, HEADER_LEN, MAX_BURST, RingSetup};

/// The virtio-net header of a frame, and the frame.
pub type InPlace<'a> = ([u8; HEADER_LEN], &'a [u8]);

/// Driver side of a receive ring: [`refill`](Self::refill) gives buffers, [`recv`](Self::recv)
/// takes frames.
pub struct DriverRx {
    ring: DriverRing,
}

impl DriverRx {
    /// Lays a ring out in `memory`. The device has no buffers before the first `refill`.
    pub fn new(memory: &Arc<DriverMemory>, options: DriverOptions) -> Result<Self, DriverError> {
        let mut ring = DriverRing::new(memory, options)?;
        for chain in 0..options.chains() {
            ring.describe(chain, options.buffer_size, DESC_WRITE);
        }
        Ok(DriverRx { ring })
    }

    /// Where the ring is.
    pub fn addresses(&self) -> RingAddresses {
        self.ring.addresses
    }

    /// What a device needs to run the ring in `memory`, a map of [`DriverMemory::spec`].
    pub fn setup(&self, memory: Arc<GuestMemory>) -> RingSetup {
        self.ring.setup(memory)
    }

    /// Gives all free buffers to the device; true: it wants a kick.
    pub fn refill(&mut self) -> bool {
        while let Some(chain) = self.ring.pop_free() {
            self.ring.post(chain);
        }
        self.ring.publish()
    }

    /// Takes one received frame into `frame` (cleared first) and returns its header, with the
    /// num_buffers of 1 that a short one leaves out; `None` if there is none.
    pub fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<[u8; HEADER_LEN]>, DriverError> {
        frame.clear();
        // SAFETY: a chain that the device has given back, to its length.
        self.take(|bytes, len| unsafe { append(frame, bytes, len) })
    }

    /// Takes one received frame and returns its header and its bytes, `None` if there is none. The
    /// bytes are those in the ring's memory, or a copy in `spare` where they are not in one piece
    /// there. Only for a device that is trusted to leave alone what it has given back.
    pub fn recv_in_place<'a>(
        &'a mut self,
        spare: &'a mut Vec<u8>,
    ) -> Result<Option<InPlace<'a>>, DriverError> {
        spare.clear();
        let (mut at, mut whole) = (std::ptr::null(), 0);
        let header = self.take(|bytes, len| {
            if whole == 0 {
                at = bytes;
            }
            if spare.is_empty() && bytes == at.wrapping_add(whole) {
                whole += len;
                return;
            }
            // SAFETY: chains that the device has given back, to their lengths.
            unsafe {
                if spare.is_empty() {
                    append(spare, at, whole);
                }
                append(spare, bytes, len);
            }
        })?;
        let Some(header) = header else { return Ok(None) };
        if !spare.is_empty() || whole == 0 {
            return Ok(Some((header, spare)));
        }
        // SAFETY: `whole` bytes from `at` on are those of chains that the device has given back,
        // and gets again at the next `refill`, which the borrow of `self` keeps away. What a faulty
        // device writes there meanwhile are other bytes, of which anything may be expected.
        Ok(Some((header, unsafe { std::slice::from_raw_parts(at, whole) })))
    }

    /// Takes up to `max` received frames without looking at their bytes; returns their number.
    pub fn discard(&mut self, max: usize) -> Result<usize, DriverError> {
        let mut count = 0;
        while count < max && self.take(|_, _| ())?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Looks at the ring once and hands each frame found there, `max` at most, to `frame`, which
    /// reads of it what it wants: nothing is copied. Returns their number.
    #[inline]
    pub fn recv_each(
        &mut self,
        max: usize,
        mut frame: impl FnMut(&Received<'_>),
    ) -> Result<usize, DriverError> {
        if self.ring.used == self.ring.seen {
            self.ring.look()?;
        }
        let (mut count, mut asked) = (0, 0);
        while count < max && self.ring.used != self.ring.seen {
            if asked == 0 {
                asked = self.ask(max - count);
            }
            asked -= 1;
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

    /// Asks for the lines that the next frames begin in, of `max` buffers and a burst at most: the
    /// device's core has written them. Returns for how many it did, one at least. What is read here
    /// decides nothing else: the elements are read again, and checked, when it is their turn.
    #[inline(always)]
    fn ask(&self, max: usize) -> u16 {
        let ring = &self.ring;
        let count = usize::from(ring.seen.since(ring.used)).min(max).min(MAX_BURST) as u16;
        ring.will_read_used(count);
        let mut index = ring.used;
        for _ in 0..count {
            if let Some(chain) = ring.likely_chain(index) {
                prefetch(ring.buffer(chain).wrapping_add(HEADER_LEN));
            }
            index.advance(1);
        }
        count.max(1)
    }

    /// Buffers that the device does not have, and that `refill` would give it.
    pub fn free(&self) -> usize {
        usize::from(self.ring.free())
    }

    /// Takes one frame, whose bytes it hands on piece by piece.
    #[inline(always)]
    fn take(
        &mut self,
        mut piece: impl FnMut(*const u8, usize),
    ) -> Result<Option<[u8; HEADER_LEN]>, DriverError> {
        let ring = &mut self.ring;
        if ring.used == ring.seen && ring.look()? == 0 {
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
        piece(buffer.wrapping_add(ring.header_len), len);
        let buffers = u16::from_le_bytes([header[10], header[11]]);
        if ring.options.features.mergeable && buffers != 1 {
            let more = buffers.checked_sub(1).unwrap_or(u16::MAX);
            if more > ring.seen.since(ring.used) && more > ring.look()? {
                return Err(DriverError::Device("published a frame in part"));
            }
            for _ in 0..more {
                let (buffer, len) = Self::next_buffer(ring)?;
                piece(buffer, len);
            }
        }
        Ok(Some(header))
    }

    /// Takes the next used chain: its buffer and the bytes written there. The buffer stays as it is
    /// until the next `refill`.
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

    /// No calls wanted.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Calls wanted; true: a frame is waiting already.
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }
}

/// Copies `len` bytes to the end of `frame`.
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

/// A received frame in its buffers, which the device has given back.
pub struct Received<'a> {
    header: [u8; HEADER_LEN],
    at: *const u8,
    /// Bytes of the frame in the first buffer.
    readable: usize,
    len: usize,
    _ring: PhantomData<&'a DriverRx>,
}

impl Received<'_> {
    /// The virtio-net header.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub fn frame_len(&self) -> usize {
        self.len
    }

    /// The `N` bytes at `offset`; none unless all of them are in the frame's first buffer.
    #[inline(always)]
    pub fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        // SAFETY: `readable` bytes are readable at `at`. What a faulty device may still write there
        // is read as bytes and nothing else.
        (end <= self.readable)
            .then(|| unsafe { self.at.add(offset).cast::<[u8; N]>().read_unaligned() })
    }
}

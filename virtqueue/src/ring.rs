//! The parts of a split virtqueue in shared memory (virtio 1.2, section 2.7).
//!
//! [`RawRing`] is three checked pointers and the accessors of each field. The other side shares its
//! memory, so every accessor reads or writes a field exactly once. Indices order all other accesses
//! and are atomics; everything else is plain words. References to atomics are the only ones formed
//! over this memory: the standard library has atomic access in no other form, and an atomic may
//! change under its reference.

use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::dirty_log::DirtyLog;
use crate::error::RingError;
use crate::memory::GuestMemory;

/// Bytes of the virtio-net header in front of each frame (`struct virtio_net_hdr_v1`; virtio 1.2,
/// section 5.1.6).
pub const HEADER_LEN: usize = 12;

/// Bytes of the header without its last field, `num_buffers` ([`RingFeatures::short_header`]).
const SHORT_HEADER_LEN: usize = 10;

/// Most frames handled in one pass.
pub const MAX_BURST: usize = 64;

/// Largest queue size of a split virtqueue.
pub(crate) const MAX_SIZE: u16 = 32768;

/// VIRTQ_DESC_F_NEXT: the chain continues at `next`.
pub(crate) const DESC_NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the buffer is device-writable.
pub(crate) const DESC_WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors.
pub(crate) const DESC_INDIRECT: u16 = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY.
pub(crate) const NO_NOTIFICATION: u16 = 1;

/// The negotiated features that change how a ring works.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_EVENT_IDX: notifications are requested by index instead of by flag.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC: a descriptor may point to a table of descriptors.
    pub indirect: bool,
    /// VIRTIO_F_IN_ORDER: buffers are used in the order in which they were made available.
    pub in_order: bool,
    /// VIRTIO_NET_F_MRG_RXBUF: a received frame may fill several chains.
    pub mergeable: bool,
    /// Neither VIRTIO_F_VERSION_1 nor VIRTIO_NET_F_MRG_RXBUF: headers have no `num_buffers` (virtio
    /// 1.2, section 5.1.6.1). Has no effect on a ring that is `mergeable`.
    pub short_header: bool,
}

impl RingFeatures {
    /// Returns the length of the header in front of each frame: 12 bytes, or 10 if it is short.
    pub const fn header_len(self) -> usize {
        if self.short_header && !self.mergeable { SHORT_HEADER_LEN } else { HEADER_LEN }
    }
}

/// Bytes of the used ring in front of its elements: flags and index.
pub(crate) const USED_HEAD: usize = 4;
/// Bytes of a used element.
pub(crate) const USED_ELEMENT: usize = 8;
/// Used elements in a cache line.
pub(crate) const USED_PER_LINE: usize = 8;
/// Descriptors in a cache line.
pub(crate) const DESC_PER_LINE: usize = 4;

/// The notification descriptors of one ring.
#[derive(Debug, Default)]
pub struct RingFds {
    /// Written by the driver after it has made buffers available; `None` if the ring is polled.
    pub kick: Option<OwnedFd>,
    /// Written by the device after it has used buffers; `None` if the driver polls.
    pub call: Option<OwnedFd>,
}

/// Location and progress of a ring.
#[derive(Clone, Debug)]
pub struct RingSetup {
    /// Queue size: a power of two from 2 to 32768.
    pub size: u16,
    /// Descriptor table, a frontend-virtual address; multiple of 16.
    pub desc: u64,
    /// Available (driver) ring, frontend-virtual; multiple of 2.
    pub avail: u64,
    /// Used (device) ring, frontend-virtual; multiple of 4.
    pub used: u64,
    /// Available index to take next; also the used index to continue from.
    pub next: u16,
    /// The negotiated features.
    pub features: RingFeatures,
    /// The frontend's memory.
    pub memory: Arc<GuestMemory>,
    /// Where the device's writes are logged; `None` if they are not.
    pub log: Option<LogAt>,
}

/// The log of a ring.
#[derive(Clone, Debug)]
pub struct LogAt {
    /// The frontend's log.
    pub log: Arc<DirtyLog>,
    /// The used ring's address in it; `None` for its guest-physical address.
    pub used: Option<u64>,
}

impl RingSetup {
    /// Returns the same ring, continuing from the used index in its memory.
    ///
    /// After the device side died, its frontend may not know the last index: DPDK's virtio-user
    /// says 0. Completion is in order, so the used index alone says what is done; after a clean
    /// stop both agree and nothing changes. A driver that writes a false used index garbles only
    /// its own ring. An unusable setup stays as it is; the ring's constructor refuses it.
    #[must_use]
    pub fn resumed_from_used(mut self) -> RingSetup {
        if let Ok(raw) = RawRing::resolve(&self) {
            self.next = raw.used_idx();
        }
        self
    }

    /// Returns whether the descriptors and the available ring read as zeros, which means that no
    /// driver has made a buffer available yet. An unusable setup is not blank.
    pub fn is_blank(&self) -> bool {
        const NONE: Descriptor = Descriptor { addr: 0, len: 0, flags: 0, next: 0 };
        RawRing::resolve(self).is_ok_and(|raw| {
            let is_unused = |i| raw.read_desc(i) == NONE && raw.read_head(i) == 0;
            raw.avail_idx() == 0 && (0..raw.size()).all(is_unused)
        })
    }
}

/// Returns the size of each part of a ring of `size`: descriptor table, available ring, used ring.
/// The last two end with an event index if EVENT_IDX is negotiated.
pub(crate) fn part_sizes(size: u16, event_idx: bool) -> [u32; 3] {
    let (size, event) = (u32::from(size), 2 * u32::from(event_idx));
    [16 * size, 4 + 2 * size + event, 4 + 8 * size + event]
}

/// Checks that a split virtqueue can have this size.
pub(crate) fn check_size(size: u16) -> Result<(), RingError> {
    let valid = size.is_power_of_two() && (2..=MAX_SIZE).contains(&size);
    valid.then_some(()).ok_or(RingError::QueueSize(size))
}

/// A private copy of a descriptor; later changes of the table do not affect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    #[inline(always)]
    fn from_words(addr: u64, rest: u64) -> Descriptor {
        let rest = u64::from_le(rest);
        Descriptor {
            addr: u64::from_le(addr),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }

    /// Reads the descriptor at `at`, each word once.
    ///
    /// # Safety
    /// 16 bytes are readable there, aligned to 8.
    #[inline(always)]
    unsafe fn read(at: *const u8) -> Descriptor {
        let words = at.cast::<u64>();
        // SAFETY: as the caller promises.
        unsafe { Descriptor::from_words(words.read_volatile(), words.add(1).read_volatile()) }
    }

    /// Reads the descriptor at `at`, which may be unaligned: virtio requires no alignment of an
    /// indirect table.
    ///
    /// # Safety
    /// 16 bytes are readable there.
    pub(crate) unsafe fn read_unaligned(at: *const u8) -> Descriptor {
        if at.addr().is_multiple_of(8) {
            // SAFETY: readable as the caller promises, and aligned.
            return unsafe { Self::read(at) };
        }
        // SAFETY: i is below the 16 readable bytes.
        let bytes: [u8; 16] = std::array::from_fn(|i| unsafe { at.add(i).read_volatile() });
        let word = |at: usize| std::array::from_fn(|i| bytes[at + i]);
        Descriptor::from_words(u64::from_ne_bytes(word(0)), u64::from_ne_bytes(word(8)))
    }

    /// Writes the descriptor at `at`.
    ///
    /// # Safety
    /// 16 bytes are writable there, aligned to 8.
    #[inline(always)]
    pub(crate) unsafe fn write(self, at: *mut u8) {
        let rest = u64::from(self.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48;
        // SAFETY: as the caller promises.
        unsafe {
            at.cast::<u64>().write(self.addr.to_le());
            at.cast::<u64>().add(1).write(rest.to_le());
        }
    }
}

/// Checked pointers to the parts of one ring. The holder keeps the memory mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRing {
    desc: *mut u8,
    avail: *mut u8,
    used: *mut u8,
    size: u16,
}

impl RawRing {
    /// Resolves a ring in the frontend's memory.
    pub(crate) fn resolve(setup: &RingSetup) -> Result<RawRing, RingError> {
        check_size(setup.size)?;
        let [desc_len, avail_len, used_len] = part_sizes(setup.size, setup.features.event_idx);
        let part = |address: u64, len: u32, align: u64| {
            if !address.is_multiple_of(align) {
                return Err(RingError::Misaligned(address));
            }
            setup.memory.user_range(address, len).ok_or(RingError::RingAddress(address))
        };
        // Regions are page-aligned in both address spaces, so an aligned address gives an aligned
        // pointer.
        Ok(RawRing {
            desc: part(setup.desc, desc_len, 16)?,
            avail: part(setup.avail, avail_len, 2)?,
            used: part(setup.used, used_len, 4)?,
            size: setup.size,
        })
    }

    /// Makes a ring from known pointers.
    ///
    /// # Safety
    /// The parts are mapped, writable and aligned as in [`Self::resolve`] for as long as the value
    /// and its copies are used; `size` is valid.
    pub(crate) unsafe fn at(desc: *mut u8, avail: *mut u8, used: *mut u8, size: u16) -> RawRing {
        RawRing { desc, avail, used, size }
    }

    #[inline(always)]
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Returns a pointer to the descriptor table.
    #[inline(always)]
    pub(crate) fn desc(&self) -> *mut u8 {
        self.desc
    }

    /// Reads a descriptor of the table; `index` must be below the size.
    #[inline(always)]
    pub(crate) fn read_desc(&self, index: u16) -> Descriptor {
        debug_assert!(index < self.size);
        // SAFETY: index < size descriptors of 16 bytes.
        unsafe { Descriptor::read(self.desc.add(16 * usize::from(index & (self.size - 1)))) }
    }

    /// Writes a descriptor of the table; `index` must be below the size.
    #[inline(always)]
    pub(crate) fn write_desc(&self, index: u16, descriptor: Descriptor) {
        debug_assert!(index < self.size);
        // SAFETY: index < size descriptors of 16 bytes; the table is aligned to 16.
        unsafe { descriptor.write(self.desc.add(16 * usize::from(index & (self.size - 1)))) }
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Returns the offset of the available ring's event index (`used_event`).
    #[inline(always)]
    fn avail_end(&self) -> usize {
        4 + 2 * usize::from(self.size)
    }

    /// Returns the offset of the used ring's event index (`avail_event`).
    #[inline(always)]
    pub(crate) fn used_end(&self) -> usize {
        4 + 8 * usize::from(self.size)
    }

    /// Reads the head at free-running index `index` of the available ring.
    #[inline(always)]
    pub(crate) fn read_head(&self, index: u16) -> u16 {
        // SAFETY: a slot is below the size; entries are aligned to 2.
        let head =
            unsafe { self.avail.add(4 + 2 * self.slot(index)).cast::<u16>().read_volatile() };
        u16::from_le(head)
    }

    /// Writes the head at free-running index `index` of the available ring.
    #[inline(always)]
    pub(crate) fn write_head(&self, index: u16, head: u16) {
        // SAFETY: as for read_head.
        unsafe { self.avail.add(4 + 2 * self.slot(index)).cast::<u16>().write(head.to_le()) }
    }

    /// Reads the used element (id, length) at free-running index `index`.
    #[inline(always)]
    pub(crate) fn read_used(&self, index: u16) -> (u32, u32) {
        // SAFETY: a slot is below the size; elements are aligned to 4.
        unsafe {
            let at = self.used.add(4 + 8 * self.slot(index)).cast::<u32>();
            (u32::from_le(at.read_volatile()), u32::from_le(at.add(1).read_volatile()))
        }
    }

    /// Writes the used element at free-running index `index`.
    #[inline(always)]
    pub(crate) fn write_used(&self, index: u16, id: u16, len: u32) {
        let element = u64::from(id) | u64::from(len) << 32;
        // SAFETY: a slot is below the size; elements are aligned to 4 only, hence unaligned.
        unsafe {
            let at = self.used.add(4 + 8 * self.slot(index)).cast::<u64>();
            ptr::write_unaligned(at, element.to_le());
        }
    }

    /// Returns a pointer to the used element at free-running index `index`.
    #[inline(always)]
    pub(crate) fn used_at(&self, index: u16) -> *const u8 {
        self.used.wrapping_add(4 + 8 * self.slot(index))
    }

    /// Returns a pointer to the descriptor at `index`, which must be below the size.
    #[inline(always)]
    pub(crate) fn desc_at(&self, index: u16) -> *const u8 {
        self.desc.wrapping_add(16 * usize::from(index & (self.size - 1)))
    }

    /// Returns an index or flag field of the ring.
    ///
    /// # Safety
    /// `at` is in the available or used ring and aligned to 2; the reference must not outlive the
    /// mapping.
    #[inline(always)]
    unsafe fn field<'a>(at: *mut u8) -> &'a AtomicU16 {
        // SAFETY: mapped and aligned as the caller promises; both sides of a ring access these
        // fields as single aligned words.
        unsafe { AtomicU16::from_ptr(at.cast()) }
    }

    #[inline(always)]
    fn load(at: *mut u8, order: Ordering) -> u16 {
        // SAFETY: only called below, with fields of the two rings.
        u16::from_le(unsafe { Self::field(at) }.load(order))
    }

    #[inline(always)]
    fn store(at: *mut u8, value: u16, order: Ordering) {
        // SAFETY: only called below, with fields of the two rings.
        unsafe { Self::field(at) }.store(value.to_le(), order);
    }

    /// Reads `avail.flags`.
    #[inline(always)]
    pub(crate) fn avail_flags(&self) -> u16 {
        Self::load(self.avail, Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_avail_flags(&self, flags: u16) {
        Self::store(self.avail, flags, Ordering::Relaxed);
    }

    /// Reads `avail.idx`; what the driver wrote before it is visible afterwards.
    #[inline(always)]
    pub(crate) fn avail_idx(&self) -> u16 {
        Self::load(self.avail.wrapping_add(2), Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn set_avail_idx(&self, index: u16) {
        Self::store(self.avail.wrapping_add(2), index, Ordering::Release);
    }

    /// Reads `used_event`: the driver wants a call once the used index passes it.
    #[inline(always)]
    pub(crate) fn used_event(&self) -> u16 {
        Self::load(self.avail.wrapping_add(self.avail_end()), Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_used_event(&self, index: u16) {
        Self::store(self.avail.wrapping_add(self.avail_end()), index, Ordering::Relaxed);
    }

    /// Reads `used.flags`.
    #[inline(always)]
    pub(crate) fn used_flags(&self) -> u16 {
        Self::load(self.used, Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_used_flags(&self, flags: u16) {
        Self::store(self.used, flags, Ordering::Relaxed);
    }

    /// Reads `used.idx`; what the device wrote before it is visible afterwards.
    #[inline(always)]
    pub(crate) fn used_idx(&self) -> u16 {
        Self::load(self.used.wrapping_add(2), Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn set_used_idx(&self, index: u16) {
        Self::store(self.used.wrapping_add(2), index, Ordering::Release);
    }

    /// Reads `avail_event`: the device wants a kick once the available index passes it.
    #[inline(always)]
    pub(crate) fn avail_event(&self) -> u16 {
        Self::load(self.used.wrapping_add(self.used_end()), Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_avail_event(&self, index: u16) {
        Self::store(self.used.wrapping_add(self.used_end()), index, Ordering::Relaxed);
    }
}

/// A free-running 16-bit index, kept in 32 bits. Compilers read a 16-bit field with a 32-bit load
/// if bytes follow it, and such a load stalls behind the 16-bit store of the previous frame: 17 of
/// 43 cycles per frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index(u32);

impl Index {
    #[inline(always)]
    pub(crate) fn new(value: u16) -> Index {
        Index(u32::from(value))
    }

    #[inline(always)]
    pub(crate) fn get(self) -> u16 {
        self.0 as u16
    }

    /// Returns the index `steps` further on.
    #[inline(always)]
    pub(crate) fn advance(&mut self, steps: u16) {
        *self = Index::new(self.get().wrapping_add(steps));
    }

    /// Returns the number of steps from `earlier` to this index.
    #[inline(always)]
    pub(crate) fn since(self, earlier: Index) -> u16 {
        self.get().wrapping_sub(earlier.get())
    }
}

/// Returns whether the step from `old` to `new` passed the index at which the other side wants a
/// notification (`vring_need_event`; virtio 1.2, sections 2.7.7.1 and 2.7.10.1).
#[inline(always)]
pub(crate) fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

//! Driver side of a split virtqueue, in its own memory: for gateways, tests and benchmarks.
//!
//! A queue is divided into *chains*. Each keeps its descriptors and its buffer, and is either free
//! or with the device. [`ChainShape`] says how a chain's buffer, which is contiguous, is laid out
//! over its descriptors. Free chains are reused first in, first out, as IN_ORDER requires.

mod memory;
mod rx;
mod tx;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use thiserror::Error;

pub use memory::DriverMemory;
pub use rx::{DriverRx, InPlace, Received};
pub use tx::{DriverTx, Queued};

use crate::copy::prefetch;
use crate::memory::GuestMemory;
use crate::ring::{
    DESC_INDIRECT, DESC_NEXT, Descriptor, HEADER_LEN, Index, NO_NOTIFICATION, RawRing,
    RingFeatures, RingSetup, USED_PER_LINE, check_size, part_sizes, passed,
};
use memory::Allocation;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Offset of buffers in their first cache line, so that each frame starts at the next one. A frame
/// of 64 bytes is one line, and the header's line, which seldom changes, stays with both sides.
const BUFFER_START: usize = LINE - HEADER_LEN;

/// How a driver lays a frame out over descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainShape {
    /// Header and frame in one descriptor.
    Single,
    /// Header and frame in one descriptor each.
    HeaderSplit,
    /// The header in one descriptor, the frame over up to `n - 1` more.
    Scattered(u16),
    /// The same as `Scattered`, in an indirect table. `Indirect(1)` has header and frame in one
    /// descriptor.
    Indirect(u16),
}

impl ChainShape {
    /// Returns the number of descriptors of one chain.
    fn descriptors(self) -> u16 {
        match self {
            ChainShape::Single => 1,
            ChainShape::HeaderSplit => 2,
            ChainShape::Scattered(n) | ChainShape::Indirect(n) => n,
        }
    }

    /// Returns how many entries of the ring's own table one chain takes.
    fn stride(self) -> u16 {
        match self {
            ChainShape::Indirect(_) => 1,
            _ => self.descriptors(),
        }
    }
}

/// Options of one driver queue.
#[derive(Clone, Copy, Debug)]
pub struct DriverOptions {
    /// Queue size: a power of two from 2 to 32768.
    pub size: u16,
    /// The negotiated features.
    pub features: RingFeatures,
    /// Layout of each chain.
    pub shape: ChainShape,
    /// Bytes of one chain's buffer, header included. Buffers of an odd number of 64 bytes follow
    /// each other without a gap, so that a frame over several of them can be read in place.
    pub buffer_size: usize,
}

impl DriverOptions {
    /// Returns the bytes of [`DriverMemory`] that one queue takes.
    pub fn memory_size(&self) -> usize {
        let parts = part_sizes(self.size, true).map(|size| size as usize);
        let sizes = [parts[0], parts[1], parts[2], self.tables_size(), self.buffers_size()];
        sizes.iter().map(|size| size.next_multiple_of(4096)).sum()
    }

    fn chains(&self) -> u16 {
        self.size / self.shape.stride().max(1)
    }

    /// Returns the bytes from one buffer to the next: an odd number of cache lines, since with a
    /// power of two all frames would begin in the same few cache sets.
    fn buffer_stride(&self) -> usize {
        (self.buffer_size.div_ceil(LINE) | 1) * LINE
    }

    fn buffers_size(&self) -> usize {
        BUFFER_START + usize::from(self.chains()) * self.buffer_stride()
    }

    /// Returns at least one byte, since a part of the memory is never empty.
    fn tables_size(&self) -> usize {
        match self.shape {
            ChainShape::Indirect(n) => 16 * usize::from(n) * usize::from(self.chains()),
            _ => 1,
        }
    }

    fn check(&self) -> Result<(), DriverError> {
        check_size(self.size)
            .map_err(|_| DriverError::Options("its size is not a power of two from 2 to 32768"))?;
        let wrong = if self.shape.stride() == 0 || self.shape.descriptors() == 0 {
            "a chain needs a descriptor"
        } else if self.chains() == 0 {
            "a chain has more descriptors than the queue"
        } else if matches!(self.shape, ChainShape::Indirect(_)) && !self.features.indirect {
            "indirect chains need the indirect feature"
        } else if self.features.in_order && !self.size.is_multiple_of(self.shape.stride()) {
            "in order, a chain's descriptors must divide the queue size"
        } else if self.features.mergeable && self.features.short_header {
            "mergeable buffers need the long header"
        } else if self.buffer_size <= HEADER_LEN || self.buffer_size > 1 << 20 {
            "its buffers are not from 13 bytes to 1 MiB"
        } else {
            return Ok(());
        };
        Err(DriverError::Options(wrong))
    }
}

/// Returns the setup of a queue that a driver elsewhere has in this memory, for a device. Queues
/// are found in the order in which they were made. The memory is not written to.
///
/// # Errors
/// The memory has no room for such a queue.
pub fn locate(
    memory: &Arc<DriverMemory>,
    options: DriverOptions,
) -> Result<RingSetup, DriverError> {
    Ok(DriverRing::new(memory, options)?.setup(memory.map()))
}

/// An error on the driver side.
#[derive(Debug, Error)]
pub enum DriverError {
    /// The options contradict each other.
    #[error("driver queue: {0}")]
    Options(&'static str),
    /// The memory has no room left for the queue.
    #[error("driver memory has {free} bytes left, the queue needs {needed}")]
    OutOfMemory {
        /// Bytes left.
        free: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// All chains are with the device; reclaim and try again.
    #[error("all chains are with the device")]
    Full,
    /// The frame is larger than a chain's buffer.
    #[error("frame of {0} bytes is larger than a chain's buffer")]
    TooLarge(usize),
    /// The device broke the ring's rules.
    #[error("the device {0}")]
    Device(&'static str),
    /// A system call failed.
    #[error("driver memory: {0}")]
    System(#[from] io::Error),
}

/// Frontend-virtual addresses of a ring's parts (vhost-user SET_VRING_ADDR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
}

/// State common to both directions.
struct DriverRing {
    raw: RawRing,
    options: DriverOptions,
    addresses: RingAddresses,
    tables: Allocation,
    buffers: Allocation,
    /// Bytes from one buffer to the next.
    stride: usize,
    /// Bytes of the header in front of each frame. A buffer has room for more than the long one, so
    /// twelve bytes can be copied where ten are meant; the frame then overwrites the last two.
    header_len: usize,
    /// Available index to write next; visible to the device at the next publish.
    next: Index,
    /// Available index visible to the device.
    published: Index,
    /// Used index to read next.
    used: Index,
    /// `used.idx` when last read.
    seen: Index,
    /// Chains in the order in which they were posted, by available index; those between `used` and
    /// `next` are with the device. A private copy of the available ring: both begin as zeros.
    posted: Box<[u16]>,
    /// Whether a chain is with the device.
    busy: Box<[bool]>,
    /// How many bytes of its buffer each chain's descriptors describe; 0 if they are not written
    /// yet.
    described: Box<[u32]>,
    /// Free chains: a queue with as many entries as the ring, addressed by two free-running
    /// indices.
    free: Box<[u16]>,
    free_first: Index,
    free_last: Index,
    /// Keeps the pointers above valid.
    _memory: Arc<DriverMemory>,
}

// SAFETY: the pointers are into memory that `_memory` keeps mapped; a queue has one owner at a
// time.
unsafe impl Send for DriverRing {}

impl DriverRing {
    fn new(memory: &Arc<DriverMemory>, options: DriverOptions) -> Result<Self, DriverError> {
        options.check()?;
        let [desc, avail, used] = part_sizes(options.size, true).map(|size| size as usize);
        let (desc, avail, used) =
            (memory.allocate(desc)?, memory.allocate(avail)?, memory.allocate(used)?);
        let tables = memory.allocate(options.tables_size())?;
        let buffers = memory.allocate(options.buffers_size())?;
        let (chains, size) = (options.chains(), usize::from(options.size));
        Ok(DriverRing {
            // SAFETY: three page-aligned pieces of the sizes that the ring takes, kept mapped by
            // `_memory`; the size was checked.
            raw: unsafe { RawRing::at(desc.ptr, avail.ptr, used.ptr, options.size) },
            options,
            addresses: RingAddresses { desc: desc.user, avail: avail.user, used: used.user },
            tables,
            buffers,
            stride: options.buffer_stride(),
            header_len: options.features.header_len(),
            next: Index::new(0),
            published: Index::new(0),
            used: Index::new(0),
            seen: Index::new(0),
            posted: vec![0; size].into(),
            busy: vec![false; usize::from(chains)].into(),
            described: vec![0; usize::from(chains)].into(),
            free: (0..options.size).collect(),
            free_first: Index::new(0),
            free_last: Index::new(chains),
            _memory: memory.clone(),
        })
    }

    fn setup(&self, memory: Arc<GuestMemory>) -> RingSetup {
        let RingAddresses { desc, avail, used } = self.addresses;
        let DriverOptions { size, features, .. } = self.options;
        RingSetup { size, desc, avail, used, next: self.used.get(), features, memory, log: None }
    }

    #[inline(always)]
    fn entry(&self, index: Index) -> usize {
        usize::from(index.get() & (self.options.size - 1))
    }

    /// Returns the number of free chains.
    #[inline(always)]
    fn free(&self) -> u16 {
        self.free_last.since(self.free_first)
    }

    /// Returns the offset of the chain's buffer in `buffers`.
    #[inline(always)]
    fn buffer_offset(&self, chain: u16) -> usize {
        usize::from(chain) * self.stride + BUFFER_START
    }

    /// Returns a pointer to the chain's buffer.
    #[inline(always)]
    fn buffer(&self, chain: u16) -> *mut u8 {
        // SAFETY: buffers_size covers every chain.
        unsafe { self.buffers.ptr.add(self.buffer_offset(chain)) }
    }

    /// Takes a free chain.
    #[inline(always)]
    fn pop_free(&mut self) -> Option<u16> {
        if self.free() == 0 {
            return None;
        }
        let chain = self.free[self.entry(self.free_first)];
        self.free_first.advance(1);
        Some(chain)
    }

    /// Prefetches the lines of the next `count` used elements, last written by the device's core.
    #[inline(always)]
    fn prefetch_used(&self, count: u16) {
        for line in (0..count).step_by(USED_PER_LINE) {
            prefetch(self.raw.used_at(self.used.get().wrapping_add(line)));
        }
    }

    #[inline(always)]
    fn push_free(&mut self, chain: u16) {
        let entry = self.entry(self.free_last);
        self.free[entry] = chain;
        self.free_last.advance(1);
        self.busy[usize::from(chain)] = false;
    }

    /// Puts a chain on the available ring; visible to the device after `publish`. Chains return in
    /// the order in which they were posted, so the entry nearly always has the right value already,
    /// and a line that is not written stays shared with the device's core.
    #[inline(always)]
    fn post(&mut self, chain: u16) {
        let entry = self.entry(self.next);
        self.busy[usize::from(chain)] = true;
        if self.posted[entry] != chain {
            self.posted[entry] = chain;
            self.raw.write_head(self.next.get(), chain * self.options.shape.stride());
        }
        self.next.advance(1);
    }

    /// Describes the first `len` bytes of the chain's buffer, header included.
    #[inline(always)]
    fn describe(&mut self, chain: u16, len: usize, flags: u16) {
        // Skips the write as in `post`. All buffers of a ring have one direction, so comparing the
        // length suffices.
        let described = &mut self.described[usize::from(chain)];
        if std::mem::replace(described, len as u32) == len as u32 {
            return;
        }
        let addr = self.buffers.guest + self.buffer_offset(chain) as u64;
        if self.options.shape == ChainShape::Single {
            self.raw.write_desc(chain, Descriptor { addr, len: len as u32, flags, next: 0 });
        } else {
            self.describe_chain(chain, addr, len, flags);
        }
    }

    fn describe_chain(&mut self, chain: u16, addr: u64, len: usize, flags: u16) {
        let per_chain = self.options.shape.descriptors();
        let indirect = matches!(self.options.shape, ChainShape::Indirect(_));
        // Index of the chain's first descriptor in the table that its links refer to.
        let base = if indirect { 0 } else { chain * per_chain };
        let table = 16 * usize::from(per_chain) * usize::from(chain);
        let mut done = 0;
        let mut count = 0;
        while done < len {
            let part = self.descriptor_len(count).min(len - done);
            let more = if done + part < len { DESC_NEXT } else { 0 };
            let desc = Descriptor {
                addr: addr + done as u64,
                len: part as u32,
                flags: flags | more,
                next: if more == 0 { 0 } else { base + count + 1 },
            };
            if indirect {
                // SAFETY: tables_size covers every chain's table; it is aligned to 16.
                unsafe { desc.write(self.tables.ptr.add(table + 16 * usize::from(count))) };
            } else {
                self.raw.write_desc(base + count, desc);
            }
            done += part;
            count += 1;
        }
        if indirect {
            let addr = self.tables.guest + table as u64;
            let len = 16 * u32::from(count);
            self.raw.write_desc(chain, Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 });
        }
    }

    /// Returns the size of a chain's `index`th descriptor.
    fn descriptor_len(&self, index: u16) -> usize {
        match (self.options.shape.descriptors(), index) {
            (1, _) => self.options.buffer_size,
            (_, 0) => self.header_len,
            (n, _) => (self.options.buffer_size - self.header_len).div_ceil(usize::from(n - 1)),
        }
    }

    /// Makes posted chains available. Returns `true` if the device wants a kick.
    #[inline]
    fn publish(&mut self) -> bool {
        if self.next == self.published {
            return false;
        }
        self.raw.set_avail_idx(self.next.get());
        let old = std::mem::replace(&mut self.published, self.next);
        // The device stores its event index and then reads the available index; the driver does the
        // reverse. The fence ensures that one of the two sees the other's store.
        fence(Ordering::SeqCst);
        if self.options.features.event_idx {
            passed(self.raw.avail_event(), self.next.get(), old.get())
        } else {
            self.raw.used_flags() & NO_NOTIFICATION == 0
        }
    }

    /// Reads the used index; returns how many used chains were not yet taken back.
    #[inline(always)]
    fn refresh_used(&mut self) -> Result<u16, DriverError> {
        self.seen = Index::new(self.raw.used_idx());
        let waiting = self.seen.since(self.used);
        if waiting > self.published.since(self.used) {
            return Err(DriverError::Device("used chains that it was not given"));
        }
        Ok(waiting)
    }

    /// Returns the chain that the element at used index `index` would name, for prefetching.
    #[inline(always)]
    fn predicted_chain(&self, index: Index) -> Option<u16> {
        let (id, _) = self.raw.read_used(index.get());
        let (chain, _) = self.split_id(id);
        ((chain as usize) < self.busy.len()).then_some(chain as u16)
    }

    /// Returns the chain of a descriptor, and the descriptor's position in the chain.
    #[inline(always)]
    fn split_id(&self, id: u32) -> (u32, u32) {
        match u32::from(self.options.shape.stride()) {
            1 => (id, 0),
            stride => (id / stride, id % stride),
        }
    }

    /// Returns the chain that a used element names, which must be with the device.
    #[inline(always)]
    fn chain(&self, id: u32) -> Result<u16, DriverError> {
        let (chain, rest) = self.split_id(id);
        match self.busy.get(chain as usize) {
            Some(true) if rest == 0 => Ok(chain as u16),
            _ => Err(DriverError::Device("used a chain that it does not have")),
        }
    }

    fn disarm(&mut self) {
        if self.options.features.event_idx {
            self.raw.set_used_event(self.used.get().wrapping_sub(1));
        } else {
            self.raw.set_avail_flags(NO_NOTIFICATION);
        }
    }

    fn arm(&mut self) -> bool {
        if self.options.features.event_idx {
            self.raw.set_used_event(self.used.get());
        } else {
            self.raw.set_avail_flags(0);
        }
        // As in `publish`: the store comes before the load.
        fence(Ordering::SeqCst);
        self.raw.used_idx() != self.used.get()
    }
}

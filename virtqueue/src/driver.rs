//! Driver side of the rings, in memory of our own: for gateways, tests and benchmarks.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::memory::{GuestMemory, RegionSpec};
use crate::ring::{HEADER_LEN, RingFeatures, RingSetup};

/// How a driver lays a frame out over descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainShape {
    /// Header and frame in one descriptor.
    Single,
    /// The header in a descriptor of its own, the frame in a second.
    HeaderSplit,
    /// The header in a descriptor of its own, the frame over up to `n - 1` more.
    Pieces(u16),
    /// As `Pieces`, in an indirect table.
    Indirect(u16),
}

/// Choices of one driver queue.
#[derive(Clone, Copy, Debug)]
pub struct DriverOptions {
    /// Queue size: a power of two from 2 to 32768.
    pub size: u16,
    /// What was negotiated.
    pub features: RingFeatures,
    /// Layout of each chain.
    pub shape: ChainShape,
    /// Bytes of one chain's buffer, header included.
    pub buffer_size: usize,
}

impl DriverOptions {
    /// Bytes of [`DriverMemory`] that one queue takes.
    pub fn memory_size(&self) -> usize {
        todo!()
    }
}

/// What goes wrong on the driver's side.
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
    /// All chains are with the device: reclaim and try again.
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

/// Shared memory (a memfd) that holds driver queues and their buffers.
pub struct DriverMemory {}

impl DriverMemory {
    /// Memory of at least `size` bytes.
    pub fn new(_size: usize) -> Result<Arc<DriverMemory>, DriverError> {
        todo!()
    }
    /// The region to tell the device of.
    pub fn spec(&self) -> RegionSpec {
        todo!()
    }
}

/// Where the parts of a ring are, as frontend-virtual addresses (vhost-user SET_VRING_ADDR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
}

/// Driver side of a transmit ring.
pub struct DriverTx {}

impl DriverTx {
    /// Lays a ring out in `memory`.
    pub fn new(_memory: &Arc<DriverMemory>, _options: DriverOptions) -> Result<Self, DriverError> {
        todo!()
    }
    /// Where the ring is.
    pub fn addresses(&self) -> RingAddresses {
        todo!()
    }
    /// What a device in this process needs to run the ring.
    pub fn setup(&self, _memory: Arc<GuestMemory>) -> RingSetup {
        todo!()
    }
    /// Queues one frame, the concatenation of `parts`; the device sees it after `publish`.
    pub fn send(
        &mut self,
        _header: &[u8; HEADER_LEN],
        _parts: &[&[u8]],
    ) -> Result<(), DriverError> {
        todo!()
    }
    /// Makes queued frames available; true: the device wants a kick.
    pub fn publish(&mut self) -> bool {
        todo!()
    }
    /// Takes back the chains that the device has completed; returns their number.
    pub fn reclaim(&mut self) -> Result<usize, DriverError> {
        todo!()
    }
    /// Frames that `send` takes before the ring is full.
    pub fn free(&self) -> usize {
        todo!()
    }
    /// No calls wanted.
    pub fn disarm(&mut self) {
        todo!()
    }
    /// Calls wanted; true: there is something to reclaim already.
    pub fn arm(&mut self) -> bool {
        todo!()
    }
}

/// Driver side of a receive ring.
pub struct DriverRx {}

impl DriverRx {
    /// Lays a ring out in `memory`.
    pub fn new(_memory: &Arc<DriverMemory>, _options: DriverOptions) -> Result<Self, DriverError> {
        todo!()
    }
    /// Where the ring is.
    pub fn addresses(&self) -> RingAddresses {
        todo!()
    }
    /// What a device in this process needs to run the ring.
    pub fn setup(&self, _memory: Arc<GuestMemory>) -> RingSetup {
        todo!()
    }
    /// Gives all free buffers to the device; true: it wants a kick.
    pub fn refill(&mut self) -> bool {
        todo!()
    }
    /// Takes one received frame into `frame` (cleared first) and returns its header.
    pub fn recv(&mut self, _frame: &mut Vec<u8>) -> Result<Option<[u8; HEADER_LEN]>, DriverError> {
        todo!()
    }
    /// Takes received frames without looking at their bytes; returns their number.
    pub fn discard(&mut self, _max: usize) -> Result<usize, DriverError> {
        todo!()
    }
    /// No calls wanted.
    pub fn disarm(&mut self) {
        todo!()
    }
    /// Calls wanted; true: a frame is waiting already.
    pub fn arm(&mut self) -> bool {
        todo!()
    }
}

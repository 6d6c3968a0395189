//! Device side of the rings.

use std::sync::Arc;

use crate::error::{PushError, RingError};
use crate::memory::GuestMemory;
use crate::ring::{HEADER_LEN, RingSetup};
use crate::segment::Segment;

/// Device side of a ring that the driver transmits on: we read.
pub struct TxQueue {}

impl TxQueue {
    /// A queue over the ring; nothing of it is touched before the first call.
    pub fn new(_setup: RingSetup) -> Result<TxQueue, RingError> {
        todo!()
    }
    /// How many chains wait. An error means that the ring is broken for good.
    pub fn pending(&mut self) -> Result<u16, RingError> {
        todo!()
    }
    /// Takes up to `max` chains into `burst`, which is cleared first.
    pub fn fetch(&mut self, _burst: &mut TxBurst, _max: usize) -> Result<usize, RingError> {
        todo!()
    }
    /// Puts the burst's chains, in order, on the used ring; not yet visible.
    pub fn complete(&mut self, _burst: &TxBurst) {
        todo!()
    }
    /// Makes completions visible; true: the driver wants a call.
    pub fn publish(&mut self) -> bool {
        todo!()
    }
    /// No kicks wanted.
    pub fn disarm(&mut self) {
        todo!()
    }
    /// Kicks wanted; true: something is waiting already.
    pub fn arm(&mut self) -> bool {
        todo!()
    }
    /// Index to resume at (GET_VRING_BASE).
    pub fn next(&self) -> u16 {
        todo!()
    }
    /// Moves the ring to a new memory map.
    pub fn set_memory(&mut self, _memory: Arc<GuestMemory>) -> Result<(), RingError> {
        todo!()
    }
    /// Whether the memory vanished under the ring.
    pub fn memory_lost(&self) -> bool {
        todo!()
    }
}

/// Frames of one burst.
#[derive(Default)]
pub struct TxBurst {}

impl TxBurst {
    /// An empty burst with room for [`crate::MAX_BURST`] frames.
    pub fn new() -> TxBurst {
        todo!()
    }
    /// Frames.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The frame's virtio-net header, private.
    pub fn header(&self, _i: usize) -> &[u8; HEADER_LEN] {
        todo!()
    }
    /// The frame's first 64 bytes (128 if its header is not plain, all if it is shorter), private.
    pub fn head(&self, _i: usize) -> &[u8] {
        todo!()
    }
    /// Bytes of the frame without the header.
    pub fn frame_len(&self, _i: usize) -> usize {
        todo!()
    }
    /// The frame after its head.
    pub fn body(&self, _i: usize) -> &[Segment<'_>] {
        todo!()
    }
    /// What is wrong with the chain; such an entry has no bytes and is completed like the others.
    pub fn error(&self, _i: usize) -> Option<RingError> {
        todo!()
    }
}

/// Device side of a ring that the driver receives on: we write.
pub struct RxQueue {}

impl RxQueue {
    /// A queue over the ring. No kicks are ever wanted.
    pub fn new(_setup: RingSetup) -> Result<RxQueue, RingError> {
        todo!()
    }
    /// Copies one frame, all or nothing.
    pub fn push(
        &mut self,
        _header: &[u8; HEADER_LEN],
        _head: &[u8],
        _body: &[Segment<'_>],
    ) -> Result<(), PushError> {
        todo!()
    }
    /// Looks at the available index again.
    pub fn refresh(&mut self) {
        todo!()
    }
    /// Makes the frames visible; true: the driver wants a call.
    pub fn publish(&mut self) -> bool {
        todo!()
    }
    /// Index to resume at (GET_VRING_BASE).
    pub fn next(&self) -> u16 {
        todo!()
    }
    /// Moves the ring to a new memory map.
    pub fn set_memory(&mut self, _memory: Arc<GuestMemory>) -> Result<(), RingError> {
        todo!()
    }
    /// Whether the memory vanished under the ring.
    pub fn memory_lost(&self) -> bool {
        todo!()
    }
}

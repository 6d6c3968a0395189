//! A port without a device: frames are injected and captured by this process.

use trama_frame::offload::Offloads;
use trama_frame::vnet::VnetHeader;

/// The device half of a dummy port; goes into the engine.
pub struct DummyDevice {}

/// The outside half of a dummy port. Cloneable; usable from any thread.
#[derive(Clone)]
pub struct DummyHandle {}

/// A frame that the switch sent to a dummy port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Its virtio-net header.
    pub header: VnetHeader,
    /// The frame, from the destination address on.
    pub bytes: Vec<u8>,
}

/// The dummy port's queue has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dummy port's queue is full")]
pub struct Full;

/// A dummy port that holds up to `capacity` frames in each direction and takes all offloads.
pub fn dummy(capacity: usize) -> (DummyDevice, DummyHandle) {
    dummy_with_offloads(capacity, Offloads::ALL)
}

/// A dummy port that takes only `offloads`: the rest is done in software before it sees a frame.
pub fn dummy_with_offloads(capacity: usize, offloads: Offloads) -> (DummyDevice, DummyHandle) {
    let _ = (capacity, offloads);
    (DummyDevice {}, DummyHandle {})
}

impl DummyHandle {
    /// Puts a frame where the switch fetches it from, and wakes the switch.
    pub fn inject(&self, header: VnetHeader, bytes: &[u8]) -> Result<(), Full> {
        let _ = (header, bytes);
        Err(Full)
    }

    /// Takes what the switch has sent since the last call, oldest first.
    pub fn captured(&self) -> Vec<Captured> {
        Vec::new()
    }
}

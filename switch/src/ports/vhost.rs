//! A port whose device is a virtio-net driver: ring pairs in shared memory.

use std::os::fd::OwnedFd;

/// The notification descriptors of one ring.
#[derive(Debug, Default)]
pub struct RingFds {
    /// The driver writes it when it has put something on the ring (none: the ring is polled).
    pub kick: Option<OwnedFd>,
    /// We write it when we have used something of the ring (none: the driver polls).
    pub call: Option<OwnedFd>,
}

/// The device side of a virtio-net device: up to `queue_pairs` pairs of rings.
pub struct VhostDevice {}

impl VhostDevice {
    /// A device with room for `queue_pairs` (at least 1) pairs of rings, none started.
    pub fn new(queue_pairs: u16) -> VhostDevice {
        let _ = queue_pairs;
        VhostDevice {}
    }
}

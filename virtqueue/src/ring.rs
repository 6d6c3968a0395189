//! The parts of a split virtqueue and what both sides must agree on.

use std::sync::Arc;

use crate::memory::GuestMemory;

/// Bytes of the virtio-net header in front of each frame (`struct virtio_net_hdr_v1`; virtio 1.2,
/// section 5.1.6).
pub const HEADER_LEN: usize = 12;

/// Most frames that are handled in one pass.
pub const MAX_BURST: usize = 64;

/// The negotiated features that change how a ring works.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_EVENT_IDX: kicks and calls at an index instead of by flag.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC: a descriptor may point to a table of descriptors.
    pub indirect: bool,
    /// VIRTIO_F_IN_ORDER: buffers are used in the order in which they were made available.
    pub in_order: bool,
    /// VIRTIO_NET_F_MRG_RXBUF: a received frame may fill several chains.
    pub mergeable: bool,
}

/// Where a ring is and how far it has got.
#[derive(Clone)]
pub struct RingSetup {
    /// Queue size: a power of two from 2 to 32768.
    pub size: u16,
    /// Descriptor table, a frontend-virtual address; multiple of 16.
    pub desc: u64,
    /// Available (driver) ring, frontend-virtual; multiple of 2.
    pub avail: u64,
    /// Used (device) ring, frontend-virtual; multiple of 4.
    pub used: u64,
    /// Available index to take next, which is also the used index to go on from.
    pub next: u16,
    /// What was negotiated.
    pub features: RingFeatures,
    /// The frontend's memory.
    pub memory: Arc<GuestMemory>,
}

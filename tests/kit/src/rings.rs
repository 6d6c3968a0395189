//! Features and options of rings.

use trama_virtqueue::{ChainShape, DriverOptions, HEADER_LEN, RingFeatures};

/// The features that Linux drivers negotiate.
pub const LINUX_FEATURES: RingFeatures = RingFeatures {
    event_idx: true,
    indirect: true,
    mergeable: true,
    in_order: false,
    short_header: false,
};

/// The features of a driver that polls and takes buffers in order, as DPDK's does.
pub const IN_ORDER_FEATURES: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: false,
    mergeable: true,
    in_order: true,
    short_header: false,
};

/// Returns the options of a ring of `size` entries whose frames of up to 1600 bytes each take one
/// buffer.
pub fn driver_options(size: u16, features: RingFeatures) -> DriverOptions {
    DriverOptions { size, features, shape: ChainShape::Single, buffer_size: HEADER_LEN + 1600 }
}

//! Guest memory map and split virtqueue, device side and driver side.

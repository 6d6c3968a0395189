//! The frontend's memory table: from messages to regions.

use std::fs::File;
use std::sync::Arc;

use rustix::io::{FdFlags, fcntl_setfd};
use trama_virtqueue::{Region, RegionSpec};
use vhost::vhost_user::message::VhostUserMemoryRegion;

use crate::descriptors::{self, OutOfDescriptors};

/// Most regions of one frontend. Each takes a mapping of this process, and a descriptor until it is
/// mapped. The VMMs tested use fewer than ten, and one more for each hot-plugged memory module.
pub(crate) const MAX_REGIONS: usize = 64;

/// The remedy for memory that is not shared.
pub(crate) const REMEDY: &str = "give the guest shared memory \
     (QEMU: -object memory-backend-memfd,id=mem,size=...,share=on -numa node,memdev=mem)";

/// A region with the file that came with it.
///
/// # Errors
/// The file's descriptor is one of those that are kept.
pub(crate) fn region(
    message: &VhostUserMemoryRegion,
    file: File,
) -> Result<RegionSpec, OutOfDescriptors> {
    descriptors::check(&file)?;
    // Received without close-on-exec. Cannot fail on a descriptor that is open.
    let _ = fcntl_setfd(&file, FdFlags::CLOEXEC);
    Ok(RegionSpec {
        guest_phys: message.guest_phys_addr,
        user_addr: message.user_addr,
        size: message.memory_size,
        file_offset: message.mmap_offset,
        file: Arc::new(file),
    })
}

/// Whether the region is the one that the message names (the file does not count).
pub(crate) fn is_same(spec: &Region, message: &VhostUserMemoryRegion) -> bool {
    (spec.guest_phys, spec.user_addr, spec.size)
        == (message.guest_phys_addr, message.user_addr, message.memory_size)
}

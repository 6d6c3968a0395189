//! The frontend's memory table: from messages to regions, and whether it is shared at all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use trama_virtqueue::RegionSpec;
use vhost::vhost_user::message::VhostUserMemoryRegion;

/// Regions that one frontend may add. Each holds a descriptor and a mapping of ours; the VMMs
/// seen use fewer than ten, and one more for each hot-plugged memory module.
pub(crate) const MAX_REGIONS: usize = 64;

/// What to do about memory that we cannot see.
pub(crate) const REMEDY: &str = "give the guest shared memory \
     (QEMU: -object memory-backend-memfd,id=mem,size=...,share=on -numa node,memdev=mem)";

/// A region with the file that came with it.
pub(crate) fn region(message: &VhostUserMemoryRegion, file: File) -> RegionSpec {
    // Received without close-on-exec. Cannot fail on a descriptor that is open.
    let _ = fcntl_setfd(&file, FdFlags::CLOEXEC);
    RegionSpec {
        guest_phys: message.guest_phys_addr,
        user_addr: message.user_addr,
        size: message.memory_size,
        file_offset: message.mmap_offset,
        file: Arc::new(file),
    }
}

/// Whether the region is the one that the message names (the file does not count).
pub(crate) fn is_same(spec: &RegionSpec, message: &VhostUserMemoryRegion) -> bool {
    (spec.guest_phys, spec.user_addr, spec.size)
        == (message.guest_phys_addr, message.user_addr, message.memory_size)
}

/// Whether every region reads as zeros where its file has pages. A guest that has come as far as its
/// network driver has written somewhere; if nothing arrived in the file, the VMM has mapped it
/// privately and the guest writes to copies that no other process sees.
pub(crate) fn looks_private(regions: &[RegionSpec]) -> bool {
    !regions.iter().any(holds_something)
}

/// Whether one of the region's first pages holds anything but zeros. Holes are skipped: UEFI leaves
/// the first megabytes alone.
fn holds_something(region: &RegionSpec) -> bool {
    const LOOK: usize = 1024;
    let mut page = [0; 4096];
    let (mut at, end) = (region.file_offset, region.file_offset + region.size);
    for _ in 0..LOOK {
        // Moves the offset of a file that its owner has mapped and does not read.
        at = match seek(&*region.file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return false,
            Err(_) => at,
        };
        match region.file.read_at(&mut page, at) {
            _ if at >= end => return false,
            Ok(n) if page[..n].iter().all(|&byte| byte == 0) => at += page.len() as u64,
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::fs::{MemfdFlags, memfd_create};

    #[test]
    fn memory_is_shared_if_anything_was_written_to_it() {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(1 << 30).unwrap();
        let (size, file) = (1 << 29, Arc::new(file));
        let region = |file_offset| RegionSpec {
            guest_phys: 0,
            user_addr: 0,
            size,
            file_offset,
            file: file.clone(),
        };
        let (low, high) = (region(0), region(size));
        assert!(looks_private(&[low.clone(), high.clone()]));
        // What a private mapping reads appears in the file, as zeros.
        file.write_all_at(&[0; 4096], 0).unwrap();
        assert!(looks_private(&[low.clone(), high.clone()]));
        file.write_all_at(&[7], size + (200 << 20)).unwrap();
        assert!(looks_private(std::slice::from_ref(&low)), "it is another region's");
        assert!(!looks_private(&[low, high]));
    }
}

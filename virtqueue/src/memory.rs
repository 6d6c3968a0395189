//! Maps the memory of a frontend.
//!
//! A vhost-user frontend describes its guest's memory as regions of shared files. Each region has
//! two addresses: guest-physical, used by descriptors, and frontend-virtual, used only by ring
//! addresses. A [`GuestMemory`] is one immutable version of that table with everything mapped. A
//! change of the table makes a new map, which shares the mappings that stayed.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::error::MemoryError;
use crate::sigbus::{self, Guard};

pub use crate::sigbus::install_sigbus_guard;

const PAGE: u64 = 4096;

/// Largest total size of one frontend's table. Sparse files cost a frontend nothing, but all
/// frontends share this process's address space (128 TiB).
const MAX_TOTAL: u64 = 8 << 40;

/// One region of the frontend's memory table (vhost-user SET_MEM_TABLE, ADD_MEM_REG). Addresses,
/// size and offset are whole 4 KiB pages.
#[derive(Clone, Debug)]
pub struct RegionSpec {
    /// Guest-physical address, as in descriptors.
    pub guest_phys: u64,
    /// Frontend-virtual address, as in ring addresses.
    pub user_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Where the region starts in its file.
    pub file_offset: u64,
    /// The shared file.
    pub file: Arc<File>,
}

/// A range of addresses and where it is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: u64,
    size: u64,
    host: *mut u8,
}

impl Window {
    /// A window without addresses.
    pub(crate) const EMPTY: Window = Window { start: 0, size: 0, host: std::ptr::null_mut() };

    /// Returns the pointer to `address` and the number of mapped bytes from there to the window's
    /// end.
    #[inline(always)]
    pub(crate) fn at(&self, address: u64) -> Option<(*mut u8, u64)> {
        let offset = address.wrapping_sub(self.start);
        // SAFETY: offset < size, so the pointer lies within the mapping.
        (offset < self.size)
            .then(|| unsafe { (self.host.add(offset as usize), self.size - offset) })
    }

    /// Returns the pointer to `address` if `len` bytes from there are in this window.
    #[inline(always)]
    pub(crate) fn range(&self, address: u64, len: u32) -> Option<*mut u8> {
        self.at(address).filter(|(_, room)| u64::from(len) <= *room).map(|(ptr, _)| ptr)
    }
}

/// The address space of a region.
#[derive(Clone, Copy)]
enum Space {
    Guest,
    User,
}

impl Space {
    fn name(self) -> &'static str {
        match self {
            Space::Guest => "guest-physical",
            Space::User => "frontend-virtual",
        }
    }

    fn start(self, spec: &RegionSpec) -> u64 {
        match self {
            Space::Guest => spec.guest_phys,
            Space::User => spec.user_addr,
        }
    }
}

/// The mapped regions of one frontend. Immutable: a change of the table makes a new map.
#[derive(Debug)]
pub struct GuestMemory {
    specs: Vec<RegionSpec>,
    /// One for each of `specs`, in the same order.
    mappings: Vec<Arc<Mapping>>,
    guest: Box<[Window]>,
    user: Box<[Window]>,
}

// SAFETY: the windows point into mappings that this value keeps alive and whose bytes are only
// accessed by copying and as atomics; nothing here is written after construction.
unsafe impl Send for GuestMemory {}
// SAFETY: as for Send.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps the regions, in any order. They must be page-aligned, neither overlap nor wrap in
    /// either address space, and lie within their files.
    ///
    /// # Errors
    /// A region is invalid, too large, not in shared memory, or cannot be mapped.
    pub fn map(regions: Vec<RegionSpec>) -> Result<Arc<GuestMemory>, MemoryError> {
        Self::build(regions, &[])
    }

    /// Maps a changed table; shares the mappings of regions that `old` has already.
    ///
    /// # Errors
    /// As for [`GuestMemory::map`].
    pub fn map_from(
        old: &GuestMemory,
        regions: Vec<RegionSpec>,
    ) -> Result<Arc<GuestMemory>, MemoryError> {
        Self::build(regions, &old.mappings)
    }

    fn build(
        specs: Vec<RegionSpec>,
        known: &[Arc<Mapping>],
    ) -> Result<Arc<GuestMemory>, MemoryError> {
        if specs.is_empty() {
            return Err(MemoryError::NoRegions);
        }
        specs.iter().try_for_each(check_region)?;
        check_total(&specs)?;
        check_overlap(&specs, Space::Guest)?;
        check_overlap(&specs, Space::User)?;
        let mappings = specs
            .iter()
            .map(|spec| Mapping::find_or_map(spec, known))
            .collect::<Result<Vec<_>, _>>()?;
        let guest = windows(&specs, &mappings, Space::Guest);
        let user = windows(&specs, &mappings, Space::User);
        Ok(Arc::new(GuestMemory { specs, mappings, guest, user }))
    }

    /// Returns the table that was mapped.
    pub fn specs(&self) -> &[RegionSpec] {
        &self.specs
    }

    /// Returns whether pages vanished under the map because the frontend truncated its file. The
    /// region then reads as zeros, and the port must be closed.
    #[inline]
    pub fn is_lost(&self) -> bool {
        sigbus::any_lost() && self.any_mapping_lost()
    }

    #[cold]
    fn any_mapping_lost(&self) -> bool {
        self.mappings.iter().any(|mapping| mapping.guard.is_lost())
    }

    /// Returns the window that holds a guest-physical address.
    pub(crate) fn guest_window(&self, address: u64) -> Option<Window> {
        find(&self.guest, address)
    }

    /// Returns the pointer to `len` bytes at a frontend-virtual address; they must lie in one
    /// region.
    pub(crate) fn user_range(&self, address: u64, len: u32) -> Option<*mut u8> {
        find(&self.user, address)?.range(address, len)
    }
}

fn find(windows: &[Window], address: u64) -> Option<Window> {
    let after = windows.partition_point(|window| window.start <= address);
    let window = *windows.get(after.checked_sub(1)?)?;
    window.at(address).map(|_| window)
}

fn windows(specs: &[RegionSpec], mappings: &[Arc<Mapping>], space: Space) -> Box<[Window]> {
    let mut windows: Vec<Window> = specs
        .iter()
        .zip(mappings)
        .map(|(spec, mapping)| Window {
            start: space.start(spec),
            size: spec.size,
            host: mapping.region(),
        })
        .collect();
    windows.sort_by_key(|window| window.start);
    windows.into()
}

fn check_region(spec: &RegionSpec) -> Result<(), MemoryError> {
    let guest_phys = spec.guest_phys;
    let fields = [
        ("guest address", spec.guest_phys),
        ("frontend address", spec.user_addr),
        ("size", spec.size),
        ("file offset", spec.file_offset),
    ];
    for (what, value) in fields {
        if value % PAGE != 0 || (what == "size" && value == 0) {
            return Err(MemoryError::Misaligned { guest_phys, what, value });
        }
    }
    let wraps = |start: u64| start.checked_add(spec.size).is_none();
    // A file offset or mapping length above this is invalid.
    let too_large = spec.file_offset.saturating_add(spec.size) > i64::MAX as u64;
    if wraps(spec.guest_phys) || wraps(spec.user_addr) || too_large {
        return Err(MemoryError::Overflow { guest_phys });
    }
    Ok(())
}

fn check_total(specs: &[RegionSpec]) -> Result<(), MemoryError> {
    let total = specs.iter().fold(0, |sum: u64, spec| sum.saturating_add(spec.size));
    if total > MAX_TOTAL {
        return Err(MemoryError::TooLarge { total, limit: MAX_TOTAL });
    }
    Ok(())
}

/// Returns whether the file is in memory: on tmpfs (memfds and `/dev/shm` included) or hugetlbfs.
/// Pages of other file systems may have to be fetched, over FUSE or a network in the worst case, so
/// a frontend could make the worker sleep at every access.
fn is_shared_memory(file: &File) -> io::Result<bool> {
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: fstatfs writes the one structure that it is given; all its fields may be zero.
    let stat = unsafe {
        if libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok([libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC].contains(&stat.f_type))
}

fn check_overlap(specs: &[RegionSpec], space: Space) -> Result<(), MemoryError> {
    let mut ranges: Vec<_> =
        specs.iter().map(|spec| (space.start(spec), space.start(spec) + spec.size)).collect();
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(MemoryError::Overlap { space: space.name(), address: pair[1].0 }),
        None => Ok(()),
    }
}

/// One mapped region. The guard's entry goes first (fields drop in order): once the pages are
/// unmapped, other mappings may take their addresses.
#[derive(Debug)]
struct Mapping {
    guard: Guard,
    pages: Pages,
    /// Bytes from the first page to the region's first byte.
    skip: usize,
    /// What identifies the bytes: device and inode of the file, offset and size in it.
    identity: (u64, u64, u64, u64),
}

impl Mapping {
    fn find_or_map(spec: &RegionSpec, known: &[Arc<Mapping>]) -> Result<Arc<Mapping>, MemoryError> {
        let guest_phys = spec.guest_phys;
        let system = |call, error| MemoryError::System { guest_phys, call, error };
        let file = spec.file.metadata().map_err(|error| system("fstat", error))?;
        // Device nodes live on a tmpfs too.
        let shared = is_shared_memory(&spec.file).map_err(|error| system("fstatfs", error))?;
        if !file.is_file() || !shared {
            return Err(MemoryError::NotSharedMemory { guest_phys });
        }
        let needed = spec.file_offset + spec.size;
        if file.len() < needed {
            return Err(MemoryError::FileTooShort { guest_phys, needed, actual: file.len() });
        }
        let identity = (file.dev(), file.ino(), spec.file_offset, spec.size);
        let same =
            |mapping: &&Arc<Mapping>| mapping.identity == identity && !mapping.guard.is_lost();
        if let Some(mapping) = known.iter().find(same) {
            return Ok(mapping.clone());
        }
        install_sigbus_guard().map_err(|error| system("sigaction", error))?;
        Self::map(spec, file.blksize(), identity).map(Arc::new)
    }

    /// Maps the region out to whole blocks of its file system, as huge pages require. Bytes outside
    /// the region are never touched.
    fn map(
        spec: &RegionSpec,
        block: u64,
        identity: (u64, u64, u64, u64),
    ) -> Result<Mapping, MemoryError> {
        let guest_phys = spec.guest_phys;
        let block = if block.is_power_of_two() { block.clamp(PAGE, 1 << 30) } else { PAGE };
        let offset = spec.file_offset & !(block - 1);
        let skip = (spec.file_offset - offset) as usize;
        let len = (skip as u64 + spec.size)
            .checked_next_multiple_of(block)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(MemoryError::Overflow { guest_phys })?;
        let pages = Pages::map(&spec.file, offset, len).map_err(|error| MemoryError::System {
            guest_phys,
            call: "mmap",
            error,
        })?;
        let guard = Guard::new(pages.base as usize, len)
            .ok_or(MemoryError::TooManyRegions { limit: sigbus::SLOTS })?;
        Ok(Mapping { guard, pages, skip, identity })
    }

    /// Returns a pointer to the region's first byte.
    fn region(&self) -> *mut u8 {
        // SAFETY: skip is less than the mapping's length by construction.
        unsafe { self.pages.base.add(self.skip) }
    }
}

/// A shared mapping, unmapped when dropped.
#[derive(Debug)]
struct Pages {
    base: *mut u8,
    len: usize,
}

impl Pages {
    fn map(file: &File, offset: u64, len: usize) -> io::Result<Pages> {
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory in use.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Guest memory has no place in the process's core dumps. A failure here is harmless.
        // SAFETY: base and len are those of the mapping just made.
        unsafe { libc::madvise(base, len, libc::MADV_DONTDUMP) };
        Ok(Pages { base: base.cast(), len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: every holder of pointers into the mapping holds a share in its owner.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

// SAFETY: base is used for pointer arithmetic and unmapping only; see GuestMemory.
unsafe impl Send for Pages {}
// SAFETY: as for Send.
unsafe impl Sync for Pages {}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64) -> Arc<File> {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(len).unwrap();
        Arc::new(file)
    }

    fn spec(guest_phys: u64, user_addr: u64, size: u64, file: &Arc<File>) -> RegionSpec {
        RegionSpec { guest_phys, user_addr, size, file_offset: 0, file: file.clone() }
    }

    fn refused(specs: Vec<RegionSpec>) -> String {
        GuestMemory::map(specs).unwrap_err().to_string()
    }

    #[test]
    fn bad_tables_are_refused_with_the_reason() {
        let file = file(0x4000);
        let good = spec(0x10000, 0x90000, 0x4000, &file);
        let with = |change: fn(&mut RegionSpec)| {
            let mut bad = good.clone();
            change(&mut bad);
            refused(vec![bad])
        };
        assert!(refused(vec![]).contains("empty"));
        assert!(with(|r| r.guest_phys += 1).contains("guest address 0x10001 is not"));
        assert!(with(|r| r.user_addr += 8).contains("frontend address 0x90008"));
        assert!(with(|r| r.size = 0).contains("size 0x0"));
        assert!(with(|r| r.size = 0x3800).contains("size 0x3800"));
        assert!(with(|r| r.file_offset = 2).contains("file offset 0x2"));
        assert!(with(|r| r.guest_phys = 0u64.wrapping_sub(0x2000)).contains("wraps"));
        assert!(with(|r| r.user_addr = 0u64.wrapping_sub(0x2000)).contains("wraps"));
        assert!(with(|r| r.file_offset = i64::MAX as u64 & !0xfff).contains("wraps"));
        assert!(
            with(|r| r.size = 0x5000).contains("needs 20480 bytes of its file, which has 16384")
        );
        assert!(with(|r| r.file_offset = 0x1000).contains("needs 20480"));
        let overlap = refused(vec![good.clone(), spec(0x13000, 0x80000, 0x1000, &file)]);
        assert!(overlap.contains("guest-physical address 0x13000"), "{overlap}");
        let overlap = refused(vec![good.clone(), spec(0x1000, 0x8f000, 0x2000, &file)]);
        assert!(overlap.contains("frontend-virtual address 0x90000"), "{overlap}");
        assert!(GuestMemory::map(vec![good]).is_ok());
    }

    #[test]
    fn only_files_in_memory_are_mapped() {
        let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
        let socket = File::from(std::os::fd::OwnedFd::from(socket));
        // A device on a tmpfs, and a file that is not in memory.
        let [device, procfs] =
            ["/dev/zero", "/proc/self/status"].map(|path| File::open(path).unwrap());
        for file in [socket, device, procfs].map(Arc::new) {
            let refused = refused(vec![spec(0, 0, 0x1000, &file)]);
            assert!(refused.contains("memory-backend-memfd,share=on"), "{file:?}: {refused}");
        }
    }

    #[test]
    fn a_frontend_cannot_exhaust_the_address_space() {
        let file = file(4 << 40);
        let (one, two) = (spec(0, 0, 4 << 40, &file), spec(4 << 40, 4 << 40, 4 << 40, &file));
        let more = spec(8 << 40, 8 << 40, 0x1000, &file);
        assert!(GuestMemory::map(vec![one.clone(), two.clone()]).is_ok());
        let refused = refused(vec![one, two, more]);
        assert!(refused.contains("8796093026304 bytes"), "{refused}");
    }

    #[test]
    fn each_address_space_has_its_own_table() {
        let file = file(0x4000);
        let mut low = spec(0x10000, 0x90000, 0x1000, &file);
        low.file_offset = 0x3000;
        let high = spec(0x11000, 0x50000, 0x2000, &file);
        let memory = GuestMemory::map(vec![high, low]).unwrap();
        let guest = |at| memory.guest_window(at).and_then(|window| window.at(at));
        let (low, room) = guest(0x10000).unwrap();
        assert_eq!(room, 0x1000);
        assert_eq!(memory.user_range(0x90000, 0x1000), Some(low));
        assert_eq!(memory.user_range(0x90000, 0x1001), None);
        assert_eq!(memory.user_range(0x10000, 1), None);
        let (high, room) = guest(0x12fff).unwrap();
        assert_eq!(room, 1);
        assert_eq!(memory.user_range(0x51fff, 1), Some(high));
        for outside in [0, 0xffff, 0x13000, 0x50000, 0x90000, u64::MAX] {
            assert!(guest(outside).is_none(), "{outside:#x}");
        }
        let window = memory.guest_window(0x10000).unwrap();
        assert!(window.range(0x10000, 0x1000).is_some());
        for (at, len) in [(0x10000, 0x1001), (0x10fff, 2), (0xffff, 1), (0x11000, 0)] {
            assert!(window.range(at, len).is_none(), "{at:#x} {len}");
        }
    }

    #[test]
    fn regions_that_stay_are_not_mapped_again() {
        let (one, two) = (file(0x2000), file(0x2000));
        let first = spec(0, 0, 0x2000, &one);
        let old = GuestMemory::map(vec![first.clone()]).unwrap();
        // The same file by another descriptor, as in every SET_MEM_TABLE.
        let again = Arc::new(one.try_clone().unwrap());
        let moved = spec(0x8000, 0x4000, 0x2000, &again);
        let new = GuestMemory::map_from(&old, vec![moved, spec(0, 0, 0x2000, &two)]).unwrap();
        assert!(Arc::ptr_eq(&old.mappings[0], &new.mappings[0]));
        assert!(!Arc::ptr_eq(&old.mappings[0], &new.mappings[1]));
        let at = |memory: &GuestMemory, address| memory.user_range(address, 1).unwrap();
        assert_eq!(at(&old, 0), at(&new, 0x4000));
        drop(old);
        // SAFETY: both maps hold the address.
        assert_eq!(unsafe { at(&new, 0x4000).read_volatile() }, 0);
        assert!(!Arc::ptr_eq(
            &GuestMemory::map(vec![first]).unwrap().mappings[0],
            &new.mappings[0]
        ));
    }
}

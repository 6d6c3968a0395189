//! The frontend's memory, mapped.
//!
//! A vhost-user frontend describes its guest's memory as regions of shared files. Each region has
//! two addresses: guest-physical, which descriptors name, and frontend-virtual, which only the
//! ring addresses use. A [`GuestMemory`] is one immutable version of that table with everything
//! mapped; a change of the table makes a new one that shares the mappings which stayed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::error::MemoryError;
use crate::sigbus::{self, Guard};

pub use crate::sigbus::install_sigbus_guard;

const PAGE: u64 = 4096;

/// One region of the frontend's memory table (vhost-user SET_MEM_TABLE, ADD_MEM_REG). Addresses,
/// size and offset are whole 4 KiB pages.
#[derive(Clone, Debug)]
pub struct RegionSpec {
    /// Guest-physical address: what descriptors name.
    pub guest_phys: u64,
    /// The frontend's own virtual address: what ring addresses name.
    pub user_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Where the region starts in its file.
    pub file_offset: u64,
    /// The shared file.
    pub file: Arc<File>,
}

/// A run of addresses and where it is mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    start: u64,
    size: u64,
    host: *mut u8,
}

impl Window {
    /// Holds no address.
    pub(crate) const EMPTY: Window = Window { start: 0, size: 0, host: std::ptr::null_mut() };

    /// The pointer to `address` and the mapped bytes from there to the window's end.
    #[inline(always)]
    pub(crate) fn at(&self, address: u64) -> Option<(*mut u8, u64)> {
        let offset = address.wrapping_sub(self.start);
        // SAFETY: offset < size, so the pointer lies within the mapping.
        (offset < self.size)
            .then(|| unsafe { (self.host.add(offset as usize), self.size - offset) })
    }

    /// The pointer to `address` if `len` bytes from there are in this window.
    #[inline(always)]
    pub(crate) fn range(&self, address: u64, len: u32) -> Option<*mut u8> {
        self.at(address).filter(|(_, room)| u64::from(len) <= *room).map(|(ptr, _)| ptr)
    }
}

/// Which address space of a region is meant.
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
    /// Maps the regions, in any order. They must be page-aligned, neither overlap nor wrap in either
    /// address space, and lie within their files.
    pub fn map(regions: Vec<RegionSpec>) -> Result<Arc<GuestMemory>, MemoryError> {
        Self::build(regions, &[])
    }

    /// Maps a changed table; regions that `old` has already are shared with it, not mapped again.
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

    /// The table that was mapped.
    pub fn specs(&self) -> &[RegionSpec] {
        &self.specs
    }

    /// Whether pages vanished under the map: the frontend truncated its file. The region then reads
    /// as zeros; its user must close the port.
    #[inline]
    pub fn is_lost(&self) -> bool {
        sigbus::any_lost() && self.mappings.iter().any(|mapping| mapping.guard.is_lost())
    }

    /// The window that holds a guest-physical address.
    pub(crate) fn guest_window(&self, address: u64) -> Option<Window> {
        find(&self.guest, address)
    }

    /// The pointer to `len` bytes at a frontend-virtual address; they must lie in one region.
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
    // Anything above this can be neither a file's size nor a mapping's.
    let too_large = spec.file_offset.saturating_add(spec.size) > i64::MAX as u64;
    if wraps(spec.guest_phys) || wraps(spec.user_addr) || too_large {
        return Err(MemoryError::Overflow { guest_phys });
    }
    Ok(())
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

/// One region in our address space. The guard's entry goes first (fields drop in order): once
/// the pages are unmapped their addresses may be anyone's.
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
        if !file.is_file() {
            return Err(MemoryError::NotAFile { guest_phys });
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

    /// Maps the region out to whole blocks of its file system: huge pages can be mapped in no other
    /// way. Bytes outside the region are never touched.
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

    /// The region's first byte.
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
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory of ours.
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
        // A guest's memory has no place in our core dumps. Failing to say so harms nothing.
        // SAFETY: base and len are those of the mapping just made.
        unsafe { libc::madvise(base, len, libc::MADV_DONTDUMP) };
        Ok(Pages { base: base.cast(), len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: whoever had pointers into the mapping had a share in its owner.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

// SAFETY: base is used for pointer arithmetic and unmapping only; see GuestMemory.
unsafe impl Send for Pages {}
// SAFETY: as for Send.
unsafe impl Sync for Pages {}

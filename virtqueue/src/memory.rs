//! Maps the memory of a frontend.
//!
//! A vhost-user frontend describes its guest's memory as regions of shared files. Each region has
//! two addresses: guest-physical, used by descriptors, and frontend-virtual, used only by ring
//! addresses. A [`GuestMemory`] is one immutable version of that table with everything mapped. A
//! change of the table makes a new map, which shares the mappings that stayed. The files themselves
//! are not kept: a mapping needs no descriptor.

use std::sync::Arc;

use crate::account::MemoryAccount;
use crate::error::MemoryError;
use crate::mapping::{Mapping, RegionSpec};
use crate::room::PAGE;
use crate::sigbus::{self, Guard};

/// Regions that any frontend may have. More take the process's mappings from other frontends.
const REGIONS: usize = 16;

/// Largest total size of one frontend's table. Sparse files cost a frontend nothing, but all
/// frontends share this process's address space (128 TiB).
const MAX_TOTAL: u64 = 8 << 40;

/// A region that is mapped.
#[derive(Clone, Debug)]
pub struct Region {
    /// Guest-physical address.
    pub guest_phys: u64,
    /// Frontend-virtual address.
    pub user_addr: u64,
    /// Bytes.
    pub size: u64,
    mapping: Arc<Mapping>,
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

    fn start(self, range: &Addresses) -> u64 {
        match self {
            Space::Guest => range.guest_phys,
            Space::User => range.user_addr,
        }
    }
}

/// The addresses of a region.
#[derive(Clone, Copy)]
struct Addresses {
    guest_phys: u64,
    user_addr: u64,
    size: u64,
}

impl RegionSpec {
    fn addresses(&self) -> Addresses {
        let RegionSpec { guest_phys, user_addr, size, .. } = *self;
        Addresses { guest_phys, user_addr, size }
    }
}

impl Region {
    fn addresses(&self) -> Addresses {
        let Region { guest_phys, user_addr, size, .. } = *self;
        Addresses { guest_phys, user_addr, size }
    }
}

/// The mapped regions of one frontend. Immutable: a change of the table makes a new map.
#[derive(Debug)]
pub struct GuestMemory {
    regions: Vec<Region>,
    guest: Box<[Window]>,
    user: Box<[Window]>,
}

/// A change of a memory table.
#[derive(Default)]
struct Change<'a> {
    /// Regions that stay as they are.
    kept: Vec<Region>,
    /// Regions whose mappings are shared if the new ones are the same.
    known: &'a [Region],
    account: Option<&'a Arc<MemoryAccount>>,
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
        Self::build(regions, Change::default())
    }

    /// Maps a changed table; shares the mappings of regions that `old` has already.
    ///
    /// # Errors
    /// As for [`GuestMemory::map`].
    pub fn map_from(
        old: &GuestMemory,
        regions: Vec<RegionSpec>,
    ) -> Result<Arc<GuestMemory>, MemoryError> {
        Self::build(regions, Change { known: &old.regions, ..Change::default() })
    }

    /// Maps the table of a frontend that need not be honest: regions that stay (`kept`) and new
    /// ones, of which those in `old` share its mappings. The account pays for all of them, and for
    /// pages that this process touches first if [`crate::prepare_accounts`] was called.
    ///
    /// # Errors
    /// As for [`GuestMemory::map`]; or the frontend has more memory or regions than it may.
    pub fn map_for(
        account: &Arc<MemoryAccount>,
        old: Option<&GuestMemory>,
        kept: Vec<Region>,
        new: Vec<RegionSpec>,
    ) -> Result<Arc<GuestMemory>, MemoryError> {
        let known = old.map_or(&[][..], |old| &old.regions);
        Self::build(new, Change { kept, known, account: Some(account) })
    }

    fn build(new: Vec<RegionSpec>, change: Change<'_>) -> Result<Arc<GuestMemory>, MemoryError> {
        let Change { kept: mut regions, known, account } = change;
        let mut all: Vec<Addresses> = regions.iter().map(Region::addresses).collect();
        all.extend(new.iter().map(RegionSpec::addresses));
        if all.is_empty() {
            return Err(MemoryError::NoRegions);
        }
        new.iter().try_for_each(check_region)?;
        let total = check_total(&all)?;
        check_overlap(&all, Space::Guest)?;
        check_overlap(&all, Space::User)?;
        if let Some(account) = account {
            check_share(all.len())?;
            account.reserve(total)?;
        }
        for spec in &new {
            let Addresses { guest_phys, user_addr, size } = spec.addresses();
            let known = known.iter().map(|region| &region.mapping);
            let mapping = Mapping::find_or_map(spec, known, account)?;
            regions.push(Region { guest_phys, user_addr, size, mapping });
        }
        let guest = windows(&regions, Space::Guest);
        let user = windows(&regions, Space::User);
        Ok(Arc::new(GuestMemory { regions, guest, user }))
    }

    /// Returns the table that was mapped.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Writes bytes at a frontend-virtual address, for stand-ins of devices in tests. Returns
    /// `false` if they do not lie in one region.
    #[doc(hidden)]
    pub fn write(&self, address: u64, bytes: &[u8]) -> bool {
        let len = u32::try_from(bytes.len()).ok();
        let Some(to) = len.and_then(|len| self.user_range(address, len)) else { return false };
        // SAFETY: the range was checked, and guest memory never overlaps a Rust slice.
        unsafe { bytes.as_ptr().copy_to(to, bytes.len()) };
        true
    }

    /// Returns whether pages vanished under the map because the frontend truncated its file,
    /// or were missing and may not be populated. The region then reads as zeros, and the port must
    /// be closed.
    #[inline]
    pub fn is_lost(&self) -> bool {
        sigbus::any_lost() && self.any_mapping_lost()
    }

    #[cold]
    fn any_mapping_lost(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.is_lost())
    }

    /// Returns the guest-physical address of a byte that is mapped here.
    pub(crate) fn guest_address(&self, at: *const u8) -> Option<u64> {
        self.guest.iter().find_map(|window| {
            let offset = at.addr().wrapping_sub(window.host.addr()) as u64;
            (offset < window.size).then(|| window.start + offset)
        })
    }

    /// Returns the end of the last region, guest-physical.
    pub(crate) fn end(&self) -> u64 {
        self.guest.last().map_or(0, |window| window.start + window.size)
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

fn windows(regions: &[Region], space: Space) -> Box<[Window]> {
    let mut windows: Vec<Window> = regions
        .iter()
        .map(|region| Window {
            start: space.start(&region.addresses()),
            size: region.size,
            host: region.mapping.region(),
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

fn check_total(all: &[Addresses]) -> Result<u64, MemoryError> {
    let total = all.iter().fold(0, |sum: u64, region| sum.saturating_add(region.size));
    if total > MAX_TOTAL {
        return Err(MemoryError::TooLarge { total, limit: MAX_TOTAL });
    }
    Ok(total)
}

fn check_share(regions: usize) -> Result<(), MemoryError> {
    if regions <= REGIONS {
        return Ok(());
    }
    let free = Guard::free();
    if regions > free / 8 {
        Err(MemoryError::OverShare { regions, guaranteed: REGIONS, free })
    } else {
        Ok(())
    }
}

fn check_overlap(all: &[Addresses], space: Space) -> Result<(), MemoryError> {
    let range = |region: &Addresses| (space.start(region), space.start(region) + region.size);
    let mut ranges: Vec<_> = all.iter().map(range).collect();
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(MemoryError::Overlap { space: space.name(), address: pair[1].0 }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
        assert!(Arc::ptr_eq(&old.regions[0].mapping, &new.regions[0].mapping));
        assert!(!Arc::ptr_eq(&old.regions[0].mapping, &new.regions[1].mapping));
        let at = |memory: &GuestMemory, address| memory.user_range(address, 1).unwrap();
        assert_eq!(at(&old, 0), at(&new, 0x4000));
        drop(old);
        // SAFETY: both maps hold the address.
        assert_eq!(unsafe { at(&new, 0x4000).read_volatile() }, 0);
        assert!(!Arc::ptr_eq(
            &GuestMemory::map(vec![first]).unwrap().regions[0].mapping,
            &new.regions[0].mapping
        ));
    }
}

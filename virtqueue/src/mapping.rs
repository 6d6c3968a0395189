//! Mappings of shared files.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::account::MemoryAccount;
use crate::error::MemoryError;
use crate::room::PAGE;
use crate::sigbus::{self, Guard, install_sigbus_guard};
use crate::userfault;

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

/// One mapped region. The guard's entry goes first (fields drop in order): once the pages are
/// unmapped, other mappings may take their addresses.
#[derive(Debug)]
pub(crate) struct Mapping {
    guard: Guard,
    pages: Pages,
    /// Bytes from the first page to the region's first byte.
    skip: usize,
    /// What identifies the bytes: device and inode of the file, offset and size in it.
    identity: (u64, u64, u64, u64),
    /// Kept for the guard's entry.
    _account: Option<Arc<MemoryAccount>>,
}

impl Mapping {
    /// Returns the mapping of the same bytes among those that are `known`, or a new one.
    pub(crate) fn find_or_map<'a>(
        spec: &RegionSpec,
        mut known: impl Iterator<Item = &'a Arc<Mapping>>,
        account: Option<&Arc<MemoryAccount>>,
    ) -> Result<Arc<Mapping>, MemoryError> {
        let guest_phys = spec.guest_phys;
        let system = |call, error| MemoryError::System { guest_phys, call, error };
        let file = spec.file.metadata().map_err(|error| system("fstat", error))?;
        // Device nodes live on a tmpfs too.
        let kind = kind(&spec.file).map_err(|error| system("fstatfs", error))?;
        let Some(kind) = kind.filter(|_| file.is_file()) else {
            return Err(MemoryError::NotSharedMemory { guest_phys });
        };
        let needed = spec.file_offset + spec.size;
        if file.len() < needed {
            return Err(MemoryError::FileTooShort { guest_phys, needed, actual: file.len() });
        }
        let identity = (file.dev(), file.ino(), spec.file_offset, spec.size);
        let same =
            |mapping: &&Arc<Mapping>| mapping.identity == identity && !mapping.guard.is_lost();
        if let Some(mapping) = known.find(same) {
            return Ok(mapping.clone());
        }
        install_sigbus_guard().map_err(|error| system("sigaction", error))?;
        // Huge pages of hugetlbfs come from a pool of their own.
        let account = account.filter(|_| kind == Kind::Tmpfs);
        Self::map(spec, file.blksize(), identity, account).map(Arc::new)
    }

    /// Maps the region out to whole blocks of its file system, as huge pages require. Bytes outside
    /// the region are never touched.
    fn map(
        spec: &RegionSpec,
        block: u64,
        identity: (u64, u64, u64, u64),
        account: Option<&Arc<MemoryAccount>>,
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
        let start = pages.base as usize;
        let guard = Guard::new(start, len, account.map(Arc::as_ref))
            .ok_or(MemoryError::TooManyRegions { limit: sigbus::SLOTS })?;
        // After the guard: a fault that it raises must find the entry.
        if account.is_some() {
            userfault::register(start, len);
        }
        Ok(Mapping { guard, pages, skip, identity, _account: account.cloned() })
    }

    /// Returns whether the mapping was replaced by zero pages.
    pub(crate) fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    /// Returns a pointer to the region's first byte.
    pub(crate) fn region(&self) -> *mut u8 {
        // SAFETY: skip is less than the mapping's length by construction.
        unsafe { self.pages.base.add(self.skip) }
    }
}

/// A shared mapping, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Pages {
    base: *mut u8,
    len: usize,
}

impl Pages {
    /// Returns where the mapping starts.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Returns its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn map(file: &File, offset: u64, len: usize) -> io::Result<Pages> {
        // SAFETY: the kernel chooses the address.
        unsafe { Self::map_at(std::ptr::null_mut(), 0, file, offset, len) }
    }

    /// Maps at an address that is a multiple of `align`, a power of two.
    pub(crate) fn map_aligned(
        file: &File,
        offset: u64,
        len: usize,
        align: usize,
    ) -> io::Result<Pages> {
        let room = len.checked_add(align).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping without access, at an address of the kernel's choosing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let room = Pages { base: base.cast(), len: room };
        let skip = room.base.addr().next_multiple_of(align) - room.base.addr();
        // SAFETY: the new mapping replaces a part of `room`, which is not used otherwise. What is
        // left of `room` is unmapped, and the new mapping alone remains.
        unsafe {
            let at = room.base.add(skip);
            let pages = Self::map_at(at, libc::MAP_FIXED, file, offset, len)?;
            let end = len.next_multiple_of(PAGE as usize);
            let (base, whole) = (room.base, room.len);
            std::mem::forget(room);
            if skip > 0 {
                libc::munmap(base.cast(), skip);
            }
            libc::munmap(base.add(skip + end).cast(), whole - skip - end);
            Ok(pages)
        }
    }

    /// # Safety
    /// With `MAP_FIXED` in `flags`, nothing uses the memory at `at`.
    unsafe fn map_at(
        at: *mut u8,
        flags: libc::c_int,
        file: &File,
        offset: u64,
        len: usize,
    ) -> io::Result<Pages> {
        let flags = flags | libc::MAP_SHARED | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (fd, offset) = (file.as_raw_fd(), offset as libc::off_t);
        // SAFETY: a new mapping; at an address of the kernel's choosing it touches no memory in
        // use, and of another the caller says so.
        let base = unsafe { libc::mmap(at.cast(), len, access, flags, fd, offset) };
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

/// Makes a memfd of whole pages whose size is fixed, for at least `size` bytes.
pub(crate) fn sealed_memfd(name: &CStr, size: u64) -> io::Result<File> {
    let file = memfd(name, size)?;
    add_seals(&file, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL)?;
    Ok(file)
}

/// Makes a memfd of whole pages for at least `size` bytes.
pub(crate) fn memfd(name: &CStr, size: u64) -> io::Result<File> {
    // SAFETY: the name is a C string; the descriptor, if any, is new and owned here.
    let file = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    file.set_len(size.next_multiple_of(PAGE))?;
    Ok(file)
}

/// Adds seals to a memfd.
pub(crate) fn add_seals(file: &File, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: fcntl on an open descriptor, with an integer argument.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kinds of files in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// memfds and `/dev/shm` included.
    Tmpfs,
    Hugetlbfs,
}

/// Returns the kind of a file in memory. Pages of other files may have to be fetched, over FUSE or
/// a network in the worst case, so a frontend could make the worker sleep at every access.
fn kind(file: &File) -> io::Result<Option<Kind>> {
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: fstatfs writes the one structure that it is given; all its fields may be zero.
    let stat = unsafe {
        if libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok(match stat.f_type {
        libc::TMPFS_MAGIC => Some(Kind::Tmpfs),
        libc::HUGETLBFS_MAGIC => Some(Kind::Hugetlbfs),
        _ => None,
    })
}

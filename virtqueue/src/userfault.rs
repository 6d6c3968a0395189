//! Faults on pages that a shared file does not have yet, by userfaultfd(2).
//!
//! A page of a shared file counts against the process that touches it first, so a frontend with a
//! sparse file could make this process pay for all of it. Mappings that are registered here raise
//! SIGBUS at such a page (`UFFD_FEATURE_SIGBUS`) instead of getting it. The handler in
//! [`crate::sigbus`] decides, and asks for the page by [`populate`]. A system call that reads or
//! writes such a page fails with EFAULT. Pages that exist are mapped by the kernel as ever.
//!
//! The descriptor is that of the whole process and never read. It is limited to faults of user mode
//! (`UFFD_USER_MODE_ONLY`), which needs no privilege (Linux 5.11). A mapping that is unmapped or
//! replaced is no longer registered. Three ioctls do not justify a crate with bindings.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// Names of `linux/userfaultfd.h`.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_API: u32 = request::<Api>(0x3f);
const UFFDIO_REGISTER: u32 = request::<Register>(0x00);
const UFFDIO_ZEROPAGE: u32 = request::<ZeroPage>(0x04);

/// `_IOWR(0xaa, number, T)`.
const fn request<T>(number: u32) -> u32 {
    3 << 30 | (size_of::<T>() as u32) << 16 | (UFFD_API as u32) << 8 | number
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct ZeroPage {
    start: u64,
    len: u64,
    mode: u64,
    populated: i64,
}

/// The descriptor, or the errno with which the kernel refused it.
static DESCRIPTOR: OnceLock<Result<OwnedFd, i32>> = OnceLock::new();

/// Opens the descriptor of the process. Idempotent; mapping a frontend's memory does it too.
///
/// # Errors
/// The kernel is too old (ENOSYS, EINVAL), or a container's filter forbids the call (EPERM).
pub(crate) fn open() -> io::Result<()> {
    match DESCRIPTOR.get_or_init(|| new().map_err(|e| e.raw_os_error().unwrap_or(libc::EINVAL))) {
        Ok(_) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(*errno)),
    }
}

fn new() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
    // SAFETY: the call takes an integer and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    let features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM;
    let mut api = Api { api: UFFD_API, features, ioctls: 0 };
    // SAFETY: the request reads and writes one `Api`.
    unsafe { call(fd.as_raw_fd(), UFFDIO_API, &mut api) }?;
    Ok(fd)
}

/// Registers a mapping of a file on tmpfs; returns `false` if the kernel does not take it.
pub(crate) fn register(start: usize, len: usize) -> bool {
    let Some(Ok(fd)) = DESCRIPTOR.get() else { return false };
    let (start, len) = (start as u64, len as u64);
    let mut range = Register { start, len, mode: UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 };
    // SAFETY: the request reads and writes one `Register`. It changes how faults in the range are
    // handled, and nothing that is there.
    unsafe { call(fd.as_raw_fd(), UFFDIO_REGISTER, &mut range) }.is_ok()
}

/// What became of a missing page.
pub(crate) enum Populated {
    /// It is there now.
    New,
    /// It was there already: another thread, or the guest, was faster.
    Present,
    /// The system has no memory for it.
    NoMemory,
    /// The file ends before it, or its file system is full.
    NoPage,
}

/// Gives the file a page of zeros at `page`, an address in a registered mapping. Only makes system
/// calls, and so may be called by a signal handler.
pub(crate) fn populate(page: usize, size: usize) -> Populated {
    let Some(Ok(fd)) = DESCRIPTOR.get() else { return Populated::NoPage };
    loop {
        let (start, len) = (page as u64, size as u64);
        let mut range = ZeroPage { start, len, mode: 0, populated: 0 };
        // SAFETY: the request reads and writes one `ZeroPage`. It adds a page where there is none.
        let done = unsafe { call(fd.as_raw_fd(), UFFDIO_ZEROPAGE, &mut range) };
        match done.map_err(|error| error.raw_os_error()) {
            Ok(()) => return Populated::New,
            Err(Some(libc::EEXIST)) => return Populated::Present,
            // The process's mappings are changing.
            Err(Some(libc::EAGAIN)) => {}
            Err(Some(libc::ENOMEM)) => return Populated::NoMemory,
            Err(_) => return Populated::NoPage,
        }
    }
}

/// # Safety
/// The kernel reads and writes one `T` for this request.
unsafe fn call<T>(fd: libc::c_int, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: as the caller promises; the argument lives until the call returns.
    let done = unsafe { libc::ioctl(fd, request as libc::Ioctl, &raw mut *argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

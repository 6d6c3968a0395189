//! The file systems of a process that has a mount namespace of its own.

use crate::kernel;
use crate::mode::Missing;

/// Makes all mounts of the calling thread's mount namespace read-only, without devices and without
/// programs that change users. What is mounted elsewhere later still appears, and is not
/// restricted; nothing spreads from here to other namespaces. Descriptors opened before, and in
/// other namespaces, are not restricted.
///
/// # Errors
///
/// The kernel is older than Linux 5.12, or the thread may not change mounts.
pub fn restrict_mounts() -> Result<(), Missing> {
    kernel::restrict_mounts().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => Missing::new("read-only mounts", "needs Linux 5.12"),
        _ => Missing::new("read-only mounts", error),
    })
}

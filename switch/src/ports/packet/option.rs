//! Socket options that rustix does not wrap.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::c_int;

/// Sets a socket option, whose value type is `T`.
pub(super) fn set_option<T>(
    fd: &OwnedFd,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    let (value, len) = ((value as *const T).cast::<c_void>(), size_of::<T>() as libc::socklen_t);
    // SAFETY: every caller passes the value type that the option is defined with; it lives until
    // the call returns.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

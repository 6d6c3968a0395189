//! Requests about interfaces: `struct ifreq` and ioctl(2).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::c_ulong;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Longest name of an interface.
pub(crate) const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// Returns a `struct ifreq` that names an interface; what is too long of the name is cut.
pub(crate) fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a valid value of every member of the union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(MAX_NAME).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Calls an ioctl whose argument is the address of a `T`, which must be what `code` takes.
pub(crate) fn ioctl<T>(fd: &OwnedFd, code: c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: every caller passes the structure that the request is defined with,
    // and it lives until the call returns.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), code, argument as *mut T) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns a socket for requests.
pub(crate) fn open_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Returns a `struct sockaddr_in` in the form in which a `struct ifreq` holds it.
pub(crate) fn ipv4_sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut general =
        libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: [0; 14] };
    // Two bytes of L4 port come first.
    for (to, from) in general.sa_data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    general
}

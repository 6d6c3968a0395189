//! Stream sockets of the host: connections that are begun, and ports that clients connect to.
//!
//! All are set up alike, before anything can come through them: a connection that is accepted has
//! the options of its listener.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_keepalive, set_socket_reuseaddr, set_tcp_nodelay,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Clients that may wait to be accepted, if the host allows that many (`net.core.somaxconn`).
const BACKLOG: i32 = 128;

/// Begins to connect to `remote`.
///
/// # Errors
/// Out of descriptors or memory, there is no way there, or the host does not have this version of IP.
pub(super) fn connect(remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = open(remote)?;
    match rustix::net::connect(&socket, &remote) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(error) => Err(error.into()),
    }
}

/// Listens at an address of the host, for this version of IP alone.
///
/// # Errors
/// The address is none of the host's, or taken, or the host does not have this version of IP.
pub(super) fn listen(host: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(host)?;
    // Connections of an earlier listener may linger.
    set_socket_reuseaddr(&socket, true)?;
    if host.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &host)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Segments go on as they come. A dead peer shows, for flows live as long as they like.
    set_tcp_nodelay(&socket, true)?;
    set_socket_keepalive(&socket, true)?;
    Ok(socket)
}

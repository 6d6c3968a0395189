//! Stream sockets of the host: outgoing connections, and listeners.
//!
//! All get the same options before data can arrive: an accepted connection inherits those of its
//! listener. Urgent data stays in the stream (RFC 6093, 6); by default the kernel would remove its
//! last byte.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_keepalive, set_socket_oobinline, set_socket_reuseaddr,
    set_tcp_nodelay,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Clients that may wait to be accepted, if the host allows as many (`net.core.somaxconn`).
const BACKLOG: i32 = 128;

/// Starts to connect to `remote`.
///
/// # Errors
///
/// Out of descriptors or memory, no route, or the host does not have this version of IP.
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
///
/// The address is in use, or the host does not have it or this version of IP.
pub(super) fn listen(host: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(host)?;
    // Connections of an earlier listener may be in TIME-WAIT.
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
    // Segments are sent without delay, and dead peers are detected, since an idle flow has no
    // timeout.
    set_tcp_nodelay(&socket, true)?;
    set_socket_keepalive(&socket, true)?;
    set_socket_oobinline(&socket, true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use rustix::net::sockopt::{socket_keepalive, socket_oobinline, tcp_nodelay};
    use rustix::net::{SendFlags, send};

    use super::*;

    /// Sends two urgent bytes, and one that is not.
    fn send_urgent(stream: &std::net::TcpStream) {
        for (byte, flags) in
            [(b"!", SendFlags::OOB), (b"?", SendFlags::OOB), (b".", SendFlags::empty())]
        {
            assert_eq!(send(stream, byte, flags), Ok(1));
        }
    }

    /// Checks the socket's options, and reads what [`send_urgent`] sent.
    #[track_caller]
    fn read_urgent(mut stream: TcpStream) {
        assert!(socket_oobinline(&stream).unwrap() && socket_keepalive(&stream).unwrap());
        assert!(tcp_nodelay(&stream).unwrap());
        let (mut bytes, start) = (Vec::<u8>::new(), Instant::now());
        while bytes.len() < 3 {
            assert!(start.elapsed() < Duration::from_secs(20), "{bytes:?}");
            let mut room = [0; 3];
            bytes.extend(stream.read(&mut room).map_or(&[][..], |count| &room[..count]));
        }
        assert_eq!(bytes, b"!?.");
    }

    #[test]
    fn urgent_data_that_is_there_before_the_first_read_stays_in_the_stream() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen(loopback).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Before the connection is accepted.
        send_urgent(&client);
        read_urgent(listener.accept().unwrap().0);

        let server = std::net::TcpListener::bind(loopback).unwrap();
        let stream = connect(server.local_addr().unwrap()).unwrap();
        send_urgent(&server.accept().unwrap().0);
        read_urgent(stream);
    }
}

//! Makes TCP and UDP sockets for ports that carry frames over them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::request::{Answer, Internet, Reply};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Opens a socket.
pub(crate) fn open(kind: Internet, address: SocketAddr) -> Answer {
    let made = match kind {
        Internet::Listen => listen_tcp(address),
        Internet::Connect => connect_tcp(address),
        Internet::Datagrams => bind_udp(address),
        Internet::Send => connect_udp(address),
    };
    let socket = made.map_err(|error| explain(address, &error))?;
    Ok((Reply::Done, vec![socket]))
}

pub(crate) fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        // An address of IPv4 is another port's.
        set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::STREAM)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn connect_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::STREAM)?;
    set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::DGRAM)?;
    bind(&socket, &address)?;
    Ok(socket)
}

fn connect_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::DGRAM)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// Returns an address of an interface of the host: one of IPv4 if it has one, and one of the link
/// only if it has no other.
pub(crate) fn address_of(ifname: &str) -> Answer {
    let all = nix::ifaddrs::getifaddrs().map_err(|error| format!("interfaces: {error}"))?;
    let of_it = all.filter(|it| it.interface_name == ifname).filter_map(|it| it.address);
    let addresses = of_it.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    let rank = |address: &IpAddr| match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(address) if !address.is_unicast_link_local() => 1,
        IpAddr::V6(_) => 2,
    };
    let address = addresses.min_by_key(rank).ok_or_else(|| {
        format!("no interface {ifname} with an address is there; `ip address` lists all")
    })?;
    Ok((Reply::Address(address), Vec::new()))
}

pub(crate) fn explain(address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another socket has it; choose another port, or end the other",
        io::ErrorKind::AddrNotAvailable => {
            "no interface of the host has this address; `ip address` lists those that are there"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one"
        }
        _ => return format!("{address}: {error}"),
    };
    format!("{address}: {error}: {remedy}")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn opened(kind: Internet, address: &str) -> Result<OwnedFd, String> {
        open(kind, address.parse().unwrap()).map(|(_, mut fds)| fds.remove(0))
    }

    #[test]
    fn an_address_in_use_is_named_with_the_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let refused = opened(Internet::Listen, &address).unwrap_err();
        assert!(refused.starts_with(&address) && refused.contains("another port"), "{refused}");
        let refused = opened(Internet::Datagrams, "203.0.113.7:9").unwrap_err();
        assert!(refused.contains("no interface of the host"), "{refused}");
    }

    #[test]
    fn a_connection_is_begun_without_waiting() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let socket = opened(Internet::Connect, &listener.local_addr().unwrap().to_string());
        let stream = TcpStream::from(socket.unwrap());
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), stream.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}

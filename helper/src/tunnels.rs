//! Makes the UDP sockets of tunnels.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
};
use rustix::net::{SocketType, bind};

use crate::internet::{explain, socket};
use crate::request::{Answer, Reply, TunnelSockets};

/// Sockets that a tunnel sends with: as many outer source ports, by which routers and receivers
/// spread its flows.
const SENDERS: usize = 8;
/// Bytes that wait in a socket. The kernel counts a datagram with its bookkeeping, and what was
/// merged as up to 100 KiB; its default takes four of these.
const BUFFER: usize = 4 << 20;

/// Opens sockets at a local address.
pub(crate) fn open(end: TunnelSockets, local: SocketAddr) -> Answer {
    let sockets: io::Result<Vec<OwnedFd>> = match end {
        TunnelSockets::Receive => receiver(local).map(|socket| vec![socket]),
        TunnelSockets::Send => (0..SENDERS).map(|_| sender(local)).collect(),
    };
    Ok((Reply::Done, sockets.map_err(|error| explain(local, &error))?))
}

/// The kernel merges datagrams of a flow for it, and tells how many it has dropped.
fn receiver(local: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(local, SocketType::DGRAM)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    // As much as `net.core.rmem_max` allows, without the right to more (CAP_NET_ADMIN).
    set_socket_recv_buffer_size_force(&socket, BUFFER)
        .or_else(|_| set_socket_recv_buffer_size(&socket, BUFFER))?;
    bind(&socket, &local)?;
    Ok(socket)
}

/// Its datagrams are not fragmented.
fn sender(mut local: SocketAddr) -> io::Result<OwnedFd> {
    local.set_port(0);
    let socket = socket(local, SocketType::DGRAM)?;
    match local {
        SocketAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?,
        SocketAddr::V6(_) => {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO)?;
            // Otherwise the kernel fragments what is larger than the path takes.
            setsockopt(&socket, sockopt::Ipv6DontFrag, &true)?;
        }
    }
    set_socket_send_buffer_size(&socket, BUFFER)?;
    bind(&socket, &local)?;
    Ok(socket)
}

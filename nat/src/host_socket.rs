//! Datagram sockets of the host (UDP and ping): sending, receiving, and the errors that the network
//! reports.
//!
//! They are not connected: one socket serves all destinations of a flow. The kernel queues ICMP
//! errors at the socket (`IP_RECVERR`, ip(7)) with the router that sent them and the destination
//! that they are about, so none is lost.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::in6_pktinfo;
use nix::sys::socket::sockopt::{
    BindToDevice, Ipv4PacketInfo, Ipv4RecvErr, Ipv6RecvErr, Ipv6RecvPacketInfo, UdpGroSegment,
};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
    recvmmsg, recvmsg, sendmsg, setsockopt,
};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_add_membership_with_ifindex,
    set_ip_mtu_discover, set_ip_multicast_if_with_ifindex, set_ip_multicast_ttl, set_ip_ttl,
    set_ipv6_add_membership, set_ipv6_mtu_discover, set_ipv6_multicast_hops, set_ipv6_multicast_if,
    set_ipv6_unicast_hops, set_ipv6_v6only, set_socket_recv_buffer_size, set_socket_reuseaddr,
};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};

use crate::local_address::{LocalAddress, PacketInfo};

/// Longest datagram, and longest batch of datagrams from the kernel (udp(7), `UDP_GRO`).
const MAX_DATAGRAM: usize = 65_535;
/// Messages received with one call. Sixteen GRO batches are a thousand datagrams.
pub(crate) const BATCH: usize = 16;
/// Receive buffer that a busy socket asks for.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Room for what the kernel quotes of a packet in an error.
const MAX_QUOTE: usize = 1500;
/// `ee_origin` of an ICMP and of an ICMPv6 error (ip(7)).
const BY_ICMP: [u8; 2] = [2, 3];

/// A non-blocking datagram socket of the host.
pub(crate) struct HostSocket {
    fd: OwnedFd,
    is_v6: bool,
    /// The options that are set on the socket.
    options: Option<SendOptions>,
    is_enlarged: bool,
    /// Each datagram comes with the local address that it was sent to.
    is_wildcard: bool,
}

/// The wildcard address of each IP version that the host has. Both if it has neither, so that
/// binding returns the reason.
pub(super) fn wildcards() -> Vec<IpAddr> {
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let is_had = |address: &IpAddr| {
        !matches!(HostSocket::udp_without_gro(address.is_ipv6()), Err(Errno::EAFNOSUPPORT))
    };
    let had: Vec<IpAddr> = all.into_iter().filter(is_had).collect();
    if had.is_empty() { all.to_vec() } else { had }
}

/// How packets are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SendOptions {
    /// Hop limit, at least 1.
    pub hop_limit: u8,
    /// Whether routers may fragment the packets.
    pub may_fragment: bool,
}

impl HostSocket {
    /// A UDP socket with GRO. The kernel chooses its port at the first send.
    ///
    /// # Errors
    ///
    /// Out of descriptors or memory, or the host does not have this version of IP.
    pub(crate) fn udp(is_v6: bool) -> Result<HostSocket, Errno> {
        let socket = HostSocket::new(is_v6, ipproto::UDP)?;
        setsockopt(&socket.fd, UdpGroSegment, &true)?;
        Ok(socket)
    }

    /// A socket for echo requests. The kernel chooses their identifier.
    ///
    /// # Errors
    ///
    /// As for [`HostSocket::udp`]; `EACCES` if the host does not allow this process to ping.
    pub(crate) fn ping(is_v6: bool) -> Result<HostSocket, Errno> {
        HostSocket::new(is_v6, if is_v6 { ipproto::ICMPV6 } else { ipproto::ICMP })
    }

    /// A UDP socket without GRO.
    ///
    /// # Errors
    ///
    /// As for [`HostSocket::udp`].
    pub(crate) fn udp_without_gro(is_v6: bool) -> Result<HostSocket, Errno> {
        HostSocket::new(is_v6, ipproto::UDP)
    }

    /// A UDP socket that receives a multicast group on one link of the host and sends to it. It
    /// shares the port with others, and is bound to the group's address, so it takes no datagrams
    /// sent to the host's own addresses.
    ///
    /// # Errors
    ///
    /// The link is gone, or another socket has the port exclusively.
    pub(crate) fn multicast(
        group: SocketAddr,
        hops: u8,
        (index, name): (u32, &str),
    ) -> Result<HostSocket, Errno> {
        let socket = HostSocket::udp_without_gro(group.is_ipv6())?;
        setsockopt(&socket.fd, BindToDevice, &name.into())?;
        set_socket_reuseaddr(&socket.fd, true).map_err(errno)?;
        socket.set_multicast_hops(hops)?;
        match group {
            SocketAddr::V4(group) => {
                let any = Ipv4Addr::UNSPECIFIED;
                rustix::net::bind(&socket.fd, &group).map_err(errno)?;
                set_ip_add_membership_with_ifindex(&socket.fd, group.ip(), &any, index)
            }
            SocketAddr::V6(group) => {
                set_ipv6_v6only(&socket.fd, true).map_err(errno)?;
                let bound = SocketAddrV6::new(*group.ip(), group.port(), 0, index);
                rustix::net::bind(&socket.fd, &bound).map_err(errno)?;
                set_ipv6_add_membership(&socket.fd, group.ip(), index)
            }
        }
        .map_err(errno)?;
        Ok(socket)
    }

    /// Sets the hop limit of multicasts.
    ///
    /// # Errors
    ///
    /// None known.
    pub(crate) fn set_multicast_hops(&self, hops: u8) -> Result<(), Errno> {
        match self.is_v6 {
            true => set_ipv6_multicast_hops(&self.fd, hops.into()),
            false => set_ip_multicast_ttl(&self.fd, hops.into()),
        }
        .map_err(errno)
    }

    /// Sets the link that multicasts are sent on.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub(crate) fn set_multicast_link(&self, index: u32) -> Result<(), Errno> {
        let any = Ipv4Addr::UNSPECIFIED;
        match self.is_v6 {
            true => set_ipv6_multicast_if(&self.fd, index),
            false => set_ip_multicast_if_with_ifindex(&self.fd, &any, &any, index),
        }
        .map_err(errno)
    }

    fn new(is_v6: bool, protocol: Protocol) -> Result<HostSocket, Errno> {
        let family = if is_v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::DGRAM, flags, Some(protocol)).map_err(errno)?;
        if is_v6 {
            setsockopt(&fd, Ipv6RecvErr, &true)?;
        } else {
            setsockopt(&fd, Ipv4RecvErr, &true)?;
        }
        Ok(HostSocket { fd, is_v6, options: None, is_enlarged: false, is_wildcard: false })
    }

    /// Binds the socket to an address of the host or to the wildcard address, for this version of
    /// IP alone.
    ///
    /// # Errors
    ///
    /// The address is in use, or the host does not have it.
    pub(crate) fn bind(&mut self, address: SocketAddr) -> Result<(), Errno> {
        if self.is_v6 {
            set_ipv6_v6only(&self.fd, true).map_err(errno)?;
        }
        self.is_wildcard = address.ip().is_unspecified();
        if self.is_wildcard {
            match self.is_v6 {
                true => setsockopt(&self.fd, Ipv6RecvPacketInfo, &true)?,
                false => setsockopt(&self.fd, Ipv4PacketInfo, &true)?,
            }
        }
        rustix::net::bind(&self.fd, &address).map_err(errno)
    }

    /// Connects the socket, so that it only receives from `peer`.
    ///
    /// # Errors
    ///
    /// The host has no route to `peer`.
    pub(crate) fn connect(&self, peer: SocketAddr) -> Result<(), Errno> {
        rustix::net::connect(&self.fd, &peer).map_err(errno)
    }

    /// Enlarges the receive buffer as far as the host allows (`net.core.rmem_max`).
    pub(crate) fn enlarge_buffer(&mut self) {
        if !self.is_enlarged {
            self.is_enlarged = true;
            // With a smaller buffer, more datagrams are lost, and nothing else fails.
            let _ = set_socket_recv_buffer_size(&self.fd, RECEIVE_BUFFER);
        }
    }

    /// Sends a datagram, from a given address of the host if there is one; with `segment`, a GSO
    /// batch of datagrams of that many bytes each, of which the last may be shorter.
    ///
    /// # Errors
    ///
    /// It was not sent.
    pub(crate) fn send(
        &mut self,
        (to, from): (SocketAddr, Option<LocalAddress>),
        options: SendOptions,
        parts: &[&[u8]],
        segment: Option<u16>,
    ) -> Result<(), Errno> {
        self.apply_options(options)?;
        let mut slices = [IoSlice::new(&[]); 2];
        let slices = &mut slices[..parts.len().min(2)];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let info = from.map(LocalAddress::packet_info);
        let from = info.as_ref().map(PacketInfo::message);
        let gso = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let control = match (from, gso) {
            (Some(from), Some(gso)) => &[from, gso][..],
            (Some(from), None) => &[from],
            (None, Some(gso)) => &[gso],
            (None, None) => &[],
        };
        let to = SockaddrStorage::from(to);
        let send =
            || sendmsg(self.fd.as_raw_fd(), slices, control, MsgFlags::MSG_DONTWAIT, Some(&to));
        match send() {
            // The error may be that of an earlier datagram, which the kernel returns once.
            Err(error) if error != Errno::EAGAIN => send(),
            result => result,
        }
        .map(drop)
    }

    fn apply_options(&mut self, options: SendOptions) -> Result<(), Errno> {
        let applied = self.options;
        if applied.map(|applied| applied.hop_limit) != Some(options.hop_limit) {
            let result = match self.is_v6 {
                true => set_ipv6_unicast_hops(&self.fd, Some(options.hop_limit)),
                false => set_ip_ttl(&self.fd, options.hop_limit.into()),
            };
            result.map_err(errno)?;
        }
        if applied.map(|applied| applied.may_fragment) != Some(options.may_fragment) {
            let result = match (self.is_v6, options.may_fragment) {
                (true, true) => set_ipv6_mtu_discover(&self.fd, Ipv6PathMtuDiscovery::DONT),
                (true, false) => set_ipv6_mtu_discover(&self.fd, Ipv6PathMtuDiscovery::DO),
                (false, true) => set_ip_mtu_discover(&self.fd, Ipv4PathMtuDiscovery::DONT),
                (false, false) => set_ip_mtu_discover(&self.fd, Ipv4PathMtuDiscovery::DO),
            };
            result.map_err(errno)?;
        }
        self.options = Some(options);
        Ok(())
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A datagram, or a GRO batch of datagrams of `segment` bytes each, of which the last may be
/// shorter.
pub(crate) struct HostDatagram<'a> {
    pub from: SocketAddr,
    /// The address that it was sent to, if the socket is bound to the wildcard address.
    pub local: Option<LocalAddress>,
    pub bytes: &'a [u8],
    pub segment: usize,
}

impl HostDatagram<'_> {
    /// Reads a control message.
    fn note(&mut self, message: &ControlMessageOwned) {
        match message {
            ControlMessageOwned::UdpGroSegments(bytes @ 1..) => self.segment = *bytes as usize,
            message => self.local = LocalAddress::read(message).or(self.local),
        }
    }
}

/// An error that the network or the host reports about a packet.
pub(crate) struct HostError<'a> {
    /// The packet's destination; the port is 0 for an echo request.
    pub destination: SocketAddr,
    /// The packet's source address, like [`HostDatagram::local`].
    pub local: Option<LocalAddress>,
    pub report: ErrorReport,
    /// The packet behind its IP header (echo) or UDP header, possibly truncated.
    pub quoted: &'a [u8],
}

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrorReport {
    /// An ICMP error of the socket's IP version, from `from`.
    Icmp { from: IpAddr, kind: u8, code: u8, info: u32 },
    /// The packet exceeds the path MTU.
    TooBig { mtu: u32 },
    /// Another error of the host.
    Local(Errno),
}

/// Buffers to receive into, shared by all sockets of a kind.
pub(crate) struct ReceiveBuffers {
    room: Vec<u8>,
}

impl Default for ReceiveBuffers {
    fn default() -> ReceiveBuffers {
        // Zeroed memory of this size is not resident before it is written.
        ReceiveBuffers { room: vec![0; BATCH * MAX_DATAGRAM] }
    }
}

impl ReceiveBuffers {
    /// Receives at most `limit` and [`BATCH`] messages. Returns how many there were.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is nothing. Other errors are returned once, and are in the error queue,
    /// too.
    pub(crate) fn receive(
        &mut self,
        socket: &HostSocket,
        limit: usize,
        mut each: impl FnMut(HostDatagram<'_>),
    ) -> Result<usize, Errno> {
        // Allocated for each call, which stores sizes in them.
        let control = match socket.is_wildcard {
            true => nix::cmsg_space!(i32, in6_pktinfo),
            false => nix::cmsg_space!(i32),
        };
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(control));
        let chunks = self.room.chunks_exact_mut(MAX_DATAGRAM).take(limit);
        let mut rooms: Vec<_> = chunks.map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = socket.fd.as_raw_fd();
        let mut count = 0;
        for message in recvmmsg(fd, &mut headers, rooms.iter_mut(), flags, None)? {
            count += 1;
            let bytes = message.iovs().next().unwrap_or_default();
            let Some(from) = address(&message) else { continue };
            let mut datagram = HostDatagram { from, local: None, bytes, segment: bytes.len() };
            message.cmsgs().into_iter().flatten().for_each(|control| datagram.note(&control));
            each(datagram);
        }
        Ok(count)
    }

    /// Takes an error from a socket's error queue; `None` if that is empty.
    pub(crate) fn next_error(&mut self, socket: &HostSocket) -> Option<HostError<'_>> {
        let mut control = nix::cmsg_space!([u8; 64], in6_pktinfo);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let (destination, local, report, length) = {
            let mut room = [IoSliceMut::new(&mut self.room[..MAX_QUOTE])];
            let fd = socket.fd.as_raw_fd();
            let message: RecvMsg<'_, '_, SockaddrStorage> =
                recvmsg(fd, &mut room, Some(&mut control), flags).ok()?;
            let unspecified = match socket.is_v6 {
                true => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                false => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            };
            let report = message.cmsgs().ok()?.find_map(|message| report(&message))?;
            let local = message.cmsgs().ok()?.find_map(|message| LocalAddress::read(&message));
            (address(&message).unwrap_or(unspecified), local, report, message.bytes)
        };
        Some(HostError { destination, local, report, quoted: &self.room[..length] })
    }
}

fn address(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<SocketAddr> {
    let address = message.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|from| SocketAddrV4::from(*from).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|from| SocketAddrV6::from(*from).into()))
}

fn report(message: &ControlMessageOwned) -> Option<ErrorReport> {
    let (error, from) = match message {
        ControlMessageOwned::Ipv4RecvErr(error, from) => {
            let from = from.map(|from| Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes()).into());
            (error, from)
        }
        ControlMessageOwned::Ipv6RecvErr(error, from) => {
            (error, from.map(|from| Ipv6Addr::from(from.sin6_addr.s6_addr).into()))
        }
        _ => return None,
    };
    let from: Option<IpAddr> = from;
    let (kind, code, info) = (error.ee_type, error.ee_code, error.ee_info);
    Some(match (Errno::from_raw(error.ee_errno as i32), from) {
        (_, Some(from)) if BY_ICMP.contains(&error.ee_origin) => {
            ErrorReport::Icmp { from, kind, code, info }
        }
        (Errno::EMSGSIZE, _) => ErrorReport::TooBig { mtu: info },
        (other, _) => ErrorReport::Local(other),
    })
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

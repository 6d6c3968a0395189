//! Datagram sockets of the host, UDP and ping: what is sent through them, what comes back, and the
//! errors that the network reports.
//!
//! They are not connected: one socket serves all destinations of a flow. The kernel keeps each
//! ICMP error in the socket's error queue (`IP_RECVERR`, ip(7)), with the router that sent it and
//! the destination it is about, so nothing is lost by that.

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

use super::local_address::{LocalAddress, PacketInfo};

/// Longest datagram, and longest train of them that the kernel puts together (udp(7), `UDP_GRO`).
const MAX_DATAGRAM: usize = 65_535;
/// Messages taken with one call. Sixteen trains are a thousand datagrams.
pub(crate) const BATCH: usize = 16;
/// Bytes that a busy socket asks for.
const WIDE: usize = 4 << 20;
/// What the kernel quotes of a packet that an error is about, and more.
const MAX_QUOTE: usize = 1500;
/// `ee_origin` of an error that came by ICMP, and by ICMPv6 (ip(7)).
const BY_ICMP: [u8; 2] = [2, 3];

/// A datagram socket of the host, which does not block.
pub(crate) struct HostSocket {
    fd: OwnedFd,
    is_v6: bool,
    /// What the kernel was last told of how to send.
    manner: Option<Manner>,
    is_wide: bool,
    /// Each datagram comes with the address of the host that it was sent to.
    is_anywhere: bool,
}

/// The addresses that stand for all of the host's, one for each version of IP that it has. (If it has
/// neither, both: to listen there says why that cannot be.)
pub(super) fn wildcards() -> Vec<IpAddr> {
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let is_had = |address: &IpAddr| {
        !matches!(HostSocket::single(address.is_ipv6()), Err(Errno::EAFNOSUPPORT))
    };
    let had: Vec<IpAddr> = all.into_iter().filter(is_had).collect();
    if had.is_empty() { all.to_vec() } else { had }
}

/// How packets are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manner {
    /// Routers that they may pass, and the host that they reach; at least 1.
    pub hop_limit: u8,
    /// Whether they may be cut where the way is too narrow for them.
    pub may_fragment: bool,
}

impl HostSocket {
    /// A UDP socket; its port is chosen when it sends first.
    ///
    /// # Errors
    /// Out of descriptors or memory, or the host does not have this version of IP.
    pub fn udp(is_v6: bool) -> Result<HostSocket, Errno> {
        let socket = HostSocket::new(is_v6, ipproto::UDP)?;
        setsockopt(&socket.fd, UdpGroSegment, &true)?;
        Ok(socket)
    }

    /// A socket for echo requests; the kernel chooses their identifier.
    ///
    /// # Errors
    /// As for [`HostSocket::udp`]; `EACCES` where the host does not let this process ping.
    pub fn ping(is_v6: bool) -> Result<HostSocket, Errno> {
        HostSocket::new(is_v6, if is_v6 { ipproto::ICMPV6 } else { ipproto::ICMP })
    }

    /// A UDP socket that takes datagrams one by one.
    ///
    /// # Errors
    /// As for [`HostSocket::udp`].
    pub fn single(is_v6: bool) -> Result<HostSocket, Errno> {
        HostSocket::new(is_v6, ipproto::UDP)
    }

    /// A UDP socket that hears what is sent to a group on one link of the host, beside others that do,
    /// and speaks to the group there. It is bound to the group's address: what is for the host's own
    /// ones is not taken from anybody.
    ///
    /// # Errors
    /// The link is gone, or somebody has the group's port for himself.
    pub fn group(
        group: SocketAddr,
        hops: u8,
        (index, name): (u32, &str),
    ) -> Result<HostSocket, Errno> {
        let socket = HostSocket::single(group.is_ipv6())?;
        setsockopt(&socket.fd, BindToDevice, &name.into())?;
        set_socket_reuseaddr(&socket.fd, true).map_err(errno)?;
        socket.set_group_hops(hops)?;
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

    /// How many routers what it sends to groups may pass, and one.
    ///
    /// # Errors
    /// None that is known.
    pub fn set_group_hops(&self, hops: u8) -> Result<(), Errno> {
        match self.is_v6 {
            true => set_ipv6_multicast_hops(&self.fd, hops.into()),
            false => set_ip_multicast_ttl(&self.fd, hops.into()),
        }
        .map_err(errno)
    }

    /// The link of the host on which it speaks to groups.
    ///
    /// # Errors
    /// The link is gone.
    pub fn set_group_link(&self, index: u32) -> Result<(), Errno> {
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
        Ok(HostSocket { fd, is_v6, manner: None, is_wide: false, is_anywhere: false })
    }

    /// Binds it to an address of the host, or to all of them, for this version of IP alone.
    ///
    /// # Errors
    /// The address is none of the host's, or taken.
    pub fn bind(&mut self, address: SocketAddr) -> Result<(), Errno> {
        if self.is_v6 {
            set_ipv6_v6only(&self.fd, true).map_err(errno)?;
        }
        self.is_anywhere = address.ip().is_unspecified();
        if self.is_anywhere {
            match self.is_v6 {
                true => setsockopt(&self.fd, Ipv6RecvPacketInfo, &true)?,
                false => setsockopt(&self.fd, Ipv4PacketInfo, &true)?,
            }
        }
        rustix::net::bind(&self.fd, &address).map_err(errno)
    }

    /// Takes datagrams from nobody else than `peer` from now on.
    ///
    /// # Errors
    /// There is no way there.
    pub fn connect(&self, peer: SocketAddr) -> Result<(), Errno> {
        rustix::net::connect(&self.fd, &peer).map_err(errno)
    }

    /// Gives it as much room for what arrives as the host allows (`net.core.rmem_max`), because more
    /// comes at a time than is taken.
    pub fn widen(&mut self) {
        if !self.is_wide {
            self.is_wide = true;
            // With less room, more is lost: that is all.
            let _ = set_socket_recv_buffer_size(&self.fd, WIDE);
        }
    }

    /// Sends a datagram to an address, from one of the host's if that is given; with `segment`, a
    /// train of datagrams of that many bytes each, of which the last may be shorter.
    ///
    /// # Errors
    /// It was not sent.
    pub fn send(
        &mut self,
        (to, from): (SocketAddr, Option<LocalAddress>),
        manner: Manner,
        parts: &[&[u8]],
        segment: Option<u16>,
    ) -> Result<(), Errno> {
        self.set_manner(manner)?;
        let mut slices = [IoSlice::new(&[]); 2];
        let slices = &mut slices[..parts.len().min(2)];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let info = from.map(LocalAddress::packet_info);
        let from = info.as_ref().map(PacketInfo::message);
        let train = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let control = match (from, train) {
            (Some(from), Some(train)) => &[from, train][..],
            (Some(from), None) => &[from],
            (None, Some(train)) => &[train],
            (None, None) => &[],
        };
        let to = SockaddrStorage::from(to);
        let send =
            || sendmsg(self.fd.as_raw_fd(), slices, control, MsgFlags::MSG_DONTWAIT, Some(&to));
        match send() {
            // It may be the error of an earlier datagram, which is told once.
            Err(error) if error != Errno::EAGAIN => send(),
            result => result,
        }
        .map(drop)
    }

    fn set_manner(&mut self, manner: Manner) -> Result<(), Errno> {
        let told = self.manner;
        if told.map(|told| told.hop_limit) != Some(manner.hop_limit) {
            let result = match self.is_v6 {
                true => set_ipv6_unicast_hops(&self.fd, Some(manner.hop_limit)),
                false => set_ip_ttl(&self.fd, manner.hop_limit.into()),
            };
            result.map_err(errno)?;
        }
        if told.map(|told| told.may_fragment) != Some(manner.may_fragment) {
            let result = match (self.is_v6, manner.may_fragment) {
                (true, true) => set_ipv6_mtu_discover(&self.fd, Ipv6PathMtuDiscovery::DONT),
                (true, false) => set_ipv6_mtu_discover(&self.fd, Ipv6PathMtuDiscovery::DO),
                (false, true) => set_ip_mtu_discover(&self.fd, Ipv4PathMtuDiscovery::DONT),
                (false, false) => set_ip_mtu_discover(&self.fd, Ipv4PathMtuDiscovery::DO),
            };
            result.map_err(errno)?;
        }
        self.manner = Some(manner);
        Ok(())
    }
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What came with one message: a datagram, or a train of datagrams of `segment` bytes each, of
/// which the last may be shorter.
pub(crate) struct Arrival<'a> {
    pub from: SocketAddr,
    /// Where it was sent, if the socket is bound to all addresses of the host.
    pub local: Option<LocalAddress>,
    pub bytes: &'a [u8],
    pub segment: usize,
}

impl Arrival<'_> {
    /// Takes what the kernel says of it.
    fn note(&mut self, message: &ControlMessageOwned) {
        match message {
            ControlMessageOwned::UdpGroSegments(bytes @ 1..) => self.segment = *bytes as usize,
            message => self.local = LocalAddress::read(message).or(self.local),
        }
    }
}

/// What the network, or the host, says about a packet that was sent.
pub(crate) struct HostError<'a> {
    /// Where the packet was sent; the port is 0 for an echo request.
    pub destination: SocketAddr,
    /// The address of the host that it left from, as [`Arrival::local`] has it.
    pub local: Option<LocalAddress>,
    pub report: ErrorReport,
    /// What stood in the packet behind its IP header (echo) or UDP header, or its beginning.
    pub quoted: &'a [u8],
}

/// The report itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ErrorReport {
    /// An ICMP error of the socket's version, from `from`.
    Icmp { from: IpAddr, kind: u8, code: u8, info: u32 },
    /// The way is too narrow for the packet: it takes at most `mtu` bytes.
    TooBig { mtu: u32 },
    /// Something else that the host itself found.
    Local(Errno),
}

/// Room to receive into, for all sockets of a kind.
pub(crate) struct Receiver {
    room: Vec<u8>,
}

impl Default for Receiver {
    fn default() -> Receiver {
        // Zeroed memory of this size costs nothing before it is written.
        Receiver { room: vec![0; BATCH * MAX_DATAGRAM] }
    }
}

impl Receiver {
    /// Takes what a socket has, at most `limit` messages and [`BATCH`]; how many there were.
    ///
    /// # Errors
    /// `EAGAIN`: nothing is there. Others are told once, and are in the error queue as well.
    pub fn receive(
        &mut self,
        socket: &HostSocket,
        limit: usize,
        mut each: impl FnMut(Arrival<'_>),
    ) -> Result<usize, Errno> {
        // Made anew each time: a call leaves the sizes that it found in them.
        let control = match socket.is_anywhere {
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
            let mut arrival = Arrival { from, local: None, bytes, segment: bytes.len() };
            message.cmsgs().into_iter().flatten().for_each(|control| arrival.note(&control));
            each(arrival);
        }
        Ok(count)
    }

    /// Takes one error out of a socket's queue; `None` if there is none.
    pub fn next_error(&mut self, socket: &HostSocket) -> Option<HostError<'_>> {
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

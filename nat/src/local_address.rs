//! The local address of a datagram, so that its answer leaves from there. A socket bound to the
//! wildcard address receives it with each datagram, and passes it with each one that it sends
//! (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542, 6).

use std::net::{Ipv4Addr, Ipv6Addr};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, ControlMessageOwned};

/// An address of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LocalAddress {
    V4(Ipv4Addr),
    /// `link` is the interface's index for a link-local address, and otherwise 0: the host's
    /// routing chooses.
    V6 {
        address: Ipv6Addr,
        link: u32,
    },
}

impl LocalAddress {
    /// Reads the address from a control message. `None` if it is of another kind, or the datagram
    /// was sent to an IPv6 group, which cannot be a source address.
    pub(crate) fn read(message: &ControlMessageOwned) -> Option<LocalAddress> {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => read4(info),
            ControlMessageOwned::Ipv6PacketInfo(info) => read6(info),
            _ => None,
        }
    }

    /// The address as the kernel takes it.
    pub(crate) fn packet_info(self) -> PacketInfo {
        match self {
            LocalAddress::V4(address) => PacketInfo::V4(in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: in_addr { s_addr: 0 },
            }),
            LocalAddress::V6 { address, link } => PacketInfo::V6(in6_pktinfo {
                ipi6_addr: in6_addr { s6_addr: address.octets() },
                ipi6_ifindex: link,
            }),
        }
    }
}

/// For a broadcast or an IPv4 group, the kernel gives the address to answer from (`ipi_spec_dst`).
/// For an error it does not; then `ipi_addr` is the source of the datagram.
fn read4(info: &in_pktinfo) -> Option<LocalAddress> {
    let addresses = [info.ipi_spec_dst, info.ipi_addr];
    let mut addresses = addresses.map(|it| Ipv4Addr::from(it.s_addr.to_ne_bytes())).into_iter();
    addresses.find(|address| !address.is_unspecified()).map(LocalAddress::V4)
}

fn read6(info: &in6_pktinfo) -> Option<LocalAddress> {
    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
    let link = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
    (!address.is_multicast()).then_some(LocalAddress::V6 { address, link })
}

/// See [`LocalAddress::packet_info`].
pub(crate) enum PacketInfo {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl PacketInfo {
    pub(crate) fn message(&self) -> ControlMessage<'_> {
        match self {
            PacketInfo::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            PacketInfo::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

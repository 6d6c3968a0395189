//! Frames and packets: parsed from guests, and built for them.

pub(crate) mod icmp;
pub(crate) mod icmp_error;
pub mod inbound;
pub mod neighbour;
pub mod outbound;
pub mod received;

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, IpRepr, Ipv4Repr, Ipv6Repr, UDP_HEADER_LEN,
    UdpPacket, UdpRepr,
};
use trama_frame::MacAddr;

/// Shortest Ethernet frame without its FCS (IEEE 802.3, 4A.4.2).
pub const MIN_FRAME: usize = 60;
/// Hop limit of packets that the gateway sends.
pub const HOP_LIMIT: u8 = 64;

/// All checksums are computed and verified in software.
pub fn checksums() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

/// A MAC address as smoltcp has it.
pub fn ethernet_address(mac: MacAddr) -> EthernetAddress {
    EthernetAddress(mac.0)
}

/// A frame with `len` bytes of payload, which `fill` writes over zeros.
pub fn frame(
    from: MacAddr,
    to: MacAddr,
    ethertype: EthernetProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; (ETHERNET_HEADER_LEN + len).max(MIN_FRAME)];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    let header = EthernetRepr {
        src_addr: ethernet_address(from),
        dst_addr: ethernet_address(to),
        ethertype,
    };
    header.emit(&mut frame);
    fill(&mut frame.payload_mut()[..len]);
    bytes
}

/// A frame with an IP packet of `len` bytes of payload, which `fill` writes.
pub fn ip_frame(
    (from, to): (MacAddr, MacAddr),
    (src, dst): (IpAddr, IpAddr),
    (protocol, hop_limit): (IpProtocol, u8),
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<Vec<u8>> {
    let repr = ip_repr(src, dst, protocol, hop_limit, len)?;
    let ethertype = match &repr {
        IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
        IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    let header = repr.header_len();
    Some(frame(from, to, ethertype, header + len, |packet| {
        let (head, payload) = packet.split_at_mut(header);
        fill(payload);
        repr.emit(head, &checksums());
    }))
}

fn ip_repr(
    src: IpAddr,
    dst: IpAddr,
    next_header: IpProtocol,
    hop_limit: u8,
    payload_len: usize,
) -> Option<IpRepr> {
    match (src, dst) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            Some(Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }.into())
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            Some(Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }.into())
        }
        _ => None,
    }
}

/// Bytes of IP and UDP header in front of a datagram's payload.
pub fn udp_overhead(address: IpAddr) -> usize {
    UDP_HEADER_LEN + if address.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
}

/// A frame with a UDP datagram; `None` if the two addresses are of different families.
pub fn udp_frame(
    macs: (MacAddr, MacAddr),
    (src, src_port): (IpAddr, u16),
    (dst, dst_port): (IpAddr, u16),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let len = UDP_HEADER_LEN + payload.len();
    ip_frame(macs, (src, dst), (IpProtocol::Udp, HOP_LIMIT), len, |bytes| {
        let copy = |room: &mut [u8]| room.copy_from_slice(payload);
        let repr = UdpRepr { src_port, dst_port };
        let mut packet = UdpPacket::new_unchecked(bytes);
        repr.emit(&mut packet, &src.into(), &dst.into(), payload.len(), copy, &checksums());
    })
}

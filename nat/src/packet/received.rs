//! Frames from the network, parsed once: everything after this works on what was found here.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, NdiscRepr,
};
use trama_frame::{MacAddr, VnetHeader};

use super::inbound::{Inbound, parse4, parse6};
use crate::drop_reason::DropReason;
use crate::io::PortMark;

/// A frame for the gateway, or for a group, with valid headers.
pub enum Frame<'a> {
    /// ARP.
    Arp(Arp),
    /// A whole IP packet.
    Packet(Inbound<'a>),
    /// A fragment of an IP packet. Its protocol is that of the whole packet for IPv4, and unknown
    /// for IPv6, where the payload starts with the fragment header.
    Fragment(Inbound<'a>),
}

impl Frame<'_> {
    /// The switch port that it came from.
    pub fn port(&self) -> PortMark {
        match self {
            Frame::Arp(arp) => arp.port,
            Frame::Packet(packet) | Frame::Fragment(packet) => packet.port,
        }
    }
}

/// An ARP packet of an Ethernet station about itself (RFC 826).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// The switch port that it came from.
    pub port: PortMark,
    /// The sender's MAC address.
    pub mac: MacAddr,
    /// Request or reply.
    pub operation: ArpOperation,
    /// The sender's address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The address that is asked for, or that of the receiver.
    pub target: Ipv4Addr,
}

/// A frame that is not for a flow.
pub struct Local<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// The address and MAC address of the sender, if the frame is an ARP reply or a neighbour
    /// advertisement.
    pub advertised: Option<(IpAddr, MacAddr)>,
}

/// Parses a frame that arrived at the station with the MAC address `own`.
///
/// # Errors
///
/// A header is not valid, the frame is for another station, or carries neither ARP nor IP.
pub fn parse(
    own: MacAddr,
    port: PortMark,
    offload: VnetHeader,
    bytes: &[u8],
) -> Result<Frame<'_>, DropReason> {
    let frame = EthernetFrame::new_checked(bytes).map_err(|_| DropReason::BadEthernet)?;
    let (mac, to) = (MacAddr(frame.src_addr().0), MacAddr(frame.dst_addr().0));
    if mac.is_multicast() || mac.is_zero() || mac == own {
        return Err(DropReason::BadEthernet);
    }
    if to != own && !to.is_multicast() {
        return Err(DropReason::OtherStation);
    }
    let (packet, is_fragment) = match frame.ethertype() {
        EthernetProtocol::Arp => return parse_arp(port, mac, frame.payload()).map(Frame::Arp),
        EthernetProtocol::Ipv4 => parse4(frame.payload())?,
        EthernetProtocol::Ipv6 => parse6(frame.payload())?,
        EthernetProtocol::Unknown(_) => return Err(DropReason::UnknownEthertype),
    };
    let packet = Inbound { port, mac, is_to_group: to.is_multicast(), offload, ..packet };
    Ok(if is_fragment { Frame::Fragment(packet) } else { Frame::Packet(packet) })
}

fn parse_arp(port: PortMark, mac: MacAddr, payload: &[u8]) -> Result<Arp, DropReason> {
    let packet = ArpPacket::new_checked(payload).map_err(|_| DropReason::BadArp)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: station,
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| DropReason::BadArp)?
    else {
        return Err(DropReason::BadArp);
    };
    if station.0 != mac.0 {
        return Err(DropReason::BadArp);
    }
    Ok(Arp { port, mac, operation, sender, target })
}

impl<'a> From<Frame<'a>> for Local<'a> {
    fn from(frame: Frame<'a>) -> Local<'a> {
        let advertised = match &frame {
            Frame::Arp(arp) if arp.operation == ArpOperation::Reply => {
                Some((arp.sender.into(), arp.mac))
            }
            Frame::Packet(packet) => advertised6(packet),
            Frame::Arp(_) | Frame::Fragment(_) => None,
        };
        Local { frame, advertised }
    }
}

/// The target of a neighbour advertisement (RFC 4861, 4.4), and the station that sent it.
fn advertised6(packet: &Inbound<'_>) -> Option<(IpAddr, MacAddr)> {
    let kind = packet.payload.first().map(|kind| Icmpv6Message::from(*kind));
    // RFC 4861, 7.1.2: a router would have decremented the hop limit.
    if packet.protocol != IpProtocol::Icmpv6
        || kind != Some(Icmpv6Message::NeighborAdvert)
        || packet.hop_limit != 255
    {
        return None;
    }
    let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.source, packet.destination) else {
        return None;
    };
    let message = Icmpv6Packet::new_checked(packet.payload).ok()?;
    match Icmpv6Repr::parse(&from, &to, &message, &packet.checksums()).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, .. }) => {
            Some((target_addr.into(), packet.mac))
        }
        _ => None,
    }
}

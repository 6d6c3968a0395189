//! A packet from one of the network's machines for an address outside.

use std::net::IpAddr;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};
use trama_frame::vnet::DATA_VALID;
use trama_frame::{MacAddr, VnetHeader};

use crate::config::{Config, Service, Transport};
use crate::dns;
use crate::drop_reason::DropReason;
use crate::gateway::PortId;
use crate::router::icmp::heard;
use crate::router::outbound::FRAGMENT_HEADER;
use crate::router::reflect;
use crate::router::udp::forward::STAND_INS;

/// A checked packet: its IP header is well-formed, its source one of the network's machines, its
/// destination none of them.
pub(crate) struct Inbound<'a> {
    /// The switch port that it came by.
    pub port: PortId,
    /// The station that sent it, and is to get the answers.
    pub mac: MacAddr,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: IpProtocol,
    pub hop_limit: u8,
    /// The IP packet, for errors that quote it.
    pub packet: &'a [u8],
    /// What the IP header is in front of.
    pub payload: &'a [u8],
    /// What the sender left to be done: a checksum, or a large packet's segments.
    pub offload: VnetHeader,
}

impl<'a> Inbound<'a> {
    /// Whether the packet may be cut on its way: its sender allows it or, for IPv6, has done so.
    pub(crate) fn may_fragment(&self) -> bool {
        match self.source {
            IpAddr::V4(_) => !Ipv4Packet::new_unchecked(self.packet).dont_frag(),
            // Reassembly leaves the fragment header in place.
            IpAddr::V6(_) => {
                Ipv6Packet::new_unchecked(self.packet).next_header() == IpProtocol::Ipv6Frag
            }
        }
    }

    /// A packet that was kept since it was checked, for an answer that quotes it.
    pub fn kept(port: PortId, mac: MacAddr, packet: &'a [u8]) -> Result<Inbound<'a>, DropReason> {
        let is_v4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
        let (mut bare, is_fragment) = if is_v4 { parse4(packet)? } else { parse6(packet)? };
        if let (true, Some((header, payload))) =
            (is_fragment, bare.payload.split_first_chunk::<FRAGMENT_HEADER>())
        {
            // Reassembly has left the header of an only fragment in front of the payload.
            (bare.protocol, bare.payload) = (header[0].into(), payload);
        }
        let offload = VnetHeader { flags: DATA_VALID, ..VnetHeader::default() };
        Ok(Inbound { port, mac, offload, ..bare })
    }
}

/// What a frame is to the router.
pub(crate) enum Arrival<'a> {
    /// A matter of the gateway's own services, or of nobody.
    Local,
    /// A packet for another network, or for a port of the gateway behind which flows are.
    Packet(Inbound<'a>),
    /// A part of one. Its protocol is that of the whole for IPv4, and unknown for IPv6, whose
    /// fragment header begins the payload.
    Fragment(Inbound<'a>),
    /// A datagram for a group by which machines find what is on the host's links.
    Group(Inbound<'a>),
}

/// Checks a frame for the gateway's station.
pub(crate) fn parse<'a>(
    config: &Config,
    port: PortId,
    offload: VnetHeader,
    bytes: &'a [u8],
) -> Result<Arrival<'a>, DropReason> {
    let Ok(frame) = EthernetFrame::new_checked(bytes) else { return Ok(Arrival::Local) };
    let mac = MacAddr(frame.src_addr().0);
    let is_group = frame.dst_addr().is_multicast() && reflect::is_on(config);
    let is_ours = frame.dst_addr().0 == config.mac;
    if !(is_ours || is_group) || mac.is_multicast() || mac.is_zero() {
        return Ok(Arrival::Local);
    }
    let (packet, is_fragment) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => parse4(frame.payload())?,
        EthernetProtocol::Ipv6 => parse6(frame.payload())?,
        _ => return Ok(Arrival::Local),
    };
    let packet = Inbound { port, mac, offload, ..packet };
    if is_group {
        let is_asked = !is_fragment && reflect::is_for_group(config, &packet);
        return Ok(if is_asked { Arrival::Group(packet) } else { Arrival::Local });
    }
    // What it is a part of shows in the whole.
    if is_fragment && config.has(packet.destination) {
        return Ok(Arrival::Fragment(packet));
    }
    if is_local(config, &packet) {
        return Ok(Arrival::Local);
    }
    if !may_send(config, &packet) {
        return Err(DropReason::ForeignSource);
    }
    Ok(if is_fragment { Arrival::Fragment(packet) } else { Arrival::Packet(packet) })
}

/// The IP packet in a frame, and whether it is a fragment; for tests that read what goes to machines.
#[cfg(test)]
pub(crate) fn read(frame: &[u8]) -> Result<(Inbound<'_>, bool), DropReason> {
    let is_v4 = frame[12..14] == [8, 0];
    if is_v4 { parse4(&frame[14..]) } else { parse6(&frame[14..]) }
}

/// A packet of which only the IP header is known yet.
fn bare<'a>(
    (source, destination): (IpAddr, IpAddr),
    (protocol, hop_limit): (IpProtocol, u8),
    packet: &'a [u8],
    payload: &'a [u8],
) -> Inbound<'a> {
    let (port, mac, offload) = (PortId(0), MacAddr([0; 6]), VnetHeader::default());
    Inbound { port, mac, source, destination, protocol, hop_limit, packet, payload, offload }
}

fn parse4(bytes: &[u8]) -> Result<(Inbound<'_>, bool), DropReason> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| DropReason::BadIp)?;
    if packet.version() != 4 || !packet.verify_checksum() {
        return Err(DropReason::BadIp);
    }
    let is_fragment = packet.more_frags() || packet.frag_offset() != 0;
    let addresses = (packet.src_addr().into(), packet.dst_addr().into());
    let kind = (packet.next_header(), packet.hop_limit());
    let whole = &bytes[..usize::from(packet.total_len())];
    let payload = &whole[usize::from(packet.header_len())..];
    Ok((bare(addresses, kind, whole, payload), is_fragment))
}

fn parse6(bytes: &[u8]) -> Result<(Inbound<'_>, bool), DropReason> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| DropReason::BadIp)?;
    if packet.version() != 6 {
        return Err(DropReason::BadIp);
    }
    let is_fragment = packet.next_header() == IpProtocol::Ipv6Frag;
    let addresses = (packet.src_addr().into(), packet.dst_addr().into());
    let kind = (packet.next_header(), packet.hop_limit());
    let whole = &bytes[..packet.total_len()];
    Ok((bare(addresses, kind, whole, &whole[packet.header_len()..]), is_fragment))
}

/// Whether `address` may be that of a machine of the network.
pub(crate) fn is_machine(config: &Config, address: IpAddr) -> bool {
    let inside = match address {
        IpAddr::V4(address) => config.ipv4.is_some_and(|subnet| subnet.is_host(address)),
        IpAddr::V6(address) => config.ipv6.is_some_and(|subnet| subnet.is_host(address)),
    };
    inside && !config.has(address)
}

/// Whether a whole packet is for the gateway's DNS by TCP, which networks without a way out have,
/// too.
pub(crate) fn asks_dns(config: &Config, packet: &Inbound<'_>) -> bool {
    let port = packet.payload.get(2..4).filter(|_| packet.protocol == IpProtocol::Tcp);
    port == Some(&dns::PORT.to_be_bytes()) && config.offers(Service::Dns, packet.destination)
}

/// Whether the sender of a whole packet is a machine of the network. DNS also answers one that has
/// no address but that of its link.
pub(crate) fn may_send(config: &Config, packet: &Inbound<'_>) -> bool {
    let source = packet.source;
    let is_near = matches!(source, IpAddr::V6(from) if from.is_unicast_link_local());
    is_machine(config, source) || is_near && !config.has(source) && asks_dns(config, packet)
}

/// Whether a whole packet stays in the network: for a group, for a neighbour, or for the gateway itself
/// unless a flow may be there. TCP is all the router's: the gateway has no other.
pub(crate) fn is_local(config: &Config, packet: &Inbound<'_>) -> bool {
    match packet.destination {
        own if config.has(own) => {
            let is_udp = packet.protocol == IpProtocol::Udp;
            let is_flows = is_udp && is_mapped(config, packet) || heard::is_error(packet);
            packet.protocol != IpProtocol::Tcp && !is_flows
        }
        IpAddr::V4(to) => {
            to.is_multicast()
                || to.is_broadcast()
                || config.ipv4.is_none_or(|subnet| subnet.contains(to))
        }
        IpAddr::V6(to) => {
            to.is_multicast()
                || to.is_unicast_link_local()
                || config.ipv6.is_none_or(|subnet| subnet.contains(to))
        }
    }
}

/// Whether a datagram for the gateway goes on to a service of the host's loopback, or to a client of
/// a port of the host that the gateway stands for.
fn is_mapped(config: &Config, packet: &Inbound<'_>) -> bool {
    let Some([_, _, high, low]) = packet.payload.first_chunk() else { return false };
    let port = u16::from_be_bytes([*high, *low]);
    let has_forwards = config.nat.as_ref().is_some_and(|nat| !nat.forwards.is_empty());
    if has_forwards && STAND_INS.contains(&port) {
        return true;
    }
    config.nat.iter().flat_map(|nat| &nat.loopback).any(|map| {
        map.transport == Transport::Udp
            && map.guest.ip() == packet.destination
            && map.guest.port() == port
    })
}

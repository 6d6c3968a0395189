//! Whose a frame is: the gateway's own services', or the router's.

use std::net::IpAddr;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol};
use trama_frame::{MacAddr, VnetHeader};

use super::reflect::groups::{group_of, is_on};
use crate::config::{Config, Service, Transport};
use crate::dns;
use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::packet::icmp;
use crate::packet::inbound::{Inbound, parse4, parse6};

/// Ports of the gateway that stand for clients: 32768 to 49151, beside those of its TFTP transfers.
pub(crate) const STAND_INS: std::ops::RangeInclusive<u16> = 0x8000..=0xbfff;

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
    let is_group = frame.dst_addr().is_multicast() && is_on(config);
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
        let is_asked = !is_fragment && is_for_group(config, &packet);
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

/// Whether a packet is a machine's, for a group that is reflected.
fn is_for_group(config: &Config, packet: &Inbound<'_>) -> bool {
    let is_near = match packet.source {
        IpAddr::V6(source) if source.is_unicast_link_local() => source != config.link_local(),
        source => is_machine(config, source),
    };
    packet.protocol == IpProtocol::Udp && is_near && group_of(config, packet).is_some()
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
            let is_flows = is_udp && is_mapped(config, packet) || icmp::is_error(packet);
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

//! Classifies frames: which belong to flows, and which to the gateway's own services.

use std::net::IpAddr;

use smoltcp::wire::IpProtocol;

use crate::dns;
use crate::drop_reason::DropReason;
use crate::packet::icmp;
use crate::packet::inbound::Inbound;
use crate::packet::received::Frame;
use crate::reflect::groups::{group_of, is_on};
use crate::rules::{Config, Transport};
use crate::station::Service;

/// Source ports of the gateway for masqueraded UDP clients: 32768 to 49151, apart from those of
/// TFTP.
pub(crate) const MASQUERADE_PORTS: std::ops::RangeInclusive<u16> = 0x8000..=0xbfff;

/// Where a frame belongs.
pub(crate) enum FrameClass<'a> {
    /// Not to a flow: to a service of the gateway, or to nothing.
    Local(Frame<'a>),
    /// A packet for another network, or for a port of the gateway that flows use.
    Packet(Inbound<'a>),
    /// A fragment of a packet for another network or for the gateway.
    Fragment(Inbound<'a>),
    /// A datagram to a multicast group that is reflected.
    Group(Inbound<'a>),
}

/// Classifies a frame. Without NAT, only fragments for the gateway and TCP to its DNS are not
/// local.
///
/// # Errors
///
/// A packet for a flow, but its sender is not a guest.
pub(crate) fn classify<'a>(
    config: Config<'_>,
    frame: Frame<'a>,
) -> Result<FrameClass<'a>, DropReason> {
    let (packet, is_fragment) = match &frame {
        Frame::Arp(_) => return Ok(FrameClass::Local(frame)),
        Frame::Packet(packet) => (*packet, false),
        Frame::Fragment(packet) => (*packet, true),
    };
    if packet.is_to_group {
        let is_asked = !is_fragment && is_on(config) && is_for_group(config, &packet);
        return Ok(if is_asked { FrameClass::Group(packet) } else { FrameClass::Local(frame) });
    }
    // Only the whole packet shows what it is.
    if is_fragment && config.station.has(packet.destination) {
        return Ok(FrameClass::Fragment(packet));
    }
    let is_allowed = is_allowed_source(config, &packet);
    let is_served = !is_fragment && is_allowed && is_tcp_dns(config, &packet);
    if is_local(config, &packet) || (config.rules.is_none() && !is_served) {
        return Ok(FrameClass::Local(frame));
    }
    if !is_allowed {
        // spec: rfc9293 MUST-63
        return Err(DropReason::ForeignSource);
    }
    Ok(if is_fragment { FrameClass::Fragment(packet) } else { FrameClass::Packet(packet) })
}

/// Whether a packet is from a guest and for a group that is reflected.
fn is_for_group(config: Config<'_>, packet: &Inbound<'_>) -> bool {
    let is_near = match packet.source {
        IpAddr::V6(source) if source.is_unicast_link_local() => {
            source != config.station.link_local()
        }
        source => config.station.is_guest(source),
    };
    packet.protocol == IpProtocol::Udp && is_near && group_of(config, packet).is_some()
}

/// Whether a whole packet is for the gateway's DNS over TCP, which is served without NAT, too.
pub(crate) fn is_tcp_dns(config: Config<'_>, packet: &Inbound<'_>) -> bool {
    let port = packet.payload.get(2..4).filter(|_| packet.protocol == IpProtocol::Tcp);
    port == Some(&dns::PORT.to_be_bytes())
        && config.station.offers(Service::Dns, packet.destination)
}

/// Whether the sender of a whole packet is a guest. DNS also answers guests that only have a
/// link-local address.
pub(crate) fn is_allowed_source(config: Config<'_>, packet: &Inbound<'_>) -> bool {
    let source = packet.source;
    let is_near = matches!(source, IpAddr::V6(from) if from.is_unicast_link_local());
    config.station.is_guest(source)
        || is_near && !config.station.has(source) && is_tcp_dns(config, packet)
}

/// Whether a whole packet stays in the network: it is for a group, for a neighbour, or for a
/// service of the gateway. All TCP to the gateway is handled as flows.
pub(crate) fn is_local(config: Config<'_>, packet: &Inbound<'_>) -> bool {
    match packet.destination {
        local if config.station.has(local) => {
            let is_udp = packet.protocol == IpProtocol::Udp;
            let is_flows = is_udp && is_mapped(config, packet) || icmp::is_error(packet);
            packet.protocol != IpProtocol::Tcp && !is_flows
        }
        // spec: rfc9293 MUST-57
        IpAddr::V4(to) => {
            to.is_multicast()
                || to.is_broadcast()
                || config.station.ipv4.is_none_or(|subnet| subnet.contains(&to))
        }
        IpAddr::V6(to) => {
            to.is_multicast()
                || to.is_unicast_link_local()
                || config.station.ipv6.is_none_or(|subnet| subnet.contains(&to))
        }
    }
}

/// Whether a datagram to the gateway is for a loopback map, or for a masqueraded client.
fn is_mapped(config: Config<'_>, packet: &Inbound<'_>) -> bool {
    let Some([_, _, high, low]) = packet.payload.first_chunk() else { return false };
    let port = u16::from_be_bytes([*high, *low]);
    let has_forwards = config.rules.is_some_and(|nat| !nat.forwards.is_empty());
    if has_forwards && MASQUERADE_PORTS.contains(&port) {
        return true;
    }
    config.rules.iter().flat_map(|nat| &nat.loopback).any(|map| {
        map.transport == Transport::Udp
            && map.guest.ip() == packet.destination
            && map.guest.port() == port
    })
}

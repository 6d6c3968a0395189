//! IP packets for the gateway: strict checks, and echo replies (RFC 792, RFC 4443).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, NdiscRepr, UdpPacket, UdpRepr,
};
use trama_nat::packet::inbound::Inbound;
use trama_nat::packet::{HOP_LIMIT, checksums, ip_frame};
use trama_nat::{is_broadcast, is_host4, is_host6};

use crate::arp_ndp::{Solicitation, advertise};
use crate::config::Config;
use crate::drop_reason::NatDrop;

/// All routers of the link, and all DHCPv6 servers (RFC 4291, 2.7.1; RFC 8415, 7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Whether it is a router solicitation.
pub(crate) fn is_router_solicitation(packet: &Inbound<'_>) -> bool {
    packet.protocol == IpProtocol::Icmpv6 && packet.payload.first() == Some(&133)
}

/// Whether it is to the port of a DHCPv4 server. Its sender may have no address, or be on another
/// link.
fn is_dhcp(packet: &Inbound<'_>) -> bool {
    packet.source.is_ipv4() && destination_port(packet) == Some(trama_dhcp::wire::SERVER_PORT)
}

/// Whether it is to the port of a DHCPv6 server, the only service with a group.
fn is_dhcp6(packet: &Inbound<'_>) -> bool {
    packet.source.is_ipv6() && destination_port(packet) == Some(trama_dhcp::dhcp6::SERVER_PORT)
}

fn destination_port(packet: &Inbound<'_>) -> Option<u16> {
    let port = packet.payload.get(2..4).filter(|_| packet.protocol == IpProtocol::Udp)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

/// Checks that a packet is for the gateway and from its network.
///
/// # Errors
///
/// It is not.
pub(crate) fn check(config: &Config, packet: &Inbound<'_>) -> Result<(), NatDrop> {
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            check4(config, packet, source, destination)?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            check6(config, packet, source, destination)?;
        }
        _ => return Err(NatDrop::BadIp),
    }
    // A unicast packet in a multicast frame may be an attack (RFC 1122, 3.3.6, and RFC 8021 for
    // IPv6).
    if packet.is_to_group && !packet.destination.is_multicast() && !is_dhcp(packet) {
        return Err(NatDrop::OtherAddress);
    }
    Ok(())
}

fn check4(
    config: &Config,
    packet: &Inbound<'_>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> Result<(), NatDrop> {
    let subnet = config.station.ipv4.ok_or(NatDrop::OtherAddress)?;
    let is_dhcp = is_dhcp(packet);
    let is_unicast = !source.is_multicast() && !source.is_broadcast() && !source.is_loopback();
    let is_known_source = if is_dhcp { is_unicast } else { is_host4(subnet, source) };
    if !is_known_source || config.station.has(source.into()) {
        return Err(NatDrop::ForeignSource);
    }
    let to_all = destination.is_broadcast() || is_broadcast(subnet, destination);
    let is_accepted = config.station.has(destination.into()) || (is_dhcp && to_all);
    if is_accepted { Ok(()) } else { Err(NatDrop::OtherAddress) }
}

fn check6(
    config: &Config,
    packet: &Inbound<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<(), NatDrop> {
    let subnet = config.station.ipv6.ok_or(NatDrop::OtherAddress)?;
    let is_on_link = source.is_unicast_link_local() || is_host6(subnet, source);
    // The unspecified address is the source of duplicate address detection.
    if (!is_on_link && !source.is_unspecified()) || config.station.has(source.into()) {
        return Err(NatDrop::ForeignSource);
    }
    let is_local = config.station.has(destination.into()) || is_solicited_node(config, destination);
    let to_routers = destination == ALL_ROUTERS && is_router_solicitation(packet);
    let to_servers = destination == ALL_DHCP_SERVERS && is_dhcp6(packet);
    if is_local || to_routers || to_servers { Ok(()) } else { Err(NatDrop::OtherAddress) }
}

/// Whether this is the solicited-node group of one of the gateway's addresses.
fn is_solicited_node(config: &Config, group: Ipv6Addr) -> bool {
    let main = config.station.ipv6.map(|subnet| subnet.addr());
    let service_addresses =
        config.station.service_addresses.iter().filter_map(|(address, _)| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
    let mut all = service_addresses.chain(main).chain([config.station.link_local()]);
    all.any(|address| solicited_node(address) == group)
}

/// The solicited-node group of an address (RFC 4291, 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a & 0xff, b)
}

/// The frame that answers a packet other than UDP.
pub(crate) fn answer(config: &Config, packet: &Inbound<'_>) -> Result<Vec<u8>, NatDrop> {
    match (packet.protocol, packet.source, packet.destination) {
        (IpProtocol::Icmp, IpAddr::V4(source), IpAddr::V4(destination)) => {
            echo4(config, packet, source, destination)
        }
        (IpProtocol::Icmpv6, IpAddr::V6(source), IpAddr::V6(destination)) => {
            icmp6(config, packet, source, destination)
        }
        _ => Err(NatDrop::UnknownProtocol),
    }
}

fn echo4(
    config: &Config,
    packet: &Inbound<'_>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> Result<Vec<u8>, NatDrop> {
    let message = Icmpv4Packet::new_checked(packet.payload).map_err(|_| NatDrop::BadIcmp)?;
    let message = Icmpv4Repr::parse(&message, &packet.checksums()).map_err(|_| NatDrop::BadIcmp)?;
    let Icmpv4Repr::EchoRequest { ident, seq_no, data } = message else {
        return Err(NatDrop::IcmpUnanswered);
    };
    let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
    let (macs, ips) = ((config.station.mac(), packet.mac), (destination.into(), source.into()));
    ip_frame(macs, ips, (IpProtocol::Icmp, HOP_LIMIT), reply.buffer_len(), |bytes| {
        reply.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums());
    })
    .ok_or(NatDrop::BadIcmp)
}

fn icmp6(
    config: &Config,
    packet: &Inbound<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<Vec<u8>, NatDrop> {
    let message = Icmpv6Packet::new_checked(packet.payload).map_err(|_| NatDrop::BadIcmp)?;
    let code = message.msg_code();
    let message = Icmpv6Repr::parse(&source, &destination, &message, &packet.checksums())
        .map_err(|_| NatDrop::BadIcmp)?;
    match message {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, lladdr }) => {
            if code != 0 {
                return Err(NatDrop::BadIcmp);
            }
            let Inbound { mac: from, hop_limit, .. } = *packet;
            let has_source_link_layer = lladdr.is_some();
            let asked = Solicitation {
                from,
                source,
                destination,
                hop_limit,
                target,
                has_source_link_layer,
            };
            advertise(&config.station, &asked)
        }
        // Neither end of an echo can be a group or unspecified.
        Icmpv6Repr::EchoRequest { .. } if destination.is_multicast() || source.is_unspecified() => {
            Err(NatDrop::BadIcmp)
        }
        Icmpv6Repr::EchoRequest { ident, seq_no, data } => {
            let reply = Icmpv6Repr::EchoReply { ident, seq_no, data };
            let (macs, ips) =
                ((config.station.mac(), packet.mac), (destination.into(), source.into()));
            ip_frame(macs, ips, (IpProtocol::Icmpv6, HOP_LIMIT), reply.buffer_len(), |bytes| {
                let mut packet = Icmpv6Packet::new_unchecked(bytes);
                reply.emit(&destination, &source, &mut packet, &checksums());
            })
            .ok_or(NatDrop::BadIcmp)
        }
        _ => Err(NatDrop::IcmpUnanswered),
    }
}

/// The ports and the payload of a checked UDP datagram.
pub(crate) fn udp<'a>(packet: &Inbound<'a>) -> Result<(UdpRepr, &'a [u8]), NatDrop> {
    let datagram = UdpPacket::new_checked(packet.payload).map_err(|_| NatDrop::BadUdp)?;
    let (source, destination) = (packet.source.into(), packet.destination.into());
    let ports = UdpRepr::parse(&datagram, &source, &destination, &packet.checksums())
        .map_err(|_| NatDrop::BadUdp)?;
    let from_nobody = packet.source.is_unspecified() && !is_dhcp(packet);
    let to_group = packet.destination.is_multicast() && !is_dhcp6(packet);
    if ports.src_port == 0 || from_nobody || to_group {
        return Err(NatDrop::BadUdp);
    }
    Ok((ports, datagram.payload()))
}

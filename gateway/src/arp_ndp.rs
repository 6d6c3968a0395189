//! The responder of ARP (RFC 826) and neighbour discovery (RFC 4861) for the gateway's addresses.

use std::net::Ipv6Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    NdiscNeighborFlags, NdiscRepr,
};
use trama_frame::MacAddr;
use trama_nat::Station;
use trama_nat::is_host4;
use trama_nat::packet::received::Arp;
use trama_nat::packet::{checksums, ethernet_address, frame, ip_frame};

use crate::drop_reason::NatDrop;

/// Hop limit of neighbour discovery, which shows that no router forwarded it (RFC 4861, 7.1.1).
pub(crate) const ONE_LINK: u8 = 255;
/// The all-nodes group (RFC 4291, 2.7.1), and its MAC address.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// Checks that the sender of an ARP packet is on the network.
///
/// # Errors
///
/// It is not, or the network has no IPv4.
pub(crate) fn check_sender(station: &Station, arp: &Arp) -> Result<(), NatDrop> {
    let subnet = station.ipv4.ok_or(NatDrop::OtherAddress)?;
    if !arp.sender.is_unspecified() && !is_host4(subnet, arp.sender) {
        return Err(NatDrop::ForeignSource);
    }
    Ok(())
}

/// The reply to an ARP request or probe for one of the gateway's addresses.
pub(crate) fn arp_reply(station: &Station, asked: &Arp) -> Result<Vec<u8>, NatDrop> {
    let Arp { operation, mac, sender, target, .. } = *asked;
    if operation != ArpOperation::Request || !station.has(target.into()) {
        return Err(NatDrop::OtherAddress);
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ethernet_address(station.mac()),
        source_protocol_addr: target,
        target_hardware_addr: ethernet_address(mac),
        target_protocol_addr: sender,
    };
    Ok(frame(station.mac(), mac, EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    }))
}

/// A neighbour solicitation.
pub(crate) struct Solicitation {
    pub from: MacAddr,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub target: Ipv6Addr,
    pub has_source_link_layer: bool,
}

/// The advertisement that answers a solicitation for one of the gateway's addresses.
pub(crate) fn advertise(station: &Station, asked: &Solicitation) -> Result<Vec<u8>, NatDrop> {
    // The checks of RFC 4861, 7.1.1.
    let probe = asked.source.is_unspecified();
    let to_group = asked.destination.is_multicast();
    let breaks_rules = asked.hop_limit != ONE_LINK
        || asked.target.is_multicast()
        || (probe && (!to_group || asked.has_source_link_layer));
    if breaks_rules {
        return Err(NatDrop::BadIcmp);
    }
    if !station.has(asked.target.into()) {
        return Err(NatDrop::OtherAddress);
    }
    let (to, destination) =
        if probe { (ALL_NODES_MAC, ALL_NODES) } else { (asked.from, asked.source) };
    let solicited = if probe { NdiscNeighborFlags::empty() } else { NdiscNeighborFlags::SOLICITED };
    let advert = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: solicited | NdiscNeighborFlags::OVERRIDE | NdiscNeighborFlags::ROUTER,
        target_addr: asked.target,
        lladdr: Some(ethernet_address(station.mac()).into()),
    });
    let ips = (asked.target.into(), destination.into());
    let kind = (IpProtocol::Icmpv6, ONE_LINK);
    ip_frame((station.mac(), to), ips, kind, advert.buffer_len(), |bytes| {
        let mut packet = Icmpv6Packet::new_unchecked(bytes);
        advert.emit(&asked.target, &destination, &mut packet, &checksums());
    })
    .ok_or(NatDrop::BadIcmp)
}

//! Frames for this crate's tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr,
    Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscNeighborFlags,
    NdiscRepr, TcpPacket, UdpPacket,
};
use trama_frame::{MacAddr, VnetHeader};

use crate::io::{PortMark, Random};
use crate::packet::received::{self, Frame};
use crate::packet::{self, checksums, ethernet_address, ip_frame};
use crate::rules::{Config, Rules};
use crate::station::Station;

pub(crate) const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
pub(crate) const GUEST4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 15);

/// The settings of a test's network.
#[derive(Clone)]
pub(crate) struct Lab {
    pub station: Station,
    pub nat: Option<Rules>,
}

impl Lab {
    pub(crate) fn nat(&self) -> Config<'_> {
        Config { station: &self.station, rules: self.nat.as_ref() }
    }
}

/// A network without NAT.
pub(crate) fn lab() -> Lab {
    let station = Station {
        mac: GATEWAY.0,
        mtu: 1500,
        ipv4: Some(Ipv4Net::new_assert(GATEWAY4, 24)),
        ipv6: Some(Ipv6Net::new_assert(GATEWAY6, 64)),
        service_addresses: Vec::new(),
    };
    Lab { station, nat: None }
}

/// The same numbers in every run.
pub(crate) fn random() -> Random {
    let mut state = 1u64;
    Box::new(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 16
    })
}

/// An echo request of the guest to `to`.
pub(crate) fn ping(from: IpAddr, to: IpAddr, data: &[u8]) -> Vec<u8> {
    let macs = (GUEST, GATEWAY);
    let frame = match (from, to) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let request = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 9, data };
            let kind = (IpProtocol::Icmpv6, 64);
            ip_frame(macs, (from, to), kind, request.buffer_len(), |bytes| {
                let mut packet = Icmpv6Packet::new_unchecked(bytes);
                request.emit(&source, &destination, &mut packet, &checksums());
            })
        }
        _ => {
            let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data };
            let kind = (IpProtocol::Icmp, 64);
            ip_frame(macs, (from, to), kind, request.buffer_len(), |bytes| {
                request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums());
            })
        }
    };
    frame.unwrap()
}

/// The gateway's answer to an ARP request or neighbour solicitation for any of its addresses.
pub(crate) fn resolution(frame: &[u8]) -> Option<Vec<u8>> {
    match received::parse(GATEWAY, PortMark(1), VnetHeader::default(), frame).unwrap() {
        Frame::Arp(arp) if arp.operation == ArpOperation::Request => {
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: ethernet_address(GATEWAY),
                source_protocol_addr: arp.target,
                target_hardware_addr: ethernet_address(arp.mac),
                target_protocol_addr: arp.sender,
            };
            let len = reply.buffer_len();
            Some(packet::frame(GATEWAY, arp.mac, EthernetProtocol::Arp, len, |bytes| {
                reply.emit(&mut ArpPacket::new_unchecked(bytes));
            }))
        }
        Frame::Packet(asked) => {
            let (IpAddr::V6(from), IpAddr::V6(to)) = (asked.source, asked.destination) else {
                return None;
            };
            let message = Icmpv6Packet::new_checked(asked.payload).unwrap();
            let message = Icmpv6Repr::parse(&from, &to, &message, &checksums()).unwrap();
            let Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, .. }) = message
            else {
                return None;
            };
            let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
                target_addr: target,
                lladdr: Some(ethernet_address(GATEWAY).into()),
            });
            let (macs, ips) = ((GATEWAY, asked.mac), (target.into(), from.into()));
            let len = advertisement.buffer_len();
            ip_frame(macs, ips, (IpProtocol::Icmpv6, 255), len, |bytes| {
                let mut message = Icmpv6Packet::new_unchecked(bytes);
                advertisement.emit(&target, &from, &mut message, &checksums());
            })
        }
        _ => None,
    }
}

/// Corrects checksums, which would hide other faults.
pub(crate) fn mend_checksums(bytes: &mut [u8]) {
    let Ok(mut frame) = EthernetFrame::new_checked(&mut *bytes) else { return };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(frame.payload_mut()) else { return };
            packet.fill_checksum();
            if packet.next_header() == IpProtocol::Icmp
                && let Ok(mut message) = Icmpv4Packet::new_checked(packet.payload_mut())
            {
                message.fill_checksum();
            }
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            mend_transport(packet.next_header(), (source, destination), packet.payload_mut());
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut packet) = Ipv6Packet::new_checked(frame.payload_mut()) else { return };
            let (source, destination) = (packet.src_addr(), packet.dst_addr());
            if packet.next_header() == IpProtocol::Icmpv6
                && let Ok(mut message) = Icmpv6Packet::new_checked(packet.payload_mut())
            {
                message.fill_checksum(&source, &destination);
            }
            let (source, destination) = (source.into(), destination.into());
            mend_transport(packet.next_header(), (source, destination), packet.payload_mut());
        }
        _ => {}
    }
}

fn mend_transport(protocol: IpProtocol, (from, to): (IpAddress, IpAddress), bytes: &mut [u8]) {
    match protocol {
        IpProtocol::Udp => {
            if let Ok(mut datagram) = UdpPacket::new_checked(bytes) {
                datagram.fill_checksum(&from, &to);
            }
        }
        // Even with an invalid header length.
        IpProtocol::Tcp if bytes.len() >= 18 => {
            TcpPacket::new_unchecked(bytes).fill_checksum(&from, &to);
        }
        _ => {}
    }
}

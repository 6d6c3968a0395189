//! Frames for this crate's tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress,
    IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};
use trama_frame::MacAddr;
use trama_nat::packet::{checksums, ip_frame};
use trama_nat::{Client, PortMark, Random, Station};

use crate::config::Config;

pub(crate) const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
pub(crate) const GUEST4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 15);

pub(crate) fn lab() -> Config {
    let station = Station {
        mac: GATEWAY.0,
        mtu: 1500,
        ipv4: Some(Ipv4Net::new_assert(GATEWAY4, 24)),
        ipv6: Some(Ipv6Net::new_assert(GATEWAY6, 64)),
        service_addresses: Vec::new(),
    };
    let (hosts, tells_events, tells_answers) = (Vec::new(), false, false);
    Config { station, hosts, tftp: None, dhcp: None, nat: None, tells_events, tells_answers }
}

/// The same numbers in every run.
pub(crate) fn random() -> Random {
    let mut state = 1u64;
    Box::new(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 16
    })
}

/// A client at switch port `port`.
pub(crate) fn client(port: u64) -> Client {
    let (remote, local) = ((GUEST4.into(), 4000), (GATEWAY4.into(), 53));
    Client { port: PortMark(port), mac: GUEST, remote, local, room: 200, stream: None }
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

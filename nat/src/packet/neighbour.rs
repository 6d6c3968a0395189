//! Address resolution: requests of ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, NdiscRepr,
};
use trama_frame::MacAddr;

use super::{checksums, ethernet_address, frame, ip_frame};
use crate::station::Station;

/// The ARP request or neighbour solicitation for an address.
pub fn solicitation(station: &Station, address: IpAddr) -> Option<Vec<u8>> {
    let mac = station.mac();
    match address {
        IpAddr::V4(address) => {
            let request = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Request,
                source_hardware_addr: ethernet_address(mac),
                source_protocol_addr: station.ipv4?.addr(),
                target_hardware_addr: EthernetAddress([0; 6]),
                target_protocol_addr: address,
            };
            let len = request.buffer_len();
            Some(frame(mac, MacAddr::BROADCAST, EthernetProtocol::Arp, len, |bytes| {
                request.emit(&mut ArpPacket::new_unchecked(bytes));
            }))
        }
        IpAddr::V6(target) => {
            let (source, [.., a, b, c]) = (station.ipv6?.addr(), target.octets());
            let group = [0x33, 0x33, 0xff, a, b, c];
            let word = |high, low| u16::from_be_bytes([high, low]);
            let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, word(0xff, a), word(b, c));
            let ask = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr: target,
                lladdr: Some(ethernet_address(mac).into()),
            });
            let (macs, ips) = ((mac, MacAddr(group)), (source.into(), to.into()));
            ip_frame(macs, ips, (IpProtocol::Icmpv6, 255), ask.buffer_len(), |bytes| {
                ask.emit(&source, &to, &mut Icmpv6Packet::new_unchecked(bytes), &checksums());
            })
        }
    }
}

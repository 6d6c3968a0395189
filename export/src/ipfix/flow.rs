//! Flows: what their frames have in common, and what was counted.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use crate::{Interface, Sample};

/// IP protocols of ICMP, whose type and code stand in the place of the destination's L4 port.
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// Where a TCP header has its flags.
const TCP_FLAGS: usize = 13;

/// What the frames of a flow have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// The number of the port that they come from; 0 from a gateway.
    pub input: u32,
    /// The number of the port that they leave by; 0 if it is not one port.
    pub output: u32,
    /// Their source's MAC address.
    pub source_mac: [u8; 6],
    /// Their destination's.
    pub destination_mac: [u8; 6],
    /// Their VLAN; 0 if they have none.
    pub vlan: u16,
    /// The EtherType behind their tags.
    pub ethertype: u16,
    /// The addresses of their packets.
    pub addresses: Addresses,
    /// IP protocol.
    pub protocol: u8,
    /// IPv4's type of service, or IPv6's traffic class.
    pub class: u8,
    /// L4 port of the source; 0 of a protocol without, and of fragments.
    pub source_port: u16,
    /// The same of the destination; of ICMP, type × 256 + code.
    pub destination_port: u16,
}

/// Source and destination of packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Addresses {
    /// Not of IP.
    None,
    /// Of IPv4.
    V4(Ipv4Addr, Ipv4Addr),
    /// Of IPv6.
    V6(Ipv6Addr, Ipv6Addr),
}

/// Why a record of a flow is sent: flowEndReason (136).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndReason {
    /// No frame was sampled for long.
    Idle = 1,
    /// It goes on; this is what was counted until now.
    Active = 2,
    /// The export ends.
    Forced = 4,
    /// There is no room for more flows.
    LackOfResources = 5,
}

/// A flow with what was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// What its frames have in common.
    pub key: Key,
    /// Time of the first sample, in milliseconds since the Unix epoch.
    pub start: u64,
    /// The same of the last one.
    pub end: u64,
    /// Estimated packets.
    pub packets: u64,
    /// Estimated bytes of their frames, without FCS.
    pub frame_octets: u64,
    /// Estimated bytes of IP packets.
    pub ip_octets: u64,
    /// All flags of its TCP segments.
    pub tcp_flags: u8,
}

/// What one sample adds to a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub key: Key,
    pub packets: u64,
    pub frame_octets: u64,
    pub ip_octets: u64,
    pub tcp_flags: u8,
}

impl Counted {
    /// Reads a sample that stands for `rate` frames; `None` if it has no Ethernet header, or was
    /// dropped.
    pub(super) fn read(sample: &Sample<'_>, rate: u32) -> Option<Counted> {
        if sample.output == Interface::Dropped {
            return None;
        }
        let (addresses, rest) = sample.header.split_at_checked(12)?;
        let (destination_mac, source_mac) = addresses.split_first_chunk()?;
        let output = match sample.output {
            Interface::Port(number) => number,
            _ => 0,
        };
        let mut key = Key {
            input: sample.input.unwrap_or(0),
            output,
            source_mac: *source_mac.first_chunk()?,
            destination_mac: *destination_mac,
            vlan: sample.vlan,
            ethertype: u16::from_be_bytes(*rest.first_chunk()?),
            addresses: Addresses::None,
            protocol: 0,
            class: 0,
            source_port: 0,
            destination_port: 0,
        };
        let (link, tcp_flags) = read_packet(sample.header, &mut key);
        let parts = u64::from(sample.parts.max(1));
        let packets = parts * u64::from(rate);
        let frame_octets = sample.wire_bytes() * u64::from(rate);
        let ip_octets = link.map_or(0, |link| frame_octets.saturating_sub(packets * link as u64));
        Some(Counted { key, packets, frame_octets, ip_octets, tcp_flags })
    }
}

/// Reads what is behind the addresses, as far as it is there. Returns the bytes before the IP
/// packet, if there is one, and the flags of TCP.
fn read_packet(header: &[u8], key: &mut Key) -> (Option<usize>, u8) {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(header) else { return (None, 0) };
    if let Some(payload) = packet.ether_payload() {
        key.ethertype = payload.ether_type.0;
    }
    let ip = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let head = ip.header();
            key.addresses = Addresses::V4(head.source_addr(), head.destination_addr());
            key.class = head.slice()[1];
            key.protocol = ip.payload_ip_number().0;
            head.slice()
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let head = ip.header();
            key.addresses = Addresses::V6(head.source_addr(), head.destination_addr());
            key.class = head.traffic_class();
            key.protocol = ip.payload().ip_number.0;
            head.slice()
        }
        _ => return (None, 0),
    };
    let link = ip.as_ptr().addr() - header.as_ptr().addr();
    let mut flags = 0;
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            (key.source_port, key.destination_port) = (udp.source_port(), udp.destination_port());
        }
        Some(TransportSlice::Tcp(tcp)) => {
            (key.source_port, key.destination_port) = (tcp.source_port(), tcp.destination_port());
            flags = tcp.slice()[TCP_FLAGS];
        }
        Some(TransportSlice::Icmpv4(icmp)) if key.protocol == ICMP => {
            key.destination_port = u16::from_be_bytes([icmp.type_u8(), icmp.code_u8()]);
        }
        Some(TransportSlice::Icmpv6(icmp)) if key.protocol == ICMP_V6 => {
            key.destination_port = u16::from_be_bytes([icmp.type_u8(), icmp.code_u8()]);
        }
        _ => {}
    }
    (Some(link), flags)
}

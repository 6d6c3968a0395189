//! What the first bytes of a frame say, read once for all tests of a filter.
//!
//! Tags are skipped, and so are the extension headers of IPv6, except where they are encrypted.
//! What lies beyond the bytes that are there is `None`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trama_frame::MacAddr;
use trama_frame::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// EtherType of ARP.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of reverse ARP, whose packets have the form of ARP's.
const ETHERTYPE_RARP: u16 = 0x8035;

/// Numbers of protocols (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Extension headers of IPv6 that are followed by another header (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The first bytes of a frame, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Source and destination address.
    pub macs: Option<[MacAddr; 2]>,
    /// The VLAN of the outermost tag.
    pub vlan: Option<u16>,
    /// EtherType behind the tags.
    pub ethertype: Option<u16>,
    /// Source and destination of an IP packet; sender and target of ARP.
    pub addresses: Option<[IpAddr; 2]>,
    /// Protocol of an IP packet.
    pub protocol: Option<u8>,
    /// Source and destination L4 port, unless this is a later fragment.
    pub ports: Option<[u16; 2]>,
}

impl Head {
    /// Reads the first bytes of a frame.
    pub(crate) fn read(bytes: &[u8]) -> Head {
        let mut head = Head::default();
        let Some(ethernet) = ethernet::parse(bytes) else { return head };
        head.macs = Some([ethernet.src, ethernet.dst]);
        head.vlan = ethernet.tag.map(|tag| tag.vid().get());
        let Some((start, ethertype)) = ethernet::behind_tags(bytes) else { return head };
        head.ethertype = Some(ethertype);
        let packet = &bytes[start..];
        // A packet that ends too early leaves the rest unknown.
        let _ = match ethertype {
            ETHERTYPE_IPV4 => head.read_ipv4(packet),
            ETHERTYPE_IPV6 => head.read_ipv6(packet),
            ETHERTYPE_ARP | ETHERTYPE_RARP => head.read_arp(packet),
            _ => None,
        };
        head
    }

    fn read_arp(&mut self, packet: &[u8]) -> Option<()> {
        self.addresses = Some([ipv4(packet, 14)?, ipv4(packet, 24)?]);
        Some(())
    }

    fn read_ipv4(&mut self, packet: &[u8]) -> Option<()> {
        self.protocol = Some(*packet.get(9)?);
        self.addresses = Some([ipv4(packet, 12)?, ipv4(packet, 16)?]);
        let is_first = u16_at(packet, 6)? & 0x1fff == 0;
        let length = usize::from(packet[0] & 0xf) * 4;
        if is_first {
            self.read_ports(packet.get(length..)?)?;
        }
        Some(())
    }

    fn read_ipv6(&mut self, packet: &[u8]) -> Option<()> {
        self.addresses = Some([ipv6(packet, 8)?, ipv6(packet, 24)?]);
        let Payload { protocol, bytes, is_first } = ipv6_payload(packet)?;
        self.protocol = Some(protocol);
        if is_first {
            self.read_ports(bytes)?;
        }
        Some(())
    }

    fn read_ports(&mut self, segment: &[u8]) -> Option<()> {
        if matches!(self.protocol, Some(TCP | UDP | SCTP)) {
            self.ports = Some([u16_at(segment, 0)?, u16_at(segment, 2)?]);
        }
        Some(())
    }
}

/// What an IPv6 packet carries behind its extension headers.
pub(crate) struct Payload<'a> {
    pub protocol: u8,
    /// What is there of it; in a later fragment, from the fragment header on.
    pub bytes: &'a [u8],
    /// Whether it is not a later fragment.
    pub is_first: bool,
}

/// Returns the payload of an IPv6 packet; `None` if the packet ends within its headers.
pub(crate) fn ipv6_payload(packet: &[u8]) -> Option<Payload<'_>> {
    let mut protocol = *packet.get(6)?;
    let mut bytes = packet.get(40..)?;
    let mut is_first = true;
    // Each turn takes at least eight bytes.
    while is_first {
        let length = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => 8 + 8 * usize::from(*bytes.get(1)?),
            AUTHENTICATION => 8 + 4 * usize::from(*bytes.get(1)?),
            FRAGMENT => {
                is_first = u16_at(bytes, 2)? & 0xfff8 == 0;
                8
            }
            _ => break,
        };
        protocol = *bytes.first()?;
        if is_first {
            bytes = bytes.get(length..)?;
        }
    }
    Some(Payload { protocol, bytes, is_first })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn ipv4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv4Addr::from(octets).into())
}

fn ipv6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(octets).into())
}

//! Offsets of the headers of a large frame: parses it from Ethernet to the TCP or UDP payload.
//!
//! Used twice on the same frame: by [`crate::vnet::validate()`] at ingress and by the software
//! segmentation, which therefore uses no offset that it did not derive itself; and by
//! [`crate::gro`] for segments of which a large frame is made. Every field is read from `head`; no
//! later byte affects a decision.

use crate::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN};
use crate::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HeaderError, NEEDS_CSUM, VnetHeader};

pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;

/// IPv6 next-header values that announce an extension header (RFC 8200, section 4; RFC 7045).
const IPV6_EXTENSIONS: [u8; 9] = [0, 43, 44, 50, 51, 60, 135, 139, 140];

const IPV4_MIN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_MIN: usize = 20;
const UDP_LEN: usize = 8;

/// Flags of TCP's 14th byte (RFC 9293, section 3.1).
pub(crate) mod tcp_flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const URG: u8 = 0x20;
    pub(crate) const CWR: u8 = 0x80;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ip {
    V4,
    V6,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// Offsets in a large frame, in order: `ip < transport < payload < len`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub ip_version: Ip,
    pub protocol: Transport,
    /// Start of the IP header: 14, and 4 for each VLAN tag.
    pub ip: usize,
    /// Start of the TCP or UDP header.
    pub transport: usize,
    /// Start of the payload; at most 166.
    pub payload: usize,
}

impl Layout {
    /// Parses the headers of a large frame of `len` bytes that begins with `head` and checks them
    /// against `header`.
    pub(crate) fn of(header: &VnetHeader, head: &[u8], len: usize) -> Result<Layout, HeaderError> {
        let (wanted_ip, protocol) = kinds(header.gso_type)?;
        if header.flags & NEEDS_CSUM == 0 {
            return Err(HeaderError::GsoWithoutChecksum);
        }
        let layout = Layout::parse(head, len, wanted_ip, protocol)?;
        layout.check_checksum_and_size(header, len)?;
        Ok(layout)
    }

    /// Parses the headers of a frame of `len` bytes that begins with `head`, as those of a large
    /// frame have to be; `wanted_ip` is `None` for either version.
    pub(crate) fn parse(
        head: &[u8],
        len: usize,
        wanted_ip: Option<Ip>,
        protocol: Transport,
    ) -> Result<Layout, HeaderError> {
        let head = &head[..head.len().min(len)];
        let (ip, ethertype) = ethernet::behind_tags(head).ok_or(HeaderError::HeadersTruncated)?;
        let ip_version = match ethertype {
            ETHERTYPE_IPV4 => Ip::V4,
            ETHERTYPE_IPV6 => Ip::V6,
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(HeaderError::TooManyTags),
            _ => return Err(HeaderError::ProtocolMismatch),
        };
        if wanted_ip.is_some_and(|wanted| wanted != ip_version) {
            return Err(HeaderError::ProtocolMismatch);
        }
        let packet = &head[ip..];
        let transport = ip
            + match ip_version {
                Ip::V4 => ipv4_header(packet, protocol, len - ip)?,
                Ip::V6 => ipv6_header(packet, protocol, len - ip)?,
            };
        let rest = head.get(transport..).ok_or(HeaderError::HeadersTruncated)?;
        let payload = transport
            + match protocol {
                Transport::Tcp => tcp_header(rest)?,
                Transport::Udp => udp_header(rest, len - transport)?,
            };
        Ok(Layout { ip_version, protocol, ip, transport, payload })
    }

    fn check_checksum_and_size(&self, header: &VnetHeader, len: usize) -> Result<(), HeaderError> {
        let place = (usize::from(header.csum_start), usize::from(header.csum_offset));
        if place != (self.transport, self.protocol.checksum_offset()) {
            return Err(HeaderError::GsoChecksumPlace);
        }
        if self.payload > len {
            return Err(HeaderError::HeadersTruncated);
        }
        if self.payload == len || header.gso_size == 0 {
            return Err(HeaderError::GsoSize);
        }
        Ok(())
    }
}

impl Transport {
    pub(crate) const fn checksum_offset(self) -> usize {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Transport::Tcp => PROTOCOL_TCP,
            Transport::Udp => PROTOCOL_UDP,
        }
    }
}

/// The IP version (either, for UDP) and transport that a `gso_type` stands for.
fn kinds(gso_type: u8) -> Result<(Option<Ip>, Transport), HeaderError> {
    const TCPV4_ECN: u8 = GSO_TCPV4 | GSO_ECN;
    const TCPV6_ECN: u8 = GSO_TCPV6 | GSO_ECN;
    match gso_type {
        GSO_TCPV4 | TCPV4_ECN => Ok((Some(Ip::V4), Transport::Tcp)),
        GSO_TCPV6 | TCPV6_ECN => Ok((Some(Ip::V6), Transport::Tcp)),
        GSO_UDP_L4 => Ok((None, Transport::Udp)),
        _ => Err(HeaderError::GsoType),
    }
}

/// Checks an IPv4 header at the start of `packet` (RFC 791), options allowed; returns its length.
fn ipv4_header(packet: &[u8], protocol: Transport, len: usize) -> Result<usize, HeaderError> {
    let fixed: &[u8; IPV4_MIN] = packet.first_chunk().ok_or(HeaderError::HeadersTruncated)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header_len < IPV4_MIN || fixed[9] != protocol.number() {
        return Err(HeaderError::ProtocolMismatch);
    }
    // More-fragments bit and fragment offset; don't-fragment and the reserved bit may be set.
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0 {
        return Err(HeaderError::Fragment);
    }
    if usize::from(u16::from_be_bytes([fixed[2], fixed[3]])) != len {
        return Err(HeaderError::LengthMismatch);
    }
    Ok(header_len)
}

/// Checks an IPv6 header at the start of `packet` (RFC 8200); returns its length, always 40.
fn ipv6_header(packet: &[u8], protocol: Transport, len: usize) -> Result<usize, HeaderError> {
    let fixed: &[u8; IPV6_LEN] = packet.first_chunk().ok_or(HeaderError::HeadersTruncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(HeaderError::ProtocolMismatch);
    }
    if IPV6_EXTENSIONS.contains(&fixed[6]) {
        return Err(HeaderError::ExtensionHeaders);
    }
    if fixed[6] != protocol.number() {
        return Err(HeaderError::ProtocolMismatch);
    }
    if IPV6_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) != len {
        return Err(HeaderError::LengthMismatch);
    }
    Ok(IPV6_LEN)
}

/// Checks a TCP header at the start of `rest` (RFC 9293); returns its length with options.
fn tcp_header(rest: &[u8]) -> Result<usize, HeaderError> {
    let fixed: &[u8; TCP_MIN] = rest.first_chunk().ok_or(HeaderError::HeadersTruncated)?;
    let header_len = usize::from(fixed[12] >> 4) * 4;
    if header_len < TCP_MIN {
        return Err(HeaderError::ProtocolMismatch);
    }
    if fixed[13] & (tcp_flag::SYN | tcp_flag::RST | tcp_flag::URG) != 0 {
        return Err(HeaderError::TcpFlags);
    }
    Ok(header_len)
}

/// Checks a UDP header at the start of `rest` (RFC 768), with `len` bytes left of the frame;
/// returns its length.
fn udp_header(rest: &[u8], len: usize) -> Result<usize, HeaderError> {
    let fixed: &[u8; UDP_LEN] = rest.first_chunk().ok_or(HeaderError::HeadersTruncated)?;
    if usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) != len {
        return Err(HeaderError::LengthMismatch);
    }
    Ok(UDP_LEN)
}

//! IP packets for guests: headers, and fragmentation to the network's MTU.

use std::net::IpAddr;

use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN,
    IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet,
};
use trama_frame::{MacAddr, checksum};

use super::{MIN_FRAME, ethernet_address};
use crate::drop_reason::DropReason;

/// Bytes of IPv6's fragment header (RFC 8200, 4.5).
pub(crate) const FRAGMENT_HEADER: usize = 8;
/// Longest headers: Ethernet, IPv6, fragment header.
pub(crate) const MAX_HEAD: usize = ETHERNET_HEADER_LEN + IPV6_HEADER_LEN + FRAGMENT_HEADER;
/// "More fragments" in the field with the offset, of IPv4 and of IPv6.
const MORE4: u16 = 0x2000;
const MORE6: u16 = 1;

/// A packet for a guest, without its payload.
#[derive(Clone, Copy)]
pub(crate) struct Outbound {
    pub mac: MacAddr,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: IpProtocol,
    pub hop_limit: u8,
}

/// A fragment's place in its packet.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    id: u32,
    offset: usize,
    more: bool,
}

impl Outbound {
    fn ip_header(&self) -> usize {
        if self.source.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
    }

    /// Bytes in front of the IP payload.
    pub(crate) fn head_len(&self) -> usize {
        ETHERNET_HEADER_LEN + self.ip_header()
    }

    /// Whether a payload of `length` bytes fits the MTU.
    pub(crate) fn fits(&self, mtu: u16, length: usize) -> bool {
        self.ip_header() + length <= usize::from(mtu)
    }

    /// The sum over the pseudo-header of a payload of `length` bytes (RFC 768; RFC 8200, 8.1).
    pub(crate) fn pseudo_sum(&self, length: usize) -> u32 {
        pseudo_sum(self.source, self.destination, self.protocol, length)
    }

    /// Passes the fragments of a packet from `src_mac` to `each`, in three parts.
    pub(crate) fn cut(
        &self,
        src_mac: MacAddr,
        (mtu, id): (u16, u32),
        (head, body): (&[u8], &[u8]),
        mut each: impl FnMut(&[&[u8]; 3]) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let total = head.len() + body.len();
        let extra = if self.source.is_ipv4() { 0 } else { FRAGMENT_HEADER };
        let step = usize::from(mtu).saturating_sub(self.ip_header() + extra) / 8 * 8;
        if step <= head.len() || total > usize::from(u16::MAX) {
            return Err(DropReason::TooLong);
        }
        for offset in (0..total).step_by(step) {
            let end = (offset + step).min(total);
            let part = Part { id, offset, more: end < total };
            let mut room = [0; MAX_HEAD];
            let front = self.front(src_mac, &mut room, end - offset, Some(part))?;
            // The first fragment holds all of `head`.
            let (head, from) = if offset == 0 { (head, 0) } else { (&[][..], offset - head.len()) };
            let body = &body[from..from + end - offset - head.len()];
            each(&[front, head, body])?;
        }
        Ok(())
    }

    /// Writes Ethernet and IP header in front of `length` bytes.
    pub(crate) fn front<'a>(
        &self,
        src_mac: MacAddr,
        room: &'a mut [u8; MAX_HEAD],
        length: usize,
        part: Option<Part>,
    ) -> Result<&'a [u8], DropReason> {
        let ip = &mut room[ETHERNET_HEADER_LEN..];
        let (ethertype, ip_header) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(IPV4_HEADER_LEN + length).ok();
                let mut packet = Ipv4Packet::new_unchecked(ip);
                packet.set_version(4);
                packet.set_header_len(IPV4_HEADER_LEN as u8);
                packet.set_total_len(total.ok_or(DropReason::TooLong)?);
                packet.set_hop_limit(self.hop_limit);
                packet.set_next_header(self.protocol);
                packet.set_src_addr(source);
                packet.set_dst_addr(destination);
                if let Some(part) = part {
                    packet.set_ident(part.id as u16);
                    let field = (part.offset / 8) as u16 | if part.more { MORE4 } else { 0 };
                    packet.into_inner()[6..8].copy_from_slice(&field.to_be_bytes());
                } else {
                    // An atomic datagram needs no identification (RFC 6864, 4.1).
                    packet.set_dont_frag(true);
                }
                let ip = &mut room[ETHERNET_HEADER_LEN..];
                Ipv4Packet::new_unchecked(&mut ip[..IPV4_HEADER_LEN]).fill_checksum();
                (EthernetProtocol::Ipv4, IPV4_HEADER_LEN)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extra = if part.is_some() { FRAGMENT_HEADER } else { 0 };
                let length = u16::try_from(extra + length).map_err(|_| DropReason::TooLong)?;
                let mut packet = Ipv6Packet::new_unchecked(ip);
                packet.set_version(6);
                packet.set_payload_len(length);
                packet.set_hop_limit(self.hop_limit);
                packet.set_next_header(self.protocol);
                packet.set_src_addr(source);
                packet.set_dst_addr(destination);
                if let Some(part) = part {
                    packet.set_next_header(IpProtocol::Ipv6Frag);
                    let field = part.offset as u16 | if part.more { MORE6 } else { 0 };
                    let header = &mut packet.into_inner()[IPV6_HEADER_LEN..];
                    header[0] = self.protocol.into();
                    header[2..4].copy_from_slice(&field.to_be_bytes());
                    header[4..8].copy_from_slice(&part.id.to_be_bytes());
                }
                (EthernetProtocol::Ipv6, IPV6_HEADER_LEN + extra)
            }
            _ => return Err(DropReason::BadIp),
        };
        let header = EthernetRepr {
            src_addr: ethernet_address(src_mac),
            dst_addr: ethernet_address(self.mac),
            ethertype,
        };
        header.emit(&mut EthernetFrame::new_unchecked(&mut room[..]));
        Ok(&room[..ETHERNET_HEADER_LEN + ip_header])
    }
}

/// Fragments a frame with an IP packet to `mtu` bytes, with the identification `id`. A frame that
/// fits is returned as it is.
///
/// # Errors
///
/// A header is not valid, or the MTU leaves no room for a fragment.
pub fn fragments(frame: Vec<u8>, mtu: u16, id: u32) -> Result<Vec<Vec<u8>>, DropReason> {
    if frame.len() <= ETHERNET_HEADER_LEN + usize::from(mtu) {
        return Ok(vec![frame]);
    }
    let ethernet = EthernetFrame::new_checked(&frame[..]).map_err(|_| DropReason::BadEthernet)?;
    let mac = MacAddr(ethernet.dst_addr().0);
    let (ends, kind, payload) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload());
            let packet = packet.map_err(|_| DropReason::BadIp)?;
            let ends: (IpAddr, IpAddr) = (packet.src_addr().into(), packet.dst_addr().into());
            (ends, (packet.next_header(), packet.hop_limit()), packet.payload())
        }
        _ => {
            let packet = Ipv6Packet::new_checked(ethernet.payload());
            let packet = packet.map_err(|_| DropReason::BadIp)?;
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            (ends, (packet.next_header(), packet.hop_limit()), packet.payload())
        }
    };
    let ((source, destination), (protocol, hop_limit)) = (ends, kind);
    let out = Outbound { mac, source, destination, protocol, hop_limit };
    let mut frames = Vec::new();
    out.cut(MacAddr(ethernet.src_addr().0), (mtu, id), (&[], payload), |parts| {
        let mut fragment = parts.concat();
        fragment.resize(fragment.len().max(MIN_FRAME), 0);
        frames.push(fragment);
        Ok(())
    })?;
    Ok(frames)
}

/// The sum over the pseudo-header of TCP, UDP and ICMPv6.
pub(crate) fn pseudo_sum(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    length: usize,
) -> u32 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            checksum::add(checksum::sum(&source.octets()), &destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum::add(checksum::sum(&source.octets()), &destination.octets())
        }
        _ => 0,
    };
    let [_, _, high, low, ..] = (length as u32).to_be_bytes();
    checksum::add(addresses, &[0, u8::from(protocol), high, low])
}

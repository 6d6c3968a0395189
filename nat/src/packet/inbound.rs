//! IP packets from guests.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};
use trama_frame::vnet::{DATA_VALID, NEEDS_CSUM};
use trama_frame::{MacAddr, VnetHeader};

use super::outbound::FRAGMENT_HEADER;
use crate::drop_reason::DropReason;
use crate::io::PortMark;

/// A packet with a valid IP header. Its source and destination are checked by the classification.
#[derive(Clone, Copy)]
pub struct Inbound<'a> {
    /// The switch port that it came from.
    pub port: PortMark,
    /// The source MAC address, where answers go.
    pub mac: MacAddr,
    /// Whether the frame was sent to a group or to all.
    pub is_to_group: bool,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The protocol of the payload.
    pub protocol: IpProtocol,
    /// The hop limit, or time to live.
    pub hop_limit: u8,
    /// The IP packet, for errors that quote it.
    pub packet: &'a [u8],
    /// What follows the IP header.
    pub payload: &'a [u8],
    /// What the sender left to offloads: the checksum, or segmentation.
    pub offload: VnetHeader,
}

impl<'a> Inbound<'a> {
    /// Which checksums of the payload to verify: none if the sender left them to be completed.
    pub fn checksums(&self) -> ChecksumCapabilities {
        match self.offload.flags & NEEDS_CSUM {
            0 => super::checksums(),
            _ => ChecksumCapabilities::ignored(),
        }
    }

    /// Whether the packet may be fragmented on its way: its sender allows it or, for IPv6, has done
    /// so.
    pub(crate) fn may_fragment(&self) -> bool {
        match self.source {
            IpAddr::V4(_) => !Ipv4Packet::new_unchecked(self.packet).dont_frag(),
            // Reassembly keeps the fragment header.
            IpAddr::V6(_) => {
                Ipv6Packet::new_unchecked(self.packet).next_header() == IpProtocol::Ipv6Frag
            }
        }
    }

    /// Parses a packet again that was checked before it was stored.
    ///
    /// # Errors
    ///
    /// The IP header is not valid.
    pub fn reparse(
        port: PortMark,
        mac: MacAddr,
        packet: &'a [u8],
    ) -> Result<Inbound<'a>, DropReason> {
        let is_v4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
        let (mut bare, is_fragment) = if is_v4 { parse4(packet)? } else { parse6(packet)? };
        if let (true, Some((header, payload))) =
            (is_fragment, bare.payload.split_first_chunk::<FRAGMENT_HEADER>())
        {
            // Reassembly keeps the header of an atomic fragment in front of the payload.
            (bare.protocol, bare.payload) = (header[0].into(), payload);
        }
        let offload = VnetHeader { flags: DATA_VALID, ..VnetHeader::default() };
        Ok(Inbound { port, mac, offload, ..bare })
    }
}

/// The IP packet in a frame, and whether it is a fragment; for tests.
#[cfg(test)]
pub(crate) fn read(frame: &[u8]) -> Result<(Inbound<'_>, bool), DropReason> {
    let is_v4 = frame[12..14] == [8, 0];
    if is_v4 { parse4(&frame[14..]) } else { parse6(&frame[14..]) }
}

/// A packet of which only the IP header is known.
fn bare<'a>(
    (source, destination): (IpAddr, IpAddr),
    (protocol, hop_limit): (IpProtocol, u8),
    packet: &'a [u8],
    payload: &'a [u8],
) -> Inbound<'a> {
    let (port, mac, offload) = (PortMark(0), MacAddr([0; 6]), VnetHeader::default());
    let is_to_group = false;
    Inbound {
        port,
        mac,
        is_to_group,
        source,
        destination,
        protocol,
        hop_limit,
        packet,
        payload,
        offload,
    }
}

pub(crate) fn parse4(bytes: &[u8]) -> Result<(Inbound<'_>, bool), DropReason> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| DropReason::BadIp)?;
    if packet.version() != 4 || !packet.verify_checksum() {
        return Err(DropReason::BadIp);
    }
    let is_fragment = packet.more_frags() || packet.frag_offset() != 0;
    let addresses = (packet.src_addr().into(), packet.dst_addr().into());
    let kind = (packet.next_header(), packet.hop_limit());
    let whole = &bytes[..usize::from(packet.total_len())];
    // spec: rfc9293 MUST-50
    let payload = &whole[usize::from(packet.header_len())..];
    Ok((bare(addresses, kind, whole, payload), is_fragment))
}

pub(crate) fn parse6(bytes: &[u8]) -> Result<(Inbound<'_>, bool), DropReason> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| DropReason::BadIp)?;
    if packet.version() != 6 {
        return Err(DropReason::BadIp);
    }
    let is_fragment = packet.next_header() == IpProtocol::Ipv6Frag;
    let addresses = (packet.src_addr().into(), packet.dst_addr().into());
    let kind = (packet.next_header(), packet.hop_limit());
    let whole = &bytes[..packet.total_len()];
    Ok((bare(addresses, kind, whole, &whole[packet.header_len()..]), is_fragment))
}

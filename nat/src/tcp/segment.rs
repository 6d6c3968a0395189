//! TCP segments (RFC 9293, 3.1): parsed from guests, built for guests.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Add, Sub};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, IpRepr,
    Ipv4Repr, Ipv6Repr, TcpControl, TcpOption, TcpPacket, TcpRepr, TcpSeqNumber,
};
use trama_frame::vnet::{DATA_VALID, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM};
use trama_frame::{MacAddr, VnetHeader, checksum};

use crate::context::Context;
use crate::drop_reason::DropReason;
use crate::packet::inbound::Inbound;
use crate::packet::{HOP_LIMIT, MIN_FRAME, ethernet_address};

/// Longest headers: Ethernet, IPv6, TCP with all options.
const MAX_HEADERS: usize = ETHERNET_HEADER_LEN + 40 + 60;
/// Bytes of a TCP header without options.
pub(super) const HEADER_LEN: usize = 20;
/// Offset of the checksum in a TCP header.
const CHECKSUM_AT: usize = 16;

/// A sequence number, in arithmetic modulo 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Seq(pub u32);

impl Add<usize> for Seq {
    type Output = Seq;

    fn add(self, count: usize) -> Seq {
        Seq(self.0.wrapping_add(count as u32))
    }
}

impl Sub for Seq {
    type Output = i32;

    /// How far `self` is after `other`; negative if it is before.
    fn sub(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

impl Seq {
    /// Bytes since `earlier`; zero if that is later.
    pub(super) fn since(self, earlier: Seq) -> usize {
        (self - earlier).max(0) as usize
    }
}

/// A segment from a guest.
#[derive(Clone, Default, Debug)]
pub(crate) struct Segment<'a> {
    pub source: u16,
    pub destination: u16,
    pub sequence: Seq,
    pub ack: Option<Seq>,
    /// The header's field, without the scale.
    pub window: u16,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    /// Options of a SYN.
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    /// Whether SACK is permitted.
    pub sack: bool,
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses and checks a segment. Urgent data is treated as data (RFC 6093), and options outside
    /// a SYN are ignored.
    pub(super) fn parse(packet: &Inbound<'a>) -> Result<Segment<'a>, DropReason> {
        let tcp = TcpPacket::new_checked(packet.payload).map_err(|_| DropReason::BadTcp)?;
        let is_checked = packet.offload.flags & (NEEDS_CSUM | DATA_VALID) != 0;
        let (source, destination) = (packet.source.into(), packet.destination.into());
        // spec: rfc9293 MUST-3
        if !is_checked && !tcp.verify_checksum(&source, &destination) {
            return Err(DropReason::BadTcp);
        }
        let mut segment = Segment {
            source: tcp.src_port(),
            destination: tcp.dst_port(),
            sequence: Seq(tcp.seq_number().0 as u32),
            ack: tcp.ack().then(|| Seq(tcp.ack_number().0 as u32)),
            window: tcp.window_len(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            payload: &packet.payload[usize::from(tcp.header_len())..],
            ..Segment::default()
        };
        if segment.source == 0 || segment.destination == 0 || (segment.syn && segment.fin) {
            return Err(DropReason::BadTcp);
        }
        if segment.syn {
            // spec: rfc9293 MUST-5
            segment.options(&packet.payload[HEADER_LEN..usize::from(tcp.header_len())]);
        }
        Ok(segment)
    }

    fn options(&mut self, mut options: &[u8]) {
        // spec: rfc9293 MUST-4 MUST-6 MUST-7 MUST-64 MUST-68
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::EndOfList => return,
                TcpOption::MaxSegmentSize(size) => self.mss = Some(size),
                TcpOption::SackPermitted => self.sack = true,
                // RFC 7323, 2.3.
                TcpOption::WindowScale(shift) => self.scale = Some(shift.min(14)),
                _ => {}
            }
            if rest.is_empty() {
                return;
            }
            options = rest;
        }
    }

    /// The sequence numbers that it occupies.
    pub(super) fn len(&self) -> usize {
        self.payload.len() + usize::from(self.syn) + usize::from(self.fin)
    }
}

/// As many SACK blocks as one ACK has room for (RFC 2018, 3).
pub(super) type SackBlocks = [Option<(Seq, Seq)>; 3];

/// Flags and options of an outgoing segment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Control {
    #[default]
    None,
    Push,
    Syn {
        mss: u16,
        scale: Option<u8>,
        sack: bool,
    },
    Fin,
    Rst,
}

/// A segment for a guest.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outgoing<'a> {
    pub sequence: Seq,
    pub ack: Option<Seq>,
    pub window: u16,
    pub control: Control,
    /// SACK blocks; only of a segment without data.
    pub sack: SackBlocks,
    /// The data is the concatenation of these. More than `mss` bytes become several segments (GSO).
    pub parts: &'a [&'a [u8]],
    pub mss: u16,
}

impl Outgoing<'_> {
    /// The reset that answers a segment of no connection (RFC 9293, 3.10.7.1).
    pub(super) fn reset_for(segment: &Segment<'_>) -> Outgoing<'static> {
        let (sequence, ack) = match segment.ack {
            Some(ack) => (ack, None),
            None => (Seq(0), Some(segment.sequence + segment.len())),
        };
        Outgoing { sequence, ack, control: Control::Rst, ..Outgoing::default() }
    }
}

/// Both ends of a flow as the guest sees them, and the guest's MAC address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints {
    pub mac: MacAddr,
    pub guest: SocketAddr,
    pub remote: SocketAddr,
}

impl Endpoints {
    /// Bytes of IP and TCP header in front of a segment's data.
    pub(super) fn overhead(&self) -> usize {
        HEADER_LEN + if self.guest.is_ipv4() { 20 } else { 40 }
    }

    /// Sends a segment to the guest.
    pub(super) fn send(
        &self,
        context: &mut Context<'_>,
        segment: &Outgoing<'_>,
    ) -> Result<(), DropReason> {
        let len = segment.parts.iter().map(|part| part.len()).sum();
        let mut headers = [0; MAX_HEADERS];
        let written = self.write_headers(&mut headers, context.config.station.mac(), segment, len);
        let transport = written.ok_or(DropReason::BadIp)?;
        let end = transport + usize::from(headers[transport + 12] >> 4) * 4;
        let (headers, tcp) = (&mut headers[..end], transport..end);
        // spec: rfc9293 MUST-2
        let pseudo = self.pseudo_header(end - transport + len);
        if len == 0 {
            let sum = !checksum::fold(checksum::add(pseudo, &headers[tcp]));
            put_checksum(headers, transport, sum);
            let padding = &[0; MIN_FRAME][..MIN_FRAME.saturating_sub(end)];
            return context.send(&VnetHeader::default(), &[headers, padding]);
        }
        put_checksum(headers, transport, checksum::fold(pseudo));
        let offload = self.offload(transport, end, len, segment.mss);
        let mut parts = [&[][..]; 1 + MAX_PARTS];
        parts[0] = headers;
        parts[1..=segment.parts.len()].copy_from_slice(segment.parts);
        context.send(&offload, &parts[..=segment.parts.len()])
    }

    /// Writes all headers without TCP's checksum. Returns the offset of the TCP header.
    fn write_headers(
        &self,
        bytes: &mut [u8; MAX_HEADERS],
        src_mac: MacAddr,
        segment: &Outgoing<'_>,
        len: usize,
    ) -> Option<usize> {
        let repr = tcp_repr(self.remote.port(), self.guest.port(), segment);
        let tcp_len = repr.header_len();
        let payload_len = tcp_len + len;
        let next_header = IpProtocol::Tcp;
        let ip: IpRepr = match (self.remote.ip(), self.guest.ip()) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT }
                    .into()
            }
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOP_LIMIT }
                    .into()
            }
            _ => return None,
        };
        let ethertype = match &ip {
            IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
            IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
        };
        let (src_addr, dst_addr) = (ethernet_address(src_mac), ethernet_address(self.mac));
        EthernetRepr { src_addr, dst_addr, ethertype }
            .emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
        let transport = ETHERNET_HEADER_LEN + ip.header_len();
        ip.emit(&mut bytes[ETHERNET_HEADER_LEN..transport], &ChecksumCapabilities::default());
        let (source, destination) = (self.remote.ip().into(), self.guest.ip().into());
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[transport..transport + tcp_len]);
        // spec: rfc9293 MUST-69
        repr.emit(&mut tcp, &source, &destination, &ChecksumCapabilities::ignored());
        Some(transport)
    }

    fn pseudo_header(&self, tcp_len: usize) -> u32 {
        let addresses = match (self.remote.ip(), self.guest.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                checksum::add(checksum::sum(&from.octets()), &to.octets())
            }
            (from, to) => {
                let octets = |address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                checksum::add(checksum::sum(&octets(from)), &octets(to))
            }
        };
        // Both fit 16 bits: the protocol number, and the length of one packet.
        addresses + u32::from(u8::from(IpProtocol::Tcp)) + tcp_len as u32
    }

    fn offload(&self, transport: usize, end: usize, len: usize, mss: u16) -> VnetHeader {
        let mut header = VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: transport as u16,
            csum_offset: CHECKSUM_AT as u16,
            ..VnetHeader::default()
        };
        if len > usize::from(mss) {
            header.gso_type = if self.guest.is_ipv4() { GSO_TCPV4 } else { GSO_TCPV6 };
            header.gso_size = mss;
            header.hdr_len = end as u16;
        }
        header
    }
}

/// Most slices of data in one segment.
pub(super) const MAX_PARTS: usize = 16;

fn put_checksum(headers: &mut [u8], transport: usize, sum: u16) {
    let at = transport + CHECKSUM_AT;
    headers[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn tcp_repr(src_port: u16, dst_port: u16, segment: &Outgoing<'_>) -> TcpRepr<'static> {
    let (mut max_seg_size, mut window_scale, mut sack_permitted) = (None, None, false);
    let control = match segment.control {
        Control::None => TcpControl::None,
        Control::Push => TcpControl::Psh,
        Control::Fin => TcpControl::Fin,
        Control::Rst => TcpControl::Rst,
        // spec: rfc9293 MUST-14 MUST-65 SHLD-5, rfc2018 permitted-in-syn
        Control::Syn { mss, scale, sack } => {
            (max_seg_size, window_scale, sack_permitted) = (Some(mss), scale, sack);
            TcpControl::Syn
        }
    };
    TcpRepr {
        src_port,
        dst_port,
        control,
        seq_number: TcpSeqNumber(segment.sequence.0 as i32),
        ack_number: segment.ack.map(|ack| TcpSeqNumber(ack.0 as i32)),
        window_len: segment.window,
        window_scale,
        max_seg_size,
        sack_permitted,
        sack_ranges: segment.sack.map(|block| block.map(|(from, to)| (from.0, to.0))),
        timestamp: None,
        payload: &[],
    }
}

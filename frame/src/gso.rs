//! Software segmentation (GSO): cuts a large TCP frame, or a batch of UDP datagrams in one frame,
//! into the frames that the sender's network card would have sent.
//!
//! For receivers that did not negotiate the offload. The headers are copied into the caller's
//! buffer once and only the fields that differ are rewritten for each segment. The constant part of
//! the checksummed headers is summed once; each segment adds its own fields and its payload.
//! Nothing is allocated.

use std::fmt;

use crate::checksum::{self, fold, never_zero};
use crate::layout::{Ip, Layout, Transport, tcp_flag};
use crate::vnet::{HeaderError, VnetHeader};

/// Why a frame was not cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoError {
    /// The header does not fit the frame: it was not validated against these bytes.
    Header(HeaderError),
    /// `scratch` cannot hold the headers and the payload of one segment.
    ScratchTooSmall,
}

impl fmt::Display for GsoError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GsoError::Header(cause) => cause.fmt(out),
            GsoError::ScratchTooSmall => out.write_str("scratch buffer is smaller than a segment"),
        }
    }
}

impl std::error::Error for GsoError {}

/// Cuts the large `frame` that `header` describes, passes each segment to `emit` in order, and
/// returns their number.
///
/// Each segment is built in `scratch`, which must hold the headers and `gso_size` bytes, and is a
/// complete frame that needs no offload: lengths, IPv4 identification and header checksum, TCP
/// sequence number and flags, UDP length and the full transport checksum are its own. FIN and PSH
/// are set on the last segment only, CWR on the first only (RFC 3168, 6.1.2). VLAN tags, IPv4
/// options and TCP options are carried over as they are.
///
/// The number of segments is up to the sender: see [`VnetHeader::segments`] for a limit.
///
/// # Errors
/// The header does not describe the frame, or `scratch` is too small; nothing was emitted.
pub fn segment(
    frame: &[u8],
    header: &VnetHeader,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8]),
) -> Result<usize, GsoError> {
    let cutter = Cutter::new(frame, frame.len(), header).map_err(GsoError::Header)?;
    let (headers, payload) = frame.split_at(cutter.headers().len());
    let needed = headers.len() + cutter.payload_len(0);
    let scratch = scratch.get_mut(..needed).ok_or(GsoError::ScratchTooSmall)?;
    scratch[..headers.len()].copy_from_slice(headers);
    for (index, part) in payload.chunks(cutter.size).enumerate() {
        let segment = &mut scratch[..headers.len() + part.len()];
        segment[headers.len()..].copy_from_slice(part);
        cutter.finish(index, segment);
        emit(segment);
    }
    Ok(cutter.count())
}

/// Position of a segment in the large frame.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    /// Payload bytes before it.
    offset: usize,
    is_last: bool,
}

impl Place {
    /// TCP flags that this segment must not carry.
    const fn withheld_flags(self) -> u8 {
        let not_first = if self.index == 0 { 0 } else { tcp_flag::CWR };
        let not_last = if self.is_last { 0 } else { tcp_flag::FIN | tcp_flag::PSH };
        not_first | not_last
    }
}

/// Cuts a large frame segment by segment, for a caller that copies the payload itself. Holds the
/// values from which the segments' headers are derived.
pub struct Cutter<'a> {
    headers: &'a [u8],
    layout: Layout,
    /// Payload bytes of the large frame, and of each segment but the last.
    payload: usize,
    size: usize,
    /// IPv4 identification of the first segment; the others count up.
    identification: u16,
    /// TCP sequence number of the first segment.
    sequence: u32,
    /// TCP flags of the large frame.
    flags: u8,
    /// Partial sum of the IPv4 header without length, identification and checksum.
    ip_sum: u32,
    /// Partial sum of the pseudo-header without length, and of the transport header without
    /// what differs: sequence number and flags, or length; and without checksum.
    transport_sum: u32,
}

impl<'a> Cutter<'a> {
    /// Begins to cut a frame of `len` bytes that `header` describes and that begins with `head`.
    ///
    /// # Errors
    /// The header does not describe the frame, or `head` ends before its payload.
    pub fn new(head: &'a [u8], len: usize, header: &VnetHeader) -> Result<Cutter<'a>, HeaderError> {
        let layout = Layout::of(header, head, len)?;
        let headers = head.get(..layout.payload).ok_or(HeaderError::HeadersTruncated)?;
        let ip = &headers[layout.ip..layout.transport];
        let transport = &headers[layout.transport..];
        let addresses = match layout.ip_version {
            Ip::V4 => &ip[12..20],
            Ip::V6 => &ip[8..40],
        };
        let pseudo = checksum::sum(addresses) + u32::from(layout.protocol.number());
        let is_tcp = layout.protocol == Transport::Tcp;
        let constant = match layout.protocol {
            // Ports, acknowledgement; window; urgent pointer and options.
            Transport::Tcp => {
                [&transport[0..4], &transport[8..12], &transport[14..16], &transport[18..]]
            }
            Transport::Udp => [&transport[0..4], &[], &[], &[]],
        };
        Ok(Cutter {
            headers,
            layout,
            payload: len - layout.payload,
            size: usize::from(header.gso_size),
            identification: be16(ip, 4),
            sequence: if is_tcp { be32(transport, 4) } else { 0 },
            flags: if is_tcp { transport[13] } else { 0 },
            ip_sum: checksum::sum(&ip[0..2]) + sum_all(&[&ip[6..10], &ip[12..]]),
            transport_sum: pseudo + sum_all(&constant),
        })
    }

    /// Returns the headers of the large frame.
    pub fn headers(&self) -> &'a [u8] {
        self.headers
    }

    /// Returns the number of segments.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.size)
    }

    /// Returns the payload bytes of segment `index`.
    pub fn payload_len(&self, index: usize) -> usize {
        self.size.min(self.payload.saturating_sub(index * self.size))
    }

    /// Completes segment `index`: its payload, behind the headers of the large frame or of another
    /// segment. Changes nothing if it is shorter than the headers.
    pub fn finish(&self, index: usize, segment: &mut [u8]) {
        let Some((headers, payload)) = segment.split_at_mut_checked(self.headers.len()) else {
            return;
        };
        let is_last = index + 1 == self.count();
        self.write_headers(headers, payload, Place { index, offset: index * self.size, is_last });
    }

    /// Rewrites the fields of `headers` for the segment at `place` with this `payload`.
    fn write_headers(&self, headers: &mut [u8], payload: &[u8], place: Place) {
        let (before, transport) = headers.split_at_mut(self.layout.transport);
        let ip = &mut before[self.layout.ip..];
        // A segment is no longer than the large frame, whose lengths fit their fields.
        let length = (transport.len() + payload.len()) as u16;
        match self.layout.ip_version {
            Ip::V4 => self.write_ipv4(ip, length, place),
            Ip::V6 => put16(ip, 4, length),
        }
        let sum = self.transport_sum + u32::from(length) + checksum::sum(payload);
        match self.layout.protocol {
            Transport::Tcp => self.write_tcp(transport, sum, place),
            Transport::Udp => write_udp(transport, sum, length),
        }
    }

    fn write_ipv4(&self, ip: &mut [u8], length: u16, place: Place) {
        let total_length = ip.len() as u16 + length;
        let identification = self.identification.wrapping_add(place.index as u16);
        let sum = self.ip_sum + u32::from(total_length) + u32::from(identification);
        put16(ip, 2, total_length);
        put16(ip, 4, identification);
        put16(ip, 10, !fold(sum));
    }

    fn write_tcp(&self, tcp: &mut [u8], sum: u32, place: Place) {
        let sequence = self.sequence.wrapping_add(place.offset as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        tcp[13] = self.flags & !place.withheld_flags();
        let own = (sequence >> 16) + (sequence & 0xffff) + u32::from(be16(tcp, 12));
        put16(tcp, 16, !fold(sum + own));
    }
}

fn write_udp(udp: &mut [u8], sum: u32, length: u16) {
    put16(udp, 4, length);
    // The length counts twice: in the pseudo-header and in the header.
    put16(udp, 6, never_zero(!fold(sum + u32::from(length))));
}

/// Partial sum of byte ranges that each begin at an even offset.
pub(crate) fn sum_all(stretches: &[&[u8]]) -> u32 {
    stretches.iter().fold(0, |partial, stretch| checksum::add(partial, stretch))
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;

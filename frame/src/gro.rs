//! Receive offload in software (GRO): makes one large TCP frame of segments that follow each other.
//!
//! The opposite of [`crate::gso`]: cutting the large frame gives back the same bytes. So segments
//! are joined only if they differ in nothing else than cutting makes them differ. They are of one
//! flow with the same acknowledgement, window and options, have the next sequence number and IPv4
//! identification, and are of equal length; one that is shorter, or has PSH or FIN, is the last.
//! Segments with SYN, RST, URG or CWR, IP fragments and IPv6 extension headers stay as they are.
//!
//! Checksums are verified before segments are joined, since a receiver cannot do that any more. The
//! payload is not moved: the caller passes that of each segment on, one after the other.

use crate::checksum::{self, fold};
use crate::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::gso::{be16, be32, put16, sum_all};
use crate::layout::{Ip, Layout, Transport, tcp_flag};
use crate::vnet::{GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, VnetHeader};

/// Longest IP packet that is made.
const LONGEST: usize = 65_535;
/// Flags in which a segment may differ from those before it; it is the last one then.
const ENDS: u8 = tcp_flag::FIN | tcp_flag::PSH;

/// A segment to which the ones that follow it may be joined.
#[derive(Clone, Copy, Debug)]
pub struct Merge {
    layout: Layout,
    /// Payload bytes of the first segment.
    size: usize,
    /// Payload bytes of all.
    payload: usize,
    count: usize,
    /// Flags of the last segment.
    flags: u8,
    is_ended: bool,
}

impl Merge {
    /// Begins with a complete frame; `None` if it is none to which others can be joined.
    pub fn begin(first: &[u8]) -> Option<Merge> {
        let (_, ethertype) = ethernet::behind_tags(first)?;
        let version = match ethertype {
            ETHERTYPE_IPV4 => Ip::V4,
            ETHERTYPE_IPV6 => Ip::V6,
            _ => return None,
        };
        let layout = Layout::parse(first, first.len(), Some(version), Transport::Tcp).ok()?;
        let size = first.len().checked_sub(layout.payload).filter(|size| *size > 0)?;
        let flags = first[layout.transport + 13];
        let is_whole = flags & (ENDS | tcp_flag::CWR) != 0 || first.len() - layout.ip > LONGEST;
        let merge = Merge { layout, size, payload: size, count: 1, flags, is_ended: false };
        (!is_whole).then_some(merge)
    }

    /// Joins the next frame to `first`, with which this has begun. Returns whether it belongs
    /// there; if not, nothing has changed.
    pub fn join(&mut self, first: &[u8], next: &[u8]) -> bool {
        let Some(size) = next.len().checked_sub(self.layout.payload) else { return false };
        let is_due = !self.is_ended
            && (1..=self.size).contains(&size)
            && self.headers_len() + self.payload + size <= LONGEST
            && self.continues(first, next)
            && (self.count > 1 || self.is_intact(first))
            && self.is_intact(next);
        if is_due {
            self.payload += size;
            self.count += 1;
            self.flags = next[self.layout.transport + 13];
            self.is_ended = size < self.size || self.flags & ENDS != 0;
        }
        is_due
    }

    /// Returns how many frames it is made of.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the offset of the payload in each of the frames.
    pub fn payload_start(&self) -> usize {
        self.layout.payload
    }

    /// Returns the length of the large frame.
    pub fn frame_len(&self) -> usize {
        self.layout.payload + self.payload
    }

    /// Rewrites the headers of `first`, with which this has begun, to those of the large frame, and
    /// returns the virtio-net header. A frame to which none was joined stays as it is.
    pub fn finish(&self, first: &mut [u8]) -> VnetHeader {
        if self.count == 1 {
            return VnetHeader::default();
        }
        let (before, transport) = first.split_at_mut(self.layout.transport);
        let ip = &mut before[self.layout.ip..];
        let tcp_len = self.layout.payload - self.layout.transport + self.payload;
        // Neither exceeds `LONGEST`.
        let gso_type = match self.layout.ip_version {
            Ip::V4 => {
                put16(ip, 2, (ip.len() + tcp_len) as u16);
                put16(ip, 10, ipv4_checksum(ip));
                GSO_TCPV4
            }
            Ip::V6 => {
                put16(ip, 4, tcp_len as u16);
                GSO_TCPV6
            }
        };
        transport[13] = self.flags;
        put16(transport, 16, fold(self.pseudo_sum(ip, tcp_len)));
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.layout.payload as u16,
            gso_size: self.size as u16,
            csum_start: self.layout.transport as u16,
            csum_offset: Transport::Tcp.checksum_offset() as u16,
            num_buffers: 0,
        }
    }

    /// Bytes of the IP and TCP headers.
    fn headers_len(&self) -> usize {
        self.layout.payload - self.layout.ip
    }

    /// Returns whether the headers of `next` are those of the segment after all that were joined to
    /// `first`.
    fn continues(&self, first: &[u8], next: &[u8]) -> bool {
        let Layout { ip_version, ip: ip_at, transport: tcp_at, payload, .. } = self.layout;
        let [one, other] = [first, next]
            .map(|frame| (&frame[..ip_at], &frame[ip_at..tcp_at], &frame[tcp_at..payload]));
        let (ip, tcp) = (other.1, other.2);
        let follows = match ip_version {
            Ip::V4 => {
                let identification = be16(one.1, 4).wrapping_add(self.count as u16);
                usize::from(be16(ip, 2)) == next.len() - ip_at
                    && be16(ip, 4) == identification
                    && are_equal(one.1, ip, &[(0, 2), (6, 10), (12, ip.len())])
            }
            Ip::V6 => {
                usize::from(be16(ip, 4)) == next.len() - tcp_at
                    && are_equal(one.1, ip, &[(0, 4), (6, ip.len())])
            }
        };
        follows
            && one.0 == other.0
            && be32(tcp, 4) == be32(one.2, 4).wrapping_add(self.payload as u32)
            && (one.2[13] ^ tcp[13]) & !ENDS == 0
            && are_equal(one.2, tcp, &[(0, 4), (8, 13), (14, 16), (18, tcp.len())])
    }

    /// Returns whether a frame with these headers has the checksums that its sender computes.
    fn is_intact(&self, frame: &[u8]) -> bool {
        let (ip, tcp) = frame[self.layout.ip..].split_at(self.layout.transport - self.layout.ip);
        let sum = self.pseudo_sum(ip, tcp.len()) + sum_all(&[&tcp[..16], &tcp[18..]]);
        be16(tcp, 16) == !fold(sum)
            && (self.layout.ip_version == Ip::V6 || be16(ip, 10) == ipv4_checksum(ip))
    }

    /// Partial sum of the pseudo-header of `len` bytes of TCP (RFC 9293, section 3.1).
    fn pseudo_sum(&self, ip: &[u8], len: usize) -> u32 {
        let addresses = match self.layout.ip_version {
            Ip::V4 => &ip[12..20],
            Ip::V6 => &ip[8..40],
        };
        checksum::sum(addresses) + u32::from(Transport::Tcp.number()) + len as u32
    }
}

/// The checksum of an IPv4 header, whatever it holds as such.
fn ipv4_checksum(ip: &[u8]) -> u16 {
    !fold(sum_all(&[&ip[..10], &ip[12..]]))
}

/// Returns whether bytes are the same in these ranges.
fn are_equal(one: &[u8], other: &[u8], ranges: &[(usize, usize)]) -> bool {
    ranges.iter().all(|(from, to)| one[*from..*to] == other[*from..*to])
}

#[cfg(test)]
mod tests;

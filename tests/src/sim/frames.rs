//! Frames of the simulation, kept in parts: addresses, tags, the rest. The possible results of a
//! frame (other tags, a finished checksum, segments) are built together with it, by etherparse from
//! the same values, not by the switch's own code.

use std::fmt;

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader};
use trama_frame::{MacAddr, Offloads, VlanTag, VnetHeader};

use super::rng::Rng;

/// A frame, and the offload work left on it.
#[derive(Clone)]
pub(crate) struct Frame {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// VLAN tags, outermost first.
    pub tags: Vec<VlanTag>,
    /// EtherType and everything behind it, as sent.
    pub rest: Vec<u8>,
    /// The offload work left to the receiver.
    pub work: Work,
}

/// Offload work left by the sender, or its error.
#[derive(Clone)]
pub(crate) enum Work {
    /// Nothing: the frame is complete.
    Nothing,
    /// Nothing, and the checksum has been verified.
    Verified,
    /// An unfinished checksum.
    Checksum {
        /// Where it starts in `rest`.
        start: usize,
        /// Where it is stored, relative to `start`.
        offset: usize,
        /// `rest` with the checksum in place.
        done: Vec<u8>,
    },
    /// Segmentation of a large frame.
    Segmentation(Large),
    /// The header is invalid for the frame.
    Malformed(VnetHeader),
    /// Only this many bytes arrive, fewer than the Ethernet header with its tag.
    Runt(usize),
}

/// A large frame.
#[derive(Clone)]
pub(crate) struct Large {
    /// `gso_type` of its header.
    pub gso_type: u8,
    /// Payload bytes per segment.
    pub gso_size: usize,
    /// Where the transport header starts in `rest`.
    pub start: usize,
    /// Where its payload starts in `rest`.
    pub payload: usize,
    /// Offset of the checksum, relative to `start`.
    pub offset: usize,
    /// Offloads that a receiver must have negotiated to get it whole.
    pub needs: Offloads,
    /// The `rest` of each segment.
    pub done: Vec<Vec<u8>>,
}

/// Maximum number of VLAN tags that the switch parses.
pub(crate) const MAX_TAGS: usize = 8;
/// Longest frame that the switch forwards: an IP packet of 65535 bytes and a header with all tags.
pub(crate) const MAX_LEN: usize = 65_535 + 14 + 4 * MAX_TAGS;
const ADDRESSES: usize = 12;

impl Frame {
    /// Returns the frame as its sender hands it over.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.with_rest(&self.rest);
        if let Work::Runt(len) = self.work {
            bytes.truncate(len);
        }
        bytes
    }

    /// Returns the frame's addresses and tags followed by another `rest`.
    pub(crate) fn with_rest(&self, rest: &[u8]) -> Vec<u8> {
        let mut bytes = [self.dst.0, self.src.0].concat();
        for tag in &self.tags {
            bytes.extend(tag.tpid.to_be_bytes());
            bytes.extend(tag.tci.to_be_bytes());
        }
        bytes.extend(rest);
        bytes
    }

    /// Returns the virtio-net header that is correct for the frame with its present tags.
    pub(crate) fn header(&self) -> VnetHeader {
        let before = (ADDRESSES + 4 * self.tags.len()) as u16;
        match &self.work {
            Work::Nothing | Work::Runt(_) => VnetHeader::default(),
            Work::Verified => VnetHeader { flags: 2, ..VnetHeader::default() },
            Work::Checksum { start, offset, .. } => VnetHeader {
                flags: 1,
                csum_start: before + *start as u16,
                csum_offset: *offset as u16,
                ..VnetHeader::default()
            },
            Work::Segmentation(large) => VnetHeader {
                flags: 1,
                gso_type: large.gso_type,
                hdr_len: before + large.payload as u16,
                gso_size: large.gso_size as u16,
                csum_start: before + large.start as u16,
                csum_offset: large.offset as u16,
                num_buffers: 0,
            },
            Work::Malformed(header) => *header,
        }
    }

    /// Returns the packet length that the MTU limits: after the parsed tags (tags beyond the
    /// maximum count), and for a large frame that of one segment.
    pub(crate) fn packet_len(&self) -> usize {
        let further_tags = 4 * self.tags.len().saturating_sub(MAX_TAGS);
        match &self.work {
            Work::Segmentation(large) => further_tags + large.payload - 2 + large.gso_size,
            _ => further_tags + self.rest.len() - 2,
        }
    }

    /// Returns the offloads that a receiver needs to get the frame unchanged.
    pub(crate) fn needs(&self) -> Offloads {
        match &self.work {
            Work::Checksum { .. } => Offloads::CSUM,
            Work::Segmentation(large) => large.needs,
            _ => Offloads::NONE,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.src, self.dst)?;
        for tag in &self.tags {
            write!(f, " {:04x}:vid {} pcp {}", tag.tpid, tag.vid(), tag.pcp())?;
        }
        write!(f, " {} bytes", self.bytes().len())?;
        match &self.work {
            Work::Nothing => Ok(()),
            Work::Verified => write!(f, ", checksum verified"),
            Work::Checksum { .. } => write!(f, ", checksum to do"),
            Work::Segmentation(large) => {
                write!(f, ", {:?} in {} segments", large.needs, large.done.len())
            }
            Work::Malformed(header) => write!(f, ", false {header:?}"),
            Work::Runt(_) => write!(f, ", runt"),
        }
    }
}

/// Returns a complete frame with `len` bytes of payload.
pub(crate) fn plain(rng: &mut Rng, len: usize) -> (Vec<u8>, Work) {
    let ethertype = rng.pick(&[0x0800u16, 0x0806, 0x86dd, 0x88b5, 0x0026]);
    let mut rest = ethertype.to_be_bytes().to_vec();
    rest.extend(rng.bytes(len));
    let work = if rng.chance(1, 20) { Work::Verified } else { Work::Nothing };
    (rest, work)
}

/// A packet whose segments differ only in what must differ.
struct Flow {
    v6: bool,
    tcp: bool,
    identification: u16,
    sequence: u32,
    cwr: bool,
    end: bool,
}

impl Flow {
    fn random(rng: &mut Rng) -> Flow {
        Flow {
            v6: rng.chance(1, 2),
            tcp: rng.chance(2, 3),
            identification: rng.bits() as u16,
            sequence: rng.bits() as u32,
            cwr: rng.chance(1, 4),
            end: rng.chance(1, 2),
        }
    }

    fn transport(&self) -> usize {
        if self.v6 { 2 + 40 } else { 2 + 20 }
    }

    fn payload(&self) -> usize {
        self.transport() + if self.tcp { 20 } else { 8 }
    }

    fn checksum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    /// Returns EtherType and packet of the `index`-th segment, which starts at byte `at` of the
    /// whole.
    fn packet(&self, part: &[u8], index: usize, at: usize, last: bool) -> Vec<u8> {
        let number = if self.tcp { IpNumber::TCP } else { IpNumber::UDP };
        let (ethertype, ip) = if self.v6 {
            let header = Ipv6Header {
                next_header: number,
                hop_limit: 64,
                source: [0xfd; 16],
                destination: [0xfe; 16],
                ..Ipv6Header::default()
            };
            (0x86ddu16, IpHeaders::Ipv6(header, Default::default()))
        } else {
            let mut header = Ipv4Header::new(0, 64, number, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            header.identification = self.identification.wrapping_add(index as u16);
            (0x0800u16, IpHeaders::Ipv4(header, Default::default()))
        };
        let mut rest = ethertype.to_be_bytes().to_vec();
        let builder = PacketBuilder::ip(ip);
        if self.tcp {
            let sequence = self.sequence.wrapping_add(at as u32);
            let mut tcp = TcpHeader::new(4000, 80, sequence, 5000);
            (tcp.ack, tcp.acknowledgment_number) = (true, 77);
            (tcp.psh, tcp.fin) = (last, last && self.end);
            tcp.cwr = self.cwr && index == 0;
            builder.tcp_header(tcp).write(&mut rest, part).unwrap();
        } else {
            builder.udp(4000, 53).write(&mut rest, part).unwrap();
        }
        rest
    }

    /// Replaces the checksum by the pseudo-header's sum, as a sender with checksum offload does.
    fn leave_partial_checksum(&self, rest: &mut [u8]) {
        let addresses = if self.v6 { &rest[10..42] } else { &rest[14..22] };
        let length = rest.len() - self.transport();
        let mut sum = u64::from(if self.tcp { 6u8 } else { 17 }) + length as u64;
        sum += addresses
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]))
            .sum::<u64>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let at = self.transport() + self.checksum_offset();
        rest[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    }
}

/// Returns a TCP or UDP packet with an unfinished checksum.
pub(crate) fn partial_checksum(rng: &mut Rng, len: usize) -> (Vec<u8>, Work) {
    let flow = Flow::random(rng);
    let done = flow.packet(&rng.bytes(len), 0, 0, true);
    let mut rest = done.clone();
    flow.leave_partial_checksum(&mut rest);
    let (start, offset) = (flow.transport(), flow.checksum_offset());
    (rest, Work::Checksum { start, offset, done })
}

/// Returns a large frame: more payload than one segment holds.
pub(crate) fn large(rng: &mut Rng) -> (Vec<u8>, Work) {
    let flow = Flow::random(rng);
    let gso_size = rng.pick(&[500, 1000, 1400, 1448, 1460, 1500, 8900]);
    let most = if rng.chance(1, 10) { 50_000 } else { 4000 };
    let len = gso_size + 1 + rng.below(most);
    let payload = rng.bytes(len);
    let count = payload.len().div_ceil(gso_size);
    let done = payload
        .chunks(gso_size)
        .enumerate()
        .map(|(index, part)| flow.packet(part, index, index * gso_size, index + 1 == count))
        .collect();
    let mut rest = flow.packet(&payload, 0, 0, true);
    flow.leave_partial_checksum(&mut rest);
    let (gso_type, needs) = match (flow.tcp, flow.v6) {
        (true, false) => (1, Offloads::TSO4),
        (true, true) => (4, Offloads::TSO6),
        (false, _) => (5, Offloads::USO),
    };
    // The hosts interpret the ECN flags; the bit is passed on unchanged.
    let (ecn, ecn_needs) =
        if flow.tcp && flow.cwr { (0x80, Offloads::ECN) } else { (0, Offloads::NONE) };
    let large = Large {
        gso_type: gso_type | ecn,
        gso_size,
        start: flow.transport(),
        payload: flow.payload(),
        offset: flow.checksum_offset(),
        needs: needs | ecn_needs | Offloads::CSUM,
        done,
    };
    (rest, Work::Segmentation(large))
}

/// Returns a frame with a header that is invalid for it.
pub(crate) fn malformed(rng: &mut Rng, tags: &[VlanTag]) -> (Vec<u8>, Work) {
    let base = VnetHeader::default();
    let len = rng.below(200);
    let (rest, header) = match rng.below(7) {
        0 => {
            // The two bytes of the checksum lie beyond the end.
            let (rest, _) = plain(rng, len);
            let end = ADDRESSES + 4 * tags.len() + rest.len();
            let csum_start = (end - rng.below(2)) as u16;
            (rest, VnetHeader { flags: 1, csum_start, csum_offset: 0, ..base })
        }
        1 => (plain(rng, len).0, VnetHeader { flags: 1, csum_start: rng.below(14) as u16, ..base }),
        2 => {
            let gso_type = rng.pick(&[2, 3, 6, 7, 0x80, 0x85, 0x41]);
            (large(rng).0, VnetHeader { flags: 1, gso_type, gso_size: 1400, ..base })
        }
        3 => (plain(rng, len).0, VnetHeader { flags: 1, gso_type: 1, gso_size: 1400, ..base }),
        lie => {
            let (rest, work) = large(rng);
            let as_made =
                Frame { dst: MacAddr::ZERO, src: MacAddr::ZERO, tags: tags.to_vec(), rest, work };
            let truth = as_made.header();
            let header = match lie {
                4 => VnetHeader { flags: 0, ..truth },
                5 => VnetHeader { gso_size: 0, ..truth },
                _ => VnetHeader { csum_offset: truth.csum_offset + 2, ..truth },
            };
            (as_made.rest, header)
        }
    };
    (rest, Work::Malformed(header))
}

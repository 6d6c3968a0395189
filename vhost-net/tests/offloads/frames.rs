//! What a driver sends with the offloads that it has negotiated, built by etherparse, and how a
//! driver completes a checksum.

use etherparse::PacketBuilder;
use trama_frame::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM};
use trama_frame::{MacAddr, VnetHeader};
use trama_vhost_net_backend::features::*;

const ETHERNET: usize = 14;
const SEQUENCE: u32 = u32::MAX - 2000;
/// Not a multiple of any segment size here, and odd.
const LARGE: usize = 5121;

/// TCP or UDP over IPv4 or IPv6.
#[derive(Clone, Copy)]
struct Protocol {
    name: &'static str,
    is_v6: bool,
    is_tcp: bool,
    /// The `gso_type` of a large frame, and the feature that allows it.
    large: Option<(u8, u64)>,
}

const PROTOCOLS: [Protocol; 4] = [
    Protocol {
        name: "TCPv4",
        is_v6: false,
        is_tcp: true,
        large: Some((GSO_TCPV4, NET_F_HOST_TSO4)),
    },
    Protocol {
        name: "TCPv6",
        is_v6: true,
        is_tcp: true,
        large: Some((GSO_TCPV6, NET_F_HOST_TSO6)),
    },
    Protocol { name: "UDPv4", is_v6: false, is_tcp: false, large: None },
    Protocol { name: "UDPv6", is_v6: true, is_tcp: false, large: None },
];

/// A frame as a driver hands it over.
pub(crate) struct Sent {
    pub what: String,
    pub header: VnetHeader,
    pub bytes: Vec<u8>,
    /// Source port, which tells the frames of one sender apart.
    pub port: u16,
    payload_at: usize,
    is_tcp: bool,
}

impl Sent {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }

    /// How many frames it makes for a receiver that does not take it whole.
    pub(crate) fn segments(&self) -> usize {
        match usize::from(self.header.gso_size) {
            0 => 1,
            size => self.payload().len().div_ceil(size),
        }
    }

    /// The sequence number behind `offset` bytes of payload.
    pub(crate) fn sequence(&self, offset: usize) -> Option<u32> {
        self.is_tcp.then(|| SEQUENCE.wrapping_add(offset as u32))
    }
}

/// One frame of each sort that a driver with this set of features sends.
pub(crate) fn frames_of(set: u64, from: MacAddr) -> Vec<Sent> {
    let mut frames = Vec::new();
    for protocol in PROTOCOLS {
        let mut add = |what, payload: &[u8], unfinished, gso_type| {
            let port = 40_000 + frames.len() as u16;
            frames.push(protocol.frame(what, from, port, payload, unfinished, gso_type));
        };
        add("complete", &pattern(700), false, GSO_NONE);
        if set & NET_F_CSUM == 0 {
            continue;
        }
        add("unfinished", &pattern(701), true, GSO_NONE);
        add("unfinished, no payload", &[], true, GSO_NONE);
        let (large, feature) = protocol.large.unwrap_or_default();
        if set & feature != 0 {
            add("large", &pattern(LARGE), true, large);
            if set & NET_F_HOST_ECN != 0 {
                add("large with CWR", &pattern(LARGE), true, large | GSO_ECN);
            }
        }
        if !protocol.is_tcp {
            let port = 40_000 + frames.len() as u16;
            frames.push(protocol.summing_to_zero(from, port));
        }
    }
    frames
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

impl Protocol {
    fn transport_at(self) -> usize {
        ETHERNET + if self.is_v6 { 40 } else { 20 }
    }

    fn transport_len(self) -> usize {
        if self.is_tcp { 20 } else { 8 }
    }

    fn checksum_offset(self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    fn frame(
        self,
        what: &str,
        from: MacAddr,
        port: u16,
        payload: &[u8],
        unfinished: bool,
        gso_type: u8,
    ) -> Sent {
        let mut bytes = self.complete_frame(from, port, payload, gso_type & GSO_ECN != 0);
        let payload_at = self.transport_at() + self.transport_len();
        let mut header = VnetHeader::default();
        if unfinished {
            let at = self.transport_at() + self.checksum_offset();
            let sum = self.pseudo_sum(&bytes).to_be_bytes();
            bytes[at..at + 2].copy_from_slice(&sum);
            header.flags = NEEDS_CSUM;
            header.csum_start = self.transport_at() as u16;
            header.csum_offset = self.checksum_offset() as u16;
        }
        if gso_type != GSO_NONE {
            header.gso_type = gso_type;
            header.hdr_len = payload_at as u16;
            header.gso_size = (1500 + ETHERNET - payload_at) as u16;
        }
        let what = format!("{}, {what},", self.name);
        Sent { what, header, bytes, port, payload_at, is_tcp: self.is_tcp }
    }

    /// An unfinished datagram whose checksum comes out as zero, which UDP sends as 0xffff.
    fn summing_to_zero(self, from: MacAddr, port: u16) -> Sent {
        let mut payload = pattern(700);
        payload[..2].fill(0);
        let bytes = self.complete_frame(from, port, &payload, false);
        let at = self.transport_at() + self.checksum_offset();
        payload[..2].copy_from_slice(&bytes[at..at + 2]);
        let bytes = self.complete_frame(from, port, &payload, false);
        assert_eq!(bytes[at..at + 2], [0xff, 0xff]);
        self.frame("sum of zero", from, port, &payload, true, GSO_NONE)
    }

    fn complete_frame(self, from: MacAddr, port: u16, payload: &[u8], cwr: bool) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(from.0, [0; 6]);
        let (low, high) = (from.0[5], 200);
        let builder = if self.is_v6 {
            let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
            builder.ipv6(address(low), address(high), 64)
        } else {
            builder.ipv4([10, 1, 0, low], [10, 1, 0, high], 64)
        };
        let mut bytes = Vec::new();
        if self.is_tcp {
            let tcp = builder.tcp(port, 40_000, SEQUENCE, 500).ack(77).psh();
            let tcp = if cwr { tcp.cwr() } else { tcp };
            tcp.write(&mut bytes, payload).unwrap();
        } else {
            builder.udp(port, 40_000).write(&mut bytes, payload).unwrap();
        }
        bytes
    }

    /// The sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
    fn pseudo_sum(self, frame: &[u8]) -> u16 {
        let addresses = if self.is_v6 { 8..40 } else { 12..20 };
        let protocol = if self.is_tcp { 6 } else { 17 };
        let len = (frame.len() - self.transport_at()) as u16;
        let words = [protocol, len].map(u16::to_be_bytes);
        sum(&[&frame[ETHERNET..][addresses], words.as_flattened()].concat())
    }
}

/// Fills in a checksum that came unfinished, as a receiving driver does (virtio 1.2, section
/// 5.1.6.4.1).
pub(crate) fn complete(header: &VnetHeader, frame: &mut [u8]) {
    if header.flags & NEEDS_CSUM == 0 {
        return;
    }
    let covered = &mut frame[usize::from(header.csum_start)..];
    // Zero means that there is none.
    let checksum = match !sum(covered) {
        0 => 0xffff,
        other => other,
    };
    covered[usize::from(header.csum_offset)..][..2].copy_from_slice(&checksum.to_be_bytes());
}

/// One's complement sum (RFC 1071), word by word.
fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum: u16, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

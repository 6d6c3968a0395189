//! Frames: UDP over IPv4 or, for large segments, TCP over IPv4. The MAC addresses of the stations
//! encode their port. Each frame has a stamp behind its headers.
//!
//! The smallest frame, 60 bytes without the frame check sequence, has hardly more; with a tag it
//! has 64. What differs from frame to frame, addresses and stamp, is in its first 64 bytes, so that
//! sending a frame again writes a single cache line.

use trama_frame::checksum;
use trama_frame::vnet::{GSO_TCPV4, LEN as HEADER_LEN, NEEDS_CSUM, VnetHeader};
use trama_virtqueue::{Queued, Received};

use super::{Error, Load, Result};

/// Bytes of the two MAC addresses, of an 802.1Q tag, and of the headers without a tag.
const ADDRESSES: usize = 12;
const TAG: usize = 4;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const TCP: usize = 20;
/// Bytes of a stamp.
const STAMP: usize = 16;
/// Bits of a stamp's time: nanoseconds for three days.
const TIME_BITS: u32 = 48;
/// The smallest untagged frame (IEEE 802.3, clause 4.4.2) without its frame check sequence.
pub(super) const SMALLEST: usize = 60;

const TPID: [u8; 2] = [0x81, 0x00];
/// Owner of the unknown destination: frames to it are flooded. All addresses are locally
/// administered.
const UNKNOWN_OWNER: u16 = 0xffff;
/// Owner of the addresses that all ports share.
const SHARED_OWNER: u16 = 0xfffe;

/// The stamp of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    /// The run that it belongs to; foreign frames and late ones of an earlier run are not counted.
    pub(super) run: u16,
    /// The sending port.
    pub(super) origin: u16,
    /// The port to receive it, or [`FLOOD`](super::load::FLOOD).
    pub(super) target: u16,
    /// The sequence number of its stream from origin to target.
    pub(super) sequence: u32,
    /// When it was scheduled to be sent, in nanoseconds since the start of the run.
    pub(super) time: u64,
}

impl Stamp {
    /// Stored and loaded as two whole words: a load that spans several stores would stall on them.
    #[inline(always)]
    fn to_words(self) -> [u64; 2] {
        let ports = u64::from(self.origin) << 48 | u64::from(self.target) << 32;
        let time = self.time & ((1 << TIME_BITS) - 1);
        [ports | u64::from(self.sequence), u64::from(self.run) << TIME_BITS | time]
    }

    #[inline(always)]
    fn from_words([first, second]: [u64; 2]) -> Stamp {
        Stamp {
            run: (second >> TIME_BITS) as u16,
            origin: (first >> 48) as u16,
            target: (first >> 32) as u16,
            sequence: first as u32,
            time: second & ((1 << TIME_BITS) - 1),
        }
    }
}

/// A station of a port, as a MAC address: a locally administered prefix, 16 bits for the port (or a
/// special owner) and 24 bits for the station's number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Station(u64);

impl Station {
    /// Returns a station of `owner`; its number is below 2^24.
    #[inline(always)]
    pub(super) fn of(owner: u16, number: u32) -> Station {
        Station(0x02 << 40 | u64::from(owner) << 24 | u64::from(number))
    }

    /// Returns the destination port of a frame with this beginning, or a number that no group has
    /// if the destination is not a station.
    #[inline(always)]
    pub(super) fn owner(head: &[u8]) -> usize {
        match head {
            [_, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => usize::from(UNKNOWN_OWNER),
        }
    }

    /// Returns the address of no station.
    #[inline(always)]
    pub(super) fn unknown() -> Station {
        Station::of(UNKNOWN_OWNER, 0)
    }

    /// Returns the station with this number among those that all ports share.
    #[inline(always)]
    pub(super) fn moving(number: u32) -> Station {
        Station::of(SHARED_OWNER, number)
    }
}

/// Returns the offset of the stamp in an untagged frame.
fn stamp_offset(load: &Load) -> usize {
    ETHERNET + IPV4 + if load.gso.is_some() { TCP } else { UDP }
}

/// The frame of a sender, without addresses and stamp.
pub(super) struct Template {
    pub(super) header: [u8; HEADER_LEN],
    pub(super) bytes: Vec<u8>,
    stamp_at: usize,
}

impl Template {
    /// Builds the template for the frames that a port sends.
    pub(super) fn new(load: &Load, port: usize) -> Result<Template> {
        let (vlan, size) = (load.vlan(port), load.size(port));
        let tag = if vlan.is_some() { TAG } else { 0 };
        let stamp_at = stamp_offset(load) + tag;
        let smallest = (SMALLEST + tag).max(stamp_at + STAMP);
        // The IPv4 length field bounds what follows the Ethernet header.
        let largest = ETHERNET + tag + usize::from(u16::MAX);
        if !(smallest..=largest).contains(&size) {
            return Err(Error::Load(format!(
                "frames of {} bytes; such a frame may have {smallest} to {largest}",
                size
            )));
        }
        if let Some(id) = vlan.filter(|id| !(1..=4094).contains(id)) {
            return Err(Error::Load(format!("VLAN {id}; a VLAN is 1 to 4094")));
        }
        let mut bytes = vec![0; ADDRESSES];
        if let Some(id) = vlan {
            bytes.extend(TPID);
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend([0x08, 0x00]);
        let payload = size - bytes.len() - IPV4;
        bytes.extend(ipv4(payload, load.gso.is_some()));
        let at = bytes.len();
        let header = match load.gso {
            Some(gso_size) => {
                bytes.extend(tcp(payload));
                large(at, gso_size)
            }
            None => {
                bytes.extend(udp(payload));
                VnetHeader::default()
            }
        };
        bytes.resize(size, 0);
        Ok(Template { header: header.to_bytes(), bytes, stamp_at })
    }

    /// Fills in addresses and stamp.
    #[inline(always)]
    pub(super) fn fill(&self, frame: &mut Queued<'_>, to: Station, from: Station, stamp: Stamp) {
        frame.put(0, (to.0 << 16 | from.0 >> 32).to_be_bytes());
        frame.put(8, (from.0 as u32).to_be_bytes());
        let [first, second] = stamp.to_words();
        frame.put(self.stamp_at, first.to_le_bytes());
        frame.put(self.stamp_at + 8, second.to_le_bytes());
    }
}

const HOSTS: [[u8; 4]; 2] = [[198, 18, 0, 1], [198, 18, 0, 2]];

/// Returns an IPv4 header with addresses reserved for benchmarks (RFC 2544, appendix C.2.2).
fn ipv4(payload: usize, is_tcp: bool) -> [u8; IPV4] {
    let [high, low] = ((IPV4 + payload) as u16).to_be_bytes();
    let mut header =
        [0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol(is_tcp), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&HOSTS[0]);
    header[16..20].copy_from_slice(&HOSTS[1]);
    let sum = checksum::internet(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

fn protocol(is_tcp: bool) -> u8 {
    if is_tcp { 6 } else { 17 }
}

/// Uses port 9, discard. No checksum: the payload changes with every frame.
fn udp(payload: usize) -> [u8; UDP] {
    let [high, low] = (payload as u16).to_be_bytes();
    [0, 9, 0, 9, high, low, 0, 0]
}

/// The checksum field holds the pseudo-header's sum (virtio 1.2, section 5.1.6.2).
fn tcp(payload: usize) -> [u8; TCP] {
    let pseudo = [&HOSTS[0][..], &HOSTS[1], &[0, protocol(true)], &(payload as u16).to_be_bytes()];
    let [high, low] = checksum::fold(checksum::sum(&pseudo.concat())).to_be_bytes();
    [0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, high, low, 0, 0]
}

/// Returns the virtio-net header of a large frame whose TCP header starts at `at`.
fn large(at: usize, gso_size: u16) -> VnetHeader {
    VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: (at + TCP) as u16,
        gso_size,
        csum_start: at as u16,
        csum_offset: 16,
        num_buffers: 0,
    }
}

/// Reads stamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// Offset of the stamp in an untagged frame.
    stamp_at: usize,
    /// Size of a frame as sent; a switch may push or pop a tag.
    size: usize,
}

impl Reader {
    pub(super) fn new(load: &Load) -> Reader {
        Reader { stamp_at: stamp_offset(load), size: load.size }
    }

    /// Returns the frame's stamp; `None` if the frame is truncated or not from this generator.
    #[inline(always)]
    pub(super) fn read(self, frame: &Received<'_>) -> Option<Stamp> {
        let tag = if frame.get(ADDRESSES)? == TPID { TAG } else { 0 };
        if frame.frame_len().abs_diff(self.size) > TAG {
            return None;
        }
        let at = self.stamp_at + tag;
        let words = [frame.get(at)?, frame.get(at + 8)?];
        Some(Stamp::from_words(words.map(u64::from_le_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_come_back_as_they_went() {
        let widest = Stamp {
            run: 65535,
            origin: 65534,
            target: 65533,
            sequence: u32::MAX,
            time: (1 << 48) - 1,
        };
        let plain = Stamp { run: 1, origin: 2, target: 3, sequence: 4, time: 5 };
        for stamp in [widest, plain] {
            assert_eq!(Stamp::from_words(stamp.to_words()), stamp);
        }
    }

    /// Parses the frames with an independent parser.
    #[test]
    fn headers_are_those_of_a_host() {
        for (vlan, gso, size) in [
            (None, None, 60),
            (Some(10), None, 64),
            (None, Some(1448), 60_000),
            (Some(7), Some(9), 200),
        ] {
            let load = Load {
                gso,
                vlans: vec![vlan],
                ..Load::new(size, crate::generator::Direction::Uni)
            };
            let template = Template::new(&load, 0).unwrap();
            assert_eq!(template.bytes.len(), size);
            let sliced = etherparse::SlicedPacket::from_ethernet(&template.bytes).unwrap();
            assert_eq!(sliced.vlan_ids().first().map(|id| id.value()), vlan);
            let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
            assert_eq!(
                ip.header().header_checksum(),
                ip.header().to_header().calc_header_checksum()
            );
            let ip_len = usize::from(ip.header().total_len());
            assert_eq!(ip_len, size - ETHERNET - vlan.map_or(0, |_| TAG));
            let tcp = matches!(sliced.transport, Some(etherparse::TransportSlice::Tcp(_)));
            assert_eq!(tcp, gso.is_some());
            let mut header = VnetHeader::from_bytes(&template.header);
            trama_frame::vnet::validate(&mut header, &template.bytes[..size.min(128)], size)
                .unwrap();
            assert_eq!(header.is_gso(), gso.is_some());
        }
    }
}

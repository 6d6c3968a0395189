//! The frames: UDP over IPv4 or, for large segments, TCP over IPv4, between stations whose MAC
//! addresses tell their port. Behind the headers each carries a stamp.
//!
//! The smallest frame, 60 bytes without the frame check sequence, is headers and stamp and nothing
//! else; with a tag it has 64. What differs from frame to frame, addresses and stamp, lies in its
//! first 64 bytes: one cache line is all that is written of a frame that is sent again.

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
const STAMP: usize = 18;
/// The smallest untagged frame (IEEE 802.3, clause 4.4.2) without its frame check sequence.
pub(super) const SMALLEST: usize = 60;

const TPID: [u8; 2] = [0x81, 0x00];
/// The address of nobody: frames to it are flooded. Locally administered, as all here.
const NOBODY: u16 = 0xffff;
/// The owner of addresses that move from port to port.
const EVERYBODY: u16 = 0xfffe;

/// The target of a frame that every other port is to receive.
pub(super) const FLOOD: u16 = 0xffff;

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    /// The run it belongs to: others' frames, and late ones of an earlier run, are not counted.
    pub(super) run: u16,
    /// The port that sent it.
    pub(super) origin: u16,
    /// The port that is to receive it, or [`FLOOD`].
    pub(super) target: u16,
    /// Its number among the frames from that origin to that target.
    pub(super) sequence: u32,
    /// When it was to be sent, in nanoseconds since the beginning of the run.
    pub(super) time: u64,
}

impl Stamp {
    #[inline(always)]
    fn to_bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[0..2].copy_from_slice(&self.run.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.origin.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.target.to_le_bytes());
        bytes[6..10].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[10..18].copy_from_slice(&self.time.to_le_bytes());
        bytes
    }

    #[inline(always)]
    fn from_bytes(bytes: [u8; STAMP]) -> Stamp {
        let [r0, r1, o0, o1, t0, t1, s0, s1, s2, s3, time @ ..] = bytes;
        Stamp {
            run: u16::from_le_bytes([r0, r1]),
            origin: u16::from_le_bytes([o0, o1]),
            target: u16::from_le_bytes([t0, t1]),
            sequence: u32::from_le_bytes([s0, s1, s2, s3]),
            time: u64::from_le_bytes(time),
        }
    }
}

/// One of a port's stations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Station {
    /// The port, or who stands for it.
    pub(super) owner: u16,
    /// Its number on the port, below 2^24.
    pub(super) number: u32,
}

impl Station {
    pub(super) const NOBODY: Station = Station { owner: NOBODY, number: 0 };

    /// The station with that number of those that all ports share.
    pub(super) fn moving(number: u32) -> Station {
        Station { owner: EVERYBODY, number }
    }

    #[inline(always)]
    fn mac(self) -> [u8; 6] {
        let [a, b] = self.owner.to_be_bytes();
        let [_, c, d, e] = self.number.to_be_bytes();
        [0x02, a, b, c, d, e]
    }
}

/// Where a stamp is in an untagged frame.
fn stamp_offset(load: &Load) -> usize {
    ETHERNET + IPV4 + if load.gso.is_some() { TCP } else { UDP }
}

/// How the frames of one sender look but for addresses and stamp.
pub(super) struct Template {
    pub(super) header: [u8; HEADER_LEN],
    pub(super) bytes: Vec<u8>,
    stamp_at: usize,
}

impl Template {
    /// The frames of `load` that carry `vlan`.
    pub(super) fn new(load: &Load, vlan: Option<u16>) -> Result<Template> {
        let tag = if vlan.is_some() { TAG } else { 0 };
        let stamp_at = stamp_offset(load) + tag;
        let smallest = SMALLEST.max(stamp_at + STAMP);
        // The IPv4 length field bounds what follows the Ethernet header.
        let largest = ETHERNET + tag + usize::from(u16::MAX);
        if !(smallest..=largest).contains(&load.size) {
            return Err(Error::Load(format!(
                "frames of {} bytes; such a frame has {smallest} to {largest}",
                load.size
            )));
        }
        if let Some(id) = vlan.filter(|id| !(1..=4094).contains(id)) {
            return Err(Error::Load(format!("VLAN {id}; there are 1 to 4094")));
        }
        let mut bytes = vec![0; ADDRESSES];
        if let Some(id) = vlan {
            bytes.extend(TPID);
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend([0x08, 0x00]);
        let payload = load.size - bytes.len() - IPV4;
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
        bytes.resize(load.size, 0);
        Ok(Template { header: header.to_bytes(), bytes, stamp_at })
    }

    /// Makes a frame of the template that of one moment.
    #[inline(always)]
    pub(super) fn fill(&self, frame: &mut Queued<'_>, to: Station, from: Station, stamp: Stamp) {
        frame.put(0, to.mac());
        frame.put(6, from.mac());
        frame.put(self.stamp_at, stamp.to_bytes());
    }
}

const HOSTS: [[u8; 4]; 2] = [[198, 18, 0, 1], [198, 18, 0, 2]];

/// An IPv4 header between addresses that are set aside for benchmarks (RFC 2544, appendix C.2.2).
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

/// Ports 9, discard. No checksum: the payload changes with every frame.
fn udp(payload: usize) -> [u8; UDP] {
    let [high, low] = (payload as u16).to_be_bytes();
    [0, 9, 0, 9, high, low, 0, 0]
}

/// Its checksum is the pseudo-header's sum (virtio 1.2, section 5.1.6.2).
fn tcp(payload: usize) -> [u8; TCP] {
    let pseudo = [&HOSTS[0][..], &HOSTS[1], &[0, protocol(true)], &(payload as u16).to_be_bytes()];
    let [high, low] = checksum::fold(checksum::sum(&pseudo.concat())).to_be_bytes();
    [0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, high, low, 0, 0]
}

/// The header of a large frame whose TCP header starts at `at`.
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
    /// Where the stamp is in an untagged frame.
    stamp_at: usize,
    /// Bytes of a frame as it was sent; a switch may push or pop a tag.
    size: usize,
}

impl Reader {
    pub(super) fn new(load: &Load) -> Reader {
        Reader { stamp_at: stamp_offset(load), size: load.size }
    }

    /// The frame's stamp; none if it is not a whole one of ours.
    #[inline(always)]
    pub(super) fn read(self, frame: &Received<'_>) -> Option<Stamp> {
        let tag = if frame.get(ADDRESSES)? == TPID { TAG } else { 0 };
        if frame.frame_len().abs_diff(self.size) > TAG {
            return None;
        }
        frame.get(self.stamp_at + tag).map(Stamp::from_bytes)
    }
}

//! Frames and addresses.

use trama_frame::vnet::{GSO_TCPV4, NEEDS_CSUM};
use trama_frame::{MacAddr, VlanTag, VnetHeader};
use trama_virtqueue::HEADER_LEN;

/// A virtio-net header that asks for no offload.
pub const PLAIN: [u8; HEADER_LEN] = [0; HEADER_LEN];

/// Returns a locally administered station address.
pub fn mac(station: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, station])
}

/// Returns a frame of `len` bytes with a recognisable payload.
pub fn frame(dst: MacAddr, src: MacAddr, len: usize) -> Vec<u8> {
    let mut bytes = [&dst.0[..], &src.0[..], &[0x88, 0xb5]].concat();
    bytes.extend((bytes.len()..len).map(|i| (i * 31 + i / 256) as u8));
    bytes
}

/// Returns one TCP segment in an IPv4 packet of `packet` bytes, to be cut into segments of 1448
/// bytes, and the header that asks for that.
pub fn large_segment(dst: MacAddr, src: MacAddr, packet: u16) -> (VnetHeader, Vec<u8>) {
    let mut bytes = frame(dst, src, 14 + usize::from(packet));
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6]);
    bytes[16..18].copy_from_slice(&packet.to_be_bytes());
    bytes[46..48].copy_from_slice(&[0x50, 0x10]);
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    (header, bytes)
}

/// Returns the same frame with a tag.
pub fn tagged(tag: VlanTag, untagged: &[u8]) -> Vec<u8> {
    let (tpid, tci) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
    [&untagged[..12], &tpid[..], &tci[..], &untagged[12..]].concat()
}

/// Returns the C-tag (TPID 0x8100) with this TCI.
pub fn c_tag(tci: u16) -> VlanTag {
    VlanTag { tpid: 0x8100, tci }
}

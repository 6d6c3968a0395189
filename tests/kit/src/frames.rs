//! Frames and addresses.

use trama_frame::{MacAddr, VlanTag};
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

/// Returns the same frame with a tag.
pub fn tagged(tag: VlanTag, untagged: &[u8]) -> Vec<u8> {
    let (tpid, tci) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
    [&untagged[..12], &tpid[..], &tci[..], &untagged[12..]].concat()
}

/// Returns the C-tag (TPID 0x8100) with this TCI.
pub fn c_tag(tci: u16) -> VlanTag {
    VlanTag { tpid: 0x8100, tci }
}

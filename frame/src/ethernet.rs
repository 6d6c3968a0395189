//! The Ethernet header, read once from the first bytes of a frame.

use crate::{MacAddr, VlanTag};

/// Length of a header without tag: two addresses and the EtherType.
pub const MIN_HEADER: usize = 14;
/// Length of a VLAN tag: TPID and TCI.
pub const TAG_LEN: usize = 4;
/// Most VLAN tags of one frame that are parsed; the limit of Linux (`VLAN_MAX_DEPTH`). Further ones
/// count as payload.
pub const MAX_TAGS: usize = 8;
/// TPID of a customer tag (C-tag), IEEE 802.1Q.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// TPID of a service tag (S-tag), IEEE 802.1ad.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// An Ethernet header with its outermost tag, if it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// The outermost tag, of either TPID.
    pub tag: Option<VlanTag>,
    /// EtherType (or length) after the tag. Behind a second tag it is that tag's TPID.
    pub ethertype: u16,
}

impl Ethernet {
    /// Bytes before the payload: 14, or 18 with a tag.
    #[inline]
    pub const fn header_len(&self) -> usize {
        if self.tag.is_some() { MIN_HEADER + TAG_LEN } else { MIN_HEADER }
    }
}

/// Parses the header at the start of `head`; `None` if `head` is shorter than 14 bytes, or than 18
/// with a tag.
#[inline]
pub fn parse(head: &[u8]) -> Option<Ethernet> {
    let fixed: &[u8; MIN_HEADER] = head.first_chunk()?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *fixed;
    let dst = MacAddr([d0, d1, d2, d3, d4, d5]);
    let src = MacAddr([s0, s1, s2, s3, s4, s5]);
    let first_type = u16::from_be_bytes([t0, t1]);
    if !is_tag(first_type) {
        return Some(Ethernet { dst, src, tag: None, ethertype: first_type });
    }
    let [c0, c1, e0, e1] = *head[MIN_HEADER..].first_chunk()?;
    let tag = VlanTag { tpid: first_type, tci: u16::from_be_bytes([c0, c1]) };
    Some(Ethernet { dst, src, tag: Some(tag), ethertype: u16::from_be_bytes([e0, e1]) })
}

/// Whether this EtherType is the TPID of a VLAN tag.
#[inline]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

/// Skips all tags of the frame that begins with `head`: returns the offset of the payload and its
/// EtherType. After [`MAX_TAGS`] tags that may be the TPID of a further one. `None` if `head` ends
/// before the payload.
pub fn behind_tags(head: &[u8]) -> Option<(usize, u16)> {
    let mut start = MIN_HEADER;
    loop {
        let field = head.get(start - 2..start)?.first_chunk()?;
        let ethertype = u16::from_be_bytes(*field);
        if !is_tag(ethertype) || start == MIN_HEADER + MAX_TAGS * TAG_LEN {
            return Some((start, ethertype));
        }
        start += TAG_LEN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::untagged;
    use proptest::prelude::*;

    #[test]
    fn short_headers_are_none() {
        let frame = untagged(&[]);
        for len in 0..MIN_HEADER {
            assert_eq!(parse(&frame[..len]), None, "{len}");
        }
        for tpid in [ETHERTYPE_VLAN, ETHERTYPE_QINQ] {
            let mut tagged = frame.clone();
            tagged[12..].copy_from_slice(&tpid.to_be_bytes());
            tagged.extend_from_slice(&[0x20, 0x07, 0x86, 0xdd]);
            for len in 0..MIN_HEADER + TAG_LEN {
                assert_eq!(parse(&tagged[..len]), None, "{len}");
            }
            let header = parse(&tagged).unwrap();
            assert_eq!(header.tag, Some(VlanTag { tpid, tci: 0x2007 }));
            assert_eq!(header.ethertype, ETHERTYPE_IPV6);
            assert_eq!(header.header_len(), 18);
        }
    }

    /// A frame with `count` tags of both kinds in turn, from its addresses to its payload.
    fn stacked(count: usize) -> Vec<u8> {
        let mut frame = untagged(b"payload");
        let tags = (0..count).flat_map(|i| [[0x81, 0, 0, 7], [0x88, 0xa8, 0, 9]][i % 2]);
        frame.splice(12..12, tags);
        frame
    }

    #[test]
    fn the_walk_ends_behind_the_tags_or_behind_the_most_there_may_be() {
        for count in 0..=20 {
            let frame = stacked(count);
            let walked = count.min(MAX_TAGS);
            let (start, ethertype) = behind_tags(&frame).unwrap();
            assert_eq!(start, MIN_HEADER + walked * TAG_LEN, "{count}");
            assert_eq!(ethertype == ETHERTYPE_IPV4, count <= MAX_TAGS, "{count}: {ethertype:x}");
            for shown in 0..start {
                assert_eq!(behind_tags(&frame[..shown]), None, "{count} tags, {shown} bytes");
            }
            assert_eq!(behind_tags(&frame[..start]), Some((start, ethertype)));
        }
    }

    proptest! {
        #[test]
        fn parse_agrees_with_etherparse(head in proptest::collection::vec(any::<u8>(), 0..40)) {
            let oracle = etherparse::Ethernet2HeaderSlice::from_slice(&head).ok();
            match (parse(&head), oracle) {
                (Some(parsed), Some(oracle)) => {
                    prop_assert_eq!(parsed.dst.0, oracle.destination());
                    prop_assert_eq!(parsed.src.0, oracle.source());
                    let outer = parsed.tag.map_or(parsed.ethertype, |tag| tag.tpid);
                    prop_assert_eq!(outer, oracle.ether_type().0);
                }
                (None, Some(oracle)) => {
                    prop_assert!(matches!(oracle.ether_type().0, ETHERTYPE_VLAN | ETHERTYPE_QINQ));
                    prop_assert!(head.len() < 18);
                }
                (None, None) => prop_assert!(head.len() < MIN_HEADER),
                (Some(_), None) => prop_assert!(false, "etherparse refused it"),
            }
        }
    }
}

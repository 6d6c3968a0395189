//! Pushes, pops or changes a VLAN tag while a frame is copied. Only the addresses and the tag are
//! rewritten; the payload does not move.

use crate::VlanTag;
use crate::ethernet::TAG_LEN;

/// Length of the two addresses, which a tag follows.
const ADDRESSES: usize = 12;

/// The addresses that `head` begins with, then `tag`, or zeros in its place.
///
/// # Panics
/// The head is shorter than the addresses.
#[inline(always)]
pub fn start(head: &[u8], tag: Option<VlanTag>) -> [u8; ADDRESSES + TAG_LEN] {
    let addresses = &head[..ADDRESSES];
    let (mut low, mut high) = ([0; 8], [0; 4]);
    low.copy_from_slice(&addresses[..8]);
    high.copy_from_slice(&addresses[8..]);
    let tag = tag.map_or(0, |tag| u32::from(tag.tpid) << 16 | u32::from(tag.tci));
    // Put together as words: an array that is filled in pieces would be one in memory.
    let high = u64::from(u32::from_le_bytes(high)) | u64::from(tag.swap_bytes()) << 32;
    (u128::from(u64::from_le_bytes(low)) | u128::from(high) << 64).to_le_bytes()
}

/// Bytes of a frame's start: two addresses, and a tag if it `is_tagged`.
#[inline(always)]
pub const fn start_len(is_tagged: bool) -> usize {
    if is_tagged { ADDRESSES + TAG_LEN } else { ADDRESSES }
}

/// Copies `head` to the beginning of `room`, with `tag` in place of the tag that it has if it
/// `was_tagged`; that part of `room`.
///
/// # Panics
/// The head is shorter than its addresses and tag, or there is no room: the head's length and 4
/// bytes always are enough.
pub fn write<'r>(
    head: &[u8],
    was_tagged: bool,
    tag: Option<VlanTag>,
    room: &'r mut [u8],
) -> &'r [u8] {
    let rest = &head[start_len(was_tagged)..];
    let len = start_len(tag.is_some());
    room[..len].copy_from_slice(&start(head, tag)[..len]);
    room[len..len + rest.len()].copy_from_slice(rest);
    &room[..len + rest.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_QINQ, ETHERTYPE_VLAN, parse};
    use crate::testing::untagged;
    use proptest::prelude::*;

    fn retag(head: &[u8], was_tagged: bool, tag: Option<VlanTag>) -> Vec<u8> {
        let mut room = vec![0xee; head.len() + TAG_LEN];
        let frame = write(head, was_tagged, tag, &mut room).to_vec();
        let growth = start_len(tag.is_some()) as i64 - start_len(was_tagged) as i64;
        assert_eq!(frame.len() as i64 - head.len() as i64, growth);
        frame
    }

    #[test]
    fn a_second_tag_goes_in_front_and_the_first_is_its_ethertype() {
        let inner = VlanTag { tpid: ETHERTYPE_VLAN, tci: 5 };
        let outer = VlanTag { tpid: ETHERTYPE_QINQ, tci: 9 };
        let once = retag(&untagged(b"payload"), false, Some(inner));
        let twice = retag(&once, false, Some(outer));
        let header = parse(&twice).unwrap();
        assert_eq!((header.tag, header.ethertype), (Some(outer), ETHERTYPE_VLAN));
        assert_eq!(retag(&twice, true, None), once);
    }

    proptest! {
        #[test]
        fn push_change_pop(payload in proptest::collection::vec(any::<u8>(), 0..50), tci: u16, other: u16) {
            let frame = untagged(&payload);
            let tag = VlanTag { tpid: ETHERTYPE_VLAN, tci };
            let pushed = retag(&frame, false, Some(tag));
            let mut expected = frame[..12].to_vec();
            expected.extend_from_slice(&[0x81, 0x00]);
            expected.extend_from_slice(&tci.to_be_bytes());
            expected.extend_from_slice(&frame[12..]);
            prop_assert_eq!(&pushed, &expected);

            let tag = VlanTag { tci: other, ..tag };
            let changed = retag(&pushed, true, Some(tag));
            let header = parse(&changed).unwrap();
            prop_assert_eq!((header.tag, header.ethertype), (Some(tag), ETHERTYPE_IPV4));
            prop_assert_eq!(&retag(&changed, true, None), &frame);
            prop_assert_eq!(&retag(&frame, false, None), &frame);
        }
    }
}

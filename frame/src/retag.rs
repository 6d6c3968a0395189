//! Pushes, pops or changes a VLAN tag while a frame is copied. Only the addresses and the tag are
//! rewritten; the payload does not move.

use crate::VlanTag;
use crate::ethernet::TAG_LEN;

/// Length of the two addresses, which a tag follows.
const ADDRESSES: usize = 12;

/// A frame's first bytes with another outermost tag, or none: [`start`](Self::start), then
/// [`rest`](Self::rest).
pub struct Retagged<'a> {
    start: [u8; ADDRESSES + TAG_LEN],
    start_len: usize,
    rest: &'a [u8],
    /// Bytes of the head that the start replaces.
    replaced: usize,
}

impl<'a> Retagged<'a> {
    /// Puts `tag` in place of the outermost tag of `head`, or in front of its EtherType unless
    /// `is_tagged`.
    ///
    /// # Panics
    /// The head is shorter than its addresses and tag.
    #[inline(always)]
    pub fn new(head: &'a [u8], is_tagged: bool, tag: Option<VlanTag>) -> Retagged<'a> {
        let replaced = if is_tagged { ADDRESSES + TAG_LEN } else { ADDRESSES };
        let (start_len, tag) = match tag {
            Some(VlanTag { tpid, tci }) => (ADDRESSES + TAG_LEN, [tpid, tci]),
            None => (ADDRESSES, [0; 2]),
        };
        let [[t0, t1], [c0, c1]] = tag.map(u16::to_be_bytes);
        let mut start = [0; ADDRESSES + TAG_LEN];
        start[..ADDRESSES].copy_from_slice(&head[..ADDRESSES]);
        start[ADDRESSES..].copy_from_slice(&[t0, t1, c0, c1]);
        Retagged { start, start_len, rest: &head[replaced..], replaced }
    }

    /// The addresses, and the new tag if there is one.
    #[inline]
    pub fn start(&self) -> &[u8] {
        &self.start[..self.start_len]
    }

    /// The rest of the head.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// By how many bytes the frame has grown: -4, 0 or 4.
    #[inline]
    pub fn growth(&self) -> i16 {
        self.start_len as i16 - self.replaced as i16
    }

    /// Writes both to the beginning of `room` and returns that part of it.
    ///
    /// # Panics
    /// `room` is too short; 4 bytes more than the head always suffice.
    pub fn write<'r>(&self, room: &'r mut [u8]) -> &'r [u8] {
        let end = self.start_len + self.rest.len();
        room[..self.start_len].copy_from_slice(self.start());
        room[self.start_len..end].copy_from_slice(self.rest);
        &room[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_QINQ, ETHERTYPE_VLAN, parse};
    use crate::testing::untagged;
    use proptest::prelude::*;

    fn retag(head: &[u8], is_tagged: bool, tag: Option<VlanTag>) -> Vec<u8> {
        let mut room = vec![0xee; head.len() + TAG_LEN];
        let retagged = Retagged::new(head, is_tagged, tag);
        let frame = retagged.write(&mut room).to_vec();
        assert_eq!([retagged.start(), retagged.rest()].concat(), frame);
        assert_eq!(frame.len() as i64 - head.len() as i64, i64::from(retagged.growth()));
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

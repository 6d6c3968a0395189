//! VLAN identifiers and the four-byte tag that carries one (IEEE 802.1Q-2022, 9.6).

use std::fmt;

/// A VLAN identifier, 0 to 4095. Zero ([`VlanId::NONE`]) is "no VLAN": an untagged frame, or
/// a tag that carries only a priority. The standard reserves 4095; the user of the value decides
/// whether to accept it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct VlanId(u16);

impl VlanId {
    /// Untagged, or priority-tagged.
    pub const NONE: VlanId = VlanId(0);
    /// The greatest value of 12 bits.
    pub const MAX: VlanId = VlanId(0x0fff);

    /// Returns `None` above 4095.
    #[inline]
    pub const fn new(id: u16) -> Option<VlanId> {
        if id <= Self::MAX.0 { Some(VlanId(id)) } else { None }
    }

    /// The number, 0 to 4095.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

/// A VLAN tag: tag protocol identifier (TPID) and tag control information (TCI), both as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VlanTag {
    /// Tag protocol identifier: 0x8100 (C-tag) or 0x88a8 (S-tag).
    pub tpid: u16,
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub tci: u16,
}

impl VlanTag {
    /// VLAN identifier: the low 12 bits of the TCI.
    #[inline]
    pub const fn vid(self) -> VlanId {
        VlanId(self.tci & VlanId::MAX.0)
    }

    /// Priority code point, 0 to 7.
    #[inline]
    pub const fn pcp(self) -> u8 {
        (self.tci >> 13) as u8
    }

    /// Drop eligible indicator.
    #[inline]
    pub const fn dei(self) -> bool {
        self.tci & 0x1000 != 0
    }

    /// The same tag for another VLAN: TPID, priority and drop eligibility stay.
    #[inline]
    pub const fn with_vid(self, vid: VlanId) -> VlanTag {
        VlanTag { tpid: self.tpid, tci: self.tci & !VlanId::MAX.0 | vid.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_bits() {
        assert_eq!(VlanId::new(0), Some(VlanId::NONE));
        assert_eq!(VlanId::new(4095).map(VlanId::get), Some(4095));
        assert_eq!(VlanId::new(4096), None);
        assert_eq!(VlanId::new(u16::MAX), None);
    }

    #[test]
    fn every_tci_splits_and_joins() {
        for tci in 0..=u16::MAX {
            let tag = VlanTag { tpid: 0x8100, tci };
            let joined = u16::from(tag.pcp()) << 13 | u16::from(tag.dei()) << 12 | tag.vid().get();
            assert_eq!(joined, tci);
            let moved = tag.with_vid(VlanId(0x0abc));
            assert_eq!(
                (moved.vid().get(), moved.pcp(), moved.dei()),
                (0xabc, tag.pcp(), tag.dei())
            );
            assert_eq!(moved.tpid, tag.tpid);
        }
    }
}

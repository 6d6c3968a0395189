//! Offloads: checksums and segmentation that a receiver takes over from the sender.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};

/// Offloads that a frame needs, or that a receiver accepts. A frame may be delivered unchanged if
/// `receiver.contains(needs)`.
///
/// For a virtio driver these are the `VIRTIO_NET_F_GUEST_*` features (virtio 1.2, 5.1.3); for
/// a TAP, the `TUN_F_*` bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Offloads(u8);

impl Offloads {
    /// None: every frame is complete and no larger than the MTU.
    pub const NONE: Offloads = Offloads(0);
    /// Frames whose checksum is not filled in yet (`GUEST_CSUM`).
    pub const CSUM: Offloads = Offloads(1 << 0);
    /// Large TCP over IPv4 (`GUEST_TSO4`).
    pub const TSO4: Offloads = Offloads(1 << 1);
    /// Large TCP over IPv6 (`GUEST_TSO6`).
    pub const TSO6: Offloads = Offloads(1 << 2);
    /// Large TCP with congestion notification (`GUEST_ECN`).
    pub const ECN: Offloads = Offloads(1 << 3);
    /// Batches of UDP datagrams over either IP version (`GUEST_USO4` and `GUEST_USO6`).
    pub const USO: Offloads = Offloads(1 << 4);
    /// All of the above.
    pub const ALL: Offloads = Offloads(0x1f);

    const NAMES: [(Offloads, &'static str); 5] = [
        (Self::CSUM, "csum"),
        (Self::TSO4, "tso4"),
        (Self::TSO6, "tso6"),
        (Self::ECN, "ecn"),
        (Self::USO, "uso"),
    ];

    /// The set as a number, by which another process of the same program knows it.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of this number, without bits that stand for nothing.
    pub const fn from_bits(bits: u8) -> Offloads {
        Offloads(bits & Self::ALL.0)
    }

    /// Whether all of `other` are in this set; always true of [`Offloads::NONE`].
    #[inline]
    pub const fn contains(self, other: Offloads) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in either set; `|` is the same.
    #[inline]
    pub const fn union(self, other: Offloads) -> Offloads {
        Offloads(self.0 | other.0)
    }

    /// Those in both sets.
    #[inline]
    pub const fn intersection(self, other: Offloads) -> Offloads {
        Offloads(self.0 & other.0)
    }

    /// Those in this set and not in `other`.
    #[inline]
    pub const fn difference(self, other: Offloads) -> Offloads {
        Offloads(self.0 & !other.0)
    }
}

impl BitOr for Offloads {
    type Output = Offloads;

    #[inline]
    fn bitor(self, other: Offloads) -> Offloads {
        self.union(other)
    }
}

impl BitOrAssign for Offloads {
    #[inline]
    fn bitor_assign(&mut self, other: Offloads) {
        *self = self.union(other);
    }
}

impl BitAnd for Offloads {
    type Output = Offloads;

    #[inline]
    fn bitand(self, other: Offloads) -> Offloads {
        self.intersection(other)
    }
}

impl Sub for Offloads {
    type Output = Offloads;

    #[inline]
    fn sub(self, other: Offloads) -> Offloads {
        self.difference(other)
    }
}

/// The names in the set joined by commas, `none` when empty.
impl fmt::Display for Offloads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return out.write_str("none");
        }
        let mut separator = "";
        for (bit, name) in Self::NAMES {
            if self.contains(bit) {
                write!(out, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Offloads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_algebra() {
        let both = Offloads::CSUM | Offloads::TSO4;
        assert!(both.contains(Offloads::CSUM) && both.contains(Offloads::NONE));
        assert!(!both.contains(Offloads::CSUM | Offloads::ECN));
        assert!(Offloads::ALL.contains(both));
        assert_eq!(both.intersection(Offloads::TSO4 | Offloads::USO), Offloads::TSO4);
        assert_eq!(both.difference(Offloads::CSUM), Offloads::TSO4);
        assert_eq!(both - both, Offloads::NONE);
        assert_eq!(both & Offloads::CSUM, Offloads::CSUM);
    }

    #[test]
    fn all_is_the_union_of_the_named() {
        let all = Offloads::NAMES.iter().fold(Offloads::NONE, |set, (bit, _)| set | *bit);
        assert_eq!(all, Offloads::ALL);
        assert_eq!(Offloads::ALL.to_string(), "csum,tso4,tso6,ecn,uso");
        assert_eq!(Offloads::NONE.to_string(), "none");
    }
}

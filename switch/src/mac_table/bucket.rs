//! What a MAC table is made of: keys, values, and buckets of them.

use trama_frame::{MacAddr, VlanId};

use super::PortIndex;

/// Entries per bucket: keys and values fill one cache line.
pub(super) const WAYS: usize = 4;

/// Port, generation and tick of an entry in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Value(u64);

impl Value {
    pub(super) fn new(port: PortIndex, generation: u16, tick: u32) -> Value {
        Value(u64::from(port.0) << 48 | u64::from(generation) << 32 | u64::from(tick))
    }

    pub(super) fn port(self) -> PortIndex {
        PortIndex((self.0 >> 48) as u16)
    }

    pub(super) fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }

    pub(super) fn tick(self) -> u32 {
        self.0 as u32
    }
}

/// A key has this bit, so that an empty slot, zero, equals none.
const OCCUPIED: u64 = 1 << 63;

pub(super) fn key(vlan: VlanId, mac: MacAddr) -> u64 {
    OCCUPIED | u64::from(vlan.get()) << 48 | mac.to_u64()
}

/// An address in its VLAN, and what a table hashes it to: made once a frame, before it is needed,
/// so that the line it is looked up in can be on its way.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Address {
    pub(super) key: u64,
    pub(super) hash: u64,
}

/// The key alone decides.
impl PartialEq for Address {
    #[inline]
    fn eq(&self, other: &Address) -> bool {
        self.key == other.key
    }
}

impl Address {
    /// Whether it is this address.
    #[inline]
    pub(crate) fn is(&self, vlan: VlanId, mac: MacAddr) -> bool {
        self.key == key(vlan, mac)
    }

    /// Whether it is a group's, which is no station's.
    #[inline]
    pub(crate) fn is_group(&self) -> bool {
        self.key & GROUP != 0
    }

    /// Whether a station can have it: it is neither a group's nor zero.
    #[inline]
    pub(super) fn is_station(&self) -> bool {
        !self.is_group() && self.key & MAC != 0
    }

    pub(crate) fn mac(&self) -> MacAddr {
        MacAddr::from_u64(self.key)
    }
}

/// The first bit of a MAC on the wire (IEEE 802, section 8.2), as it is in a key.
const GROUP: u64 = 1 << 40;

/// The bits of a MAC in a key.
const MAC: u64 = (1 << 48) - 1;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    pub(super) keys: [u64; WAYS],
    pub(super) values: [Value; WAYS],
}

impl Bucket {
    pub(super) const EMPTY: Bucket = Bucket { keys: [0; WAYS], values: [Value(0); WAYS] };

    /// Where the key is. All are compared first: which one it is cannot be predicted.
    #[inline]
    pub(super) fn way(&self, key: u64) -> Option<usize> {
        let hit = |way: usize| u32::from(self.keys[way] == key) << way;
        let hits = (0..WAYS).fold(0, |hits, way| hits | hit(way));
        (hits != 0).then_some(hits.trailing_zeros() as usize)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) bucket: usize,
    pub(super) way: usize,
}

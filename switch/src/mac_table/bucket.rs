//! The parts of a MAC table: keys, values, and buckets.

use trama_frame::{MacAddr, VlanId};

use super::PortIndex;

/// Entries per bucket: their keys and values fill one cache line.
pub(super) const WAYS: usize = 4;

/// The tick of static entries, which the clock reaches after 36 years.
const STATIC: u32 = u32::MAX;

/// Port, generation and tick of an entry in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Value(u64);

impl Value {
    pub(super) fn new(port: PortIndex, generation: u16, tick: u32) -> Value {
        Value(u64::from(port.0) << 48 | u64::from(generation) << 32 | u64::from(tick))
    }

    /// The value of a static entry: its tick never is further back than the ageing time.
    pub(super) fn fixed(port: PortIndex, generation: u16) -> Value {
        Value::new(port, generation, STATIC)
    }

    /// The value of an image, which may be any bits.
    pub(super) fn from_raw(bits: u64) -> Value {
        Value(bits)
    }

    pub(super) fn is_static(self) -> bool {
        self.tick() == STATIC
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

/// Set in every key, so that no key equals an empty slot (zero).
const OCCUPIED: u64 = 1 << 63;

pub(super) fn key(vlan: VlanId, mac: MacAddr) -> u64 {
    OCCUPIED | u64::from(vlan.get()) << 48 | mac.to_u64()
}

/// Returns the VLAN of a key.
pub(super) fn vlan_of(key: u64) -> VlanId {
    VlanId::new((key >> 48) as u16 & VlanId::MAX.get()).unwrap_or(VlanId::NONE)
}

/// An address in its VLAN, with its hash: made once per frame, ahead of the look-up, so that the
/// table's line can be prefetched.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Address {
    pub(super) key: u64,
    pub(super) hash: u64,
}

/// Only the key counts.
impl PartialEq for Address {
    #[inline]
    fn eq(&self, other: &Address) -> bool {
        self.key == other.key
    }
}

impl Address {
    /// Returns whether `key` is this address.
    #[inline]
    pub(crate) fn is(&self, vlan: VlanId, mac: MacAddr) -> bool {
        self.key == key(vlan, mac)
    }

    /// Returns whether it is the same address in the same VLAN.
    pub(crate) fn is_same(&self, other: Address) -> bool {
        self.key == other.key
    }

    /// Returns whether it is a group address.
    #[inline]
    pub(crate) fn is_group(&self) -> bool {
        self.key & GROUP != 0
    }

    /// Returns whether it can be a station's: neither a group address nor zero.
    #[inline]
    pub(super) fn is_station(&self) -> bool {
        !self.is_group() && self.key & MAC != 0
    }

    pub(super) fn vlan(&self) -> VlanId {
        vlan_of(self.key)
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

    /// Returns where the key is. All ways are compared first, since the branch cannot be predicted.
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

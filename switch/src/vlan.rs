//! VLAN membership, with the rules of Open vSwitch.
//!
//! Every port has one of four modes. On the way in, a mode maps the outermost tag of a frame to
//! the VLAN it belongs to, or refuses the frame; on the way out, it says whether the port is a
//! member of that VLAN and whether the frame carries the tag there:
//!
//! | mode            | untagged or VID 0 in | VID v in             | VLAN v out                    |
//! |-----------------|----------------------|----------------------|-------------------------------|
//! | access          | its VLAN             | dropped, even its own| its VLAN, untagged            |
//! | trunk           | VLAN 0, if a member  | v, if a member       | members, tagged (VLAN 0: not) |
//! | native-tagged   | its native VLAN      | v, if a member       | members, tagged               |
//! | native-untagged | its native VLAN      | v, if a member       | members, tagged (native: not) |
//!
//! An empty list of trunked VLANs means all of them. A port in a native mode is always a member of
//! its native VLAN and, since untagged frames belong to that, never of VLAN 0. VID 0 on the wire
//! is a priority tag (IEEE 802.1Q, 6.9.1), which says nothing about the VLAN; no mode ever sends
//! one.

use std::fmt;
use std::sync::Arc;

use trama_frame::{VlanId, VlanTag};

use crate::drop_reason::DropReason;

/// VLANs there can be: a VID has 12 bits.
const VLANS: u16 = 4096;

/// A set of VLANs, as `trunks` lists them: the empty list means all. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Option<Arc<[u64; VLANS as usize / 64]>>);

impl VlanSet {
    /// All VLANs, 0 to 4095.
    pub fn all() -> VlanSet {
        VlanSet(None)
    }

    /// Whether this is the set that an empty list stands for.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `vlan` is in the set.
    #[inline]
    pub fn contains(&self, vlan: VlanId) -> bool {
        let vid = usize::from(vlan.get());
        self.0.as_ref().is_none_or(|bits| bits[vid / 64] & (1 << (vid % 64)) != 0)
    }

    /// The members in ascending order; nothing for [`VlanSet::all`], like the list it came from.
    pub fn iter(&self) -> impl Iterator<Item = VlanId> + '_ {
        (0..VLANS).filter_map(VlanId::new).filter(|vlan| !self.is_all() && self.contains(*vlan))
    }
}

/// Collects a list of VLANs; an empty one gives [`VlanSet::all`].
impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(vlans: I) -> VlanSet {
        let mut bits = [0u64; VLANS as usize / 64];
        for vlan in vlans {
            let vid = usize::from(vlan.get());
            bits[vid / 64] |= 1 << (vid % 64);
        }
        VlanSet(bits.iter().any(|word| *word != 0).then(|| Arc::new(bits)))
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        f.debug_set().entries(self.iter().map(VlanId::get)).finish()
    }
}

/// How a port takes part in VLANs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// One VLAN, never tagged on the wire.
    Access {
        /// The port's VLAN.
        tag: VlanId,
    },
    /// Many VLANs, tagged on the wire; VLAN 0 is the untagged frames.
    Trunk {
        /// The VLANs that the port carries.
        trunks: VlanSet,
    },
    /// A trunk whose untagged frames belong to the native VLAN, which leaves tagged.
    NativeTagged {
        /// The native VLAN.
        tag: VlanId,
        /// The other VLANs that the port carries.
        trunks: VlanSet,
    },
    /// A trunk whose untagged frames belong to the native VLAN, which leaves untagged.
    NativeUntagged {
        /// The native VLAN.
        tag: VlanId,
        /// The other VLANs that the port carries.
        trunks: VlanSet,
    },
}

/// What the VLAN of a frame means at a port it may leave through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Egress {
    /// The port does not carry the VLAN.
    NotMember,
    /// The frame leaves without a tag.
    Untagged,
    /// The frame leaves with a tag of its VLAN.
    Tagged,
}

impl VlanMode {
    /// The VLAN of a frame that arrives with `tag` as its outermost tag.
    #[inline]
    pub fn ingress(&self, tag: Option<VlanTag>) -> Result<VlanId, DropReason> {
        let vlan = tag.map_or(VlanId::NONE, |tag| tag.vid());
        match self {
            VlanMode::Access { tag } if vlan == VlanId::NONE => Ok(*tag),
            VlanMode::Access { .. } => Err(DropReason::VlanNotAllowed),
            VlanMode::NativeTagged { tag, .. } | VlanMode::NativeUntagged { tag, .. }
                if vlan == VlanId::NONE =>
            {
                Ok(*tag)
            }
            _ if self.carries(vlan) => Ok(vlan),
            _ => Err(DropReason::VlanNotAllowed),
        }
    }

    /// Whether and how a frame of `vlan` leaves through the port.
    #[inline]
    pub fn egress(&self, vlan: VlanId) -> Egress {
        if !self.carries(vlan) {
            return Egress::NotMember;
        }
        match self {
            VlanMode::Access { .. } => Egress::Untagged,
            VlanMode::NativeUntagged { tag, .. } if vlan == *tag => Egress::Untagged,
            _ if vlan == VlanId::NONE => Egress::Untagged,
            _ => Egress::Tagged,
        }
    }

    /// Whether the port is a member of `vlan`.
    #[inline]
    pub fn carries(&self, vlan: VlanId) -> bool {
        match self {
            VlanMode::Access { tag } => vlan == *tag,
            VlanMode::Trunk { trunks } => trunks.contains(vlan),
            VlanMode::NativeTagged { tag, trunks } | VlanMode::NativeUntagged { tag, trunks } => {
                vlan == *tag || (vlan != VlanId::NONE && trunks.contains(vlan))
            }
        }
    }
}

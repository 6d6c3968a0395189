//! VLAN membership, with the rules of Open vSwitch.
//!
//! Every port has one of four modes. At ingress, the mode maps the outermost tag of a frame to a
//! VLAN, or refuses the frame. At egress, it says whether the port is a member of the VLAN and
//! whether the frame leaves tagged:
//!
//! | mode            | untagged or VID 0 in | VID v in             | VLAN v out                    |
//! |-----------------|----------------------|----------------------|-------------------------------|
//! | access          | its VLAN             | dropped, even its own| its VLAN, untagged            |
//! | trunk           | VLAN 0, if a member  | v, if a member       | members, tagged (VLAN 0: not) |
//! | native-tagged   | its native VLAN      | v, if a member       | members, tagged               |
//! | native-untagged | its native VLAN      | v, if a member       | members, tagged (native: not) |
//!
//! An empty list of trunked VLANs means all of them. A port in a native mode is always a member of
//! its native VLAN and, since untagged frames belong to that, never of VLAN 0. VID 0 on the wire is
//! a priority tag (IEEE 802.1Q, 6.9.1), which names no VLAN; no mode ever sends one.

use std::fmt;
use std::sync::Arc;

use trama_frame::{VlanId, VlanTag};

use crate::drop_reason::DropReason;

/// Number of VLANs: a VID has 12 bits.
const VLANS: u16 = 4096;

/// A set of VLANs, as in `trunks`: the empty list means all. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Option<Arc<[u64; VLANS as usize / 64]>>);

impl VlanSet {
    /// Returns the set of all VLANs, 0 to 4095.
    pub fn all() -> VlanSet {
        VlanSet(None)
    }

    /// Returns the set of none.
    pub(crate) fn none() -> VlanSet {
        VlanSet(Some(Arc::new([0; VLANS as usize / 64])))
    }

    /// Returns whether this is the set of all VLANs.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Returns whether `vlan` is in the set.
    #[inline]
    pub fn contains(&self, vlan: VlanId) -> bool {
        let vid = usize::from(vlan.get());
        self.0.as_ref().is_none_or(|bits| bits[vid / 64] & (1 << (vid % 64)) != 0)
    }

    /// Iterates over the members in ascending order; over none for [`VlanSet::all`], like its list.
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

/// VLAN mode of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// One VLAN, never tagged on the wire.
    Access {
        /// The port's VLAN.
        tag: VlanId,
    },
    /// Several VLANs, tagged on the wire; untagged frames belong to VLAN 0.
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

/// The name of a VLAN mode, without its VLANs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VlanModeName {
    /// Of [`VlanMode::Access`].
    Access,
    /// Of [`VlanMode::Trunk`].
    Trunk,
    /// Of [`VlanMode::NativeTagged`].
    NativeTagged,
    /// Of [`VlanMode::NativeUntagged`].
    NativeUntagged,
}

impl VlanModeName {
    /// Every name.
    pub const ALL: [VlanModeName; 4] = [
        VlanModeName::Access,
        VlanModeName::Trunk,
        VlanModeName::NativeTagged,
        VlanModeName::NativeUntagged,
    ];

    /// Returns its word in configurations and commands, which is that of Open vSwitch.
    pub fn name(self) -> &'static str {
        match self {
            VlanModeName::Access => "access",
            VlanModeName::Trunk => "trunk",
            VlanModeName::NativeTagged => "native-tagged",
            VlanModeName::NativeUntagged => "native-untagged",
        }
    }

    /// Returns the mode with these VLANs: `tag` is the port's or the native one, and `trunks` are
    /// the others. A mode leaves out what it does not have.
    pub fn with(self, tag: VlanId, trunks: VlanSet) -> VlanMode {
        match self {
            VlanModeName::Access => VlanMode::Access { tag },
            VlanModeName::Trunk => VlanMode::Trunk { trunks },
            VlanModeName::NativeTagged => VlanMode::NativeTagged { tag, trunks },
            VlanModeName::NativeUntagged => VlanMode::NativeUntagged { tag, trunks },
        }
    }
}

impl fmt::Display for VlanModeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a frame of a VLAN leaves through a port.
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
    /// Returns the VLAN of a frame that arrives with `tag` as its outermost tag.
    ///
    /// # Errors
    /// [`DropReason::VlanNotAllowed`]: the port does not carry the VLAN.
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

    /// Returns whether and how a frame of `vlan` leaves through the port.
    #[inline]
    pub fn egress(&self, vlan: VlanId) -> Egress {
        if self.carries(vlan) { self.form(vlan) } else { Egress::NotMember }
    }

    /// Returns how a frame of `vlan` leaves through the port if it carries the VLAN.
    #[inline]
    pub(crate) fn form(&self, vlan: VlanId) -> Egress {
        match self {
            VlanMode::Access { .. } => Egress::Untagged,
            VlanMode::NativeUntagged { tag, .. } if vlan == *tag => Egress::Untagged,
            _ if vlan == VlanId::NONE => Egress::Untagged,
            _ => Egress::Tagged,
        }
    }

    /// Returns whether the port is a member of `vlan`.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn vid(id: u16) -> VlanId {
        VlanId::new(id).unwrap()
    }

    fn set(ids: &[u16]) -> VlanSet {
        ids.iter().copied().map(vid).collect()
    }

    fn tagged(tci: u16) -> Option<VlanTag> {
        Some(VlanTag { tpid: 0x8100, tci })
    }

    /// Returns how a frame with VID `tag` that came in through `input` leaves `output`: `None` if
    /// it does not, `Some(None)` if it leaves untagged.
    fn forward(input: &VlanMode, output: &VlanMode, tag: Option<u16>) -> Option<Option<u16>> {
        let vlan = input.ingress(tag.and_then(tagged)).ok()?;
        match output.egress(vlan) {
            Egress::NotMember => None,
            Egress::Untagged => Some(None),
            Egress::Tagged => Some(Some(vlan.get())),
        }
    }

    /// The same rules as sets of numbers, as Open vSwitch's manual describes them.
    struct Slow {
        mode: &'static str,
        tag: u16,
        members: HashSet<u16>,
    }

    impl Slow {
        fn new(mode: &'static str, tag: u16, trunks: &[u16]) -> Slow {
            let mut members: HashSet<u16> = if trunks.is_empty() {
                (0..4096).collect()
            } else {
                trunks.iter().copied().collect()
            };
            if mode == "access" {
                members = HashSet::from([tag]);
            } else if mode != "trunk" {
                if tag != 0 {
                    members.remove(&0);
                }
                members.insert(tag);
            }
            Slow { mode, tag, members }
        }

        fn forward(&self, output: &Slow, tag: Option<u16>) -> Option<Option<u16>> {
            let on_wire = tag.unwrap_or(0);
            if self.mode == "access" && on_wire != 0 {
                return None;
            }
            let vlan = match on_wire {
                0 if self.mode != "trunk" => self.tag,
                other => other,
            };
            if !self.members.contains(&vlan) || !output.members.contains(&vlan) {
                return None;
            }
            let strips = output.mode == "access"
                || (output.mode == "native-untagged" && output.tag == vlan)
                || vlan == 0;
            Some(if strips { None } else { Some(vlan) })
        }
    }

    fn both(mode: &'static str, tag: u16, trunks: &[u16]) -> (VlanMode, Slow) {
        let fast = match mode {
            "access" => VlanMode::Access { tag: vid(tag) },
            "trunk" => VlanMode::Trunk { trunks: set(trunks) },
            "native-tagged" => VlanMode::NativeTagged { tag: vid(tag), trunks: set(trunks) },
            _ => VlanMode::NativeUntagged { tag: vid(tag), trunks: set(trunks) },
        };
        (fast, Slow::new(mode, tag, trunks))
    }

    #[test]
    fn every_mode_tag_and_trunk_list_agrees_with_the_slow_model() {
        let tags = [0, 1, 10, 20, 4094, 4095];
        let lists: [&[u16]; 7] =
            [&[], &[0], &[10], &[0, 10], &[20, 30], &[1, 4095], &[0, 1, 10, 20, 30, 4095]];
        let mut ports = Vec::new();
        for tag in tags {
            ports.push(both("access", tag, &[]));
            for list in lists {
                ports.push(both("native-tagged", tag, list));
                ports.push(both("native-untagged", tag, list));
            }
        }
        ports.extend(lists.map(|list| both("trunk", 0, list)));
        let wire = [0, 1, 2, 10, 20, 30, 64, 4094, 4095].map(Some);
        for (input, slow_input) in &ports {
            for (output, slow_output) in &ports {
                for tag in wire.into_iter().chain([None]) {
                    assert_eq!(
                        forward(input, output, tag),
                        slow_input.forward(slow_output, tag),
                        "{tag:?} from {input:?} to {output:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn all_4096_vids_agree_with_the_slow_model() {
        let pairs = [
            (both("trunk", 0, &[]), both("native-untagged", 7, &[])),
            (both("trunk", 0, &[0, 63, 64, 4095]), both("trunk", 0, &[])),
            (both("native-tagged", 7, &[5, 6]), both("native-untagged", 5, &[6, 7])),
            (both("access", 7, &[]), both("native-tagged", 7, &[9])),
        ];
        for ((input, slow_input), (output, slow_output)) in &pairs {
            for tag in (0..4096).map(Some).chain([None]) {
                assert_eq!(forward(input, output, tag), slow_input.forward(slow_output, tag));
                assert_eq!(forward(output, input, tag), slow_output.forward(slow_input, tag));
            }
        }
    }

    /// Common misunderstandings, written out.
    #[test]
    fn the_rules_by_hand() {
        let access = VlanMode::Access { tag: vid(10) };
        assert_eq!(access.ingress(None), Ok(vid(10)));
        assert_eq!(access.ingress(tagged(0xe000)), Ok(vid(10)), "a priority tag is no VLAN");
        assert_eq!(access.ingress(tagged(10)), Err(DropReason::VlanNotAllowed), "even its own");

        let all = VlanMode::Trunk { trunks: VlanSet::all() };
        assert_eq!(all.ingress(None), Ok(VlanId::NONE));
        assert_eq!(all.ingress(tagged(0xffff)), Ok(vid(4095)));
        assert_eq!(all.egress(VlanId::NONE), Egress::Untagged, "VLAN 0 has no tag to carry");

        let some = VlanMode::Trunk { trunks: set(&[10]) };
        assert_eq!(some.ingress(None), Err(DropReason::VlanNotAllowed), "VLAN 0 is not listed");
        assert_eq!(some.ingress(tagged(0x1000)), Err(DropReason::VlanNotAllowed));
        assert_eq!(some.egress(vid(11)), Egress::NotMember);

        let native = VlanMode::NativeUntagged { tag: vid(10), trunks: set(&[20]) };
        assert_eq!(native.ingress(None), Ok(vid(10)), "the native VLAN need not be listed");
        assert_eq!(native.ingress(tagged(10)), Ok(vid(10)));
        assert_eq!(native.egress(vid(10)), Egress::Untagged);
        assert_eq!(native.egress(vid(20)), Egress::Tagged);
        assert_eq!(native.egress(VlanId::NONE), Egress::NotMember, "VLAN 0 has no wire form here");
        let native = VlanMode::NativeTagged { tag: vid(10), trunks: set(&[20]) };
        assert_eq!(native.egress(vid(10)), Egress::Tagged);
    }

    #[test]
    fn an_empty_list_is_all_vlans() {
        let empty: VlanSet = [].into_iter().collect();
        assert!(empty.is_all() && empty == VlanSet::all() && empty.contains(vid(4095)));
        assert_eq!(empty.iter().count(), 0);
        let some = set(&[4095, 0, 64, 64]);
        assert_eq!(some.iter().map(VlanId::get).collect::<Vec<_>>(), [0, 64, 4095]);
        assert_eq!(format!("{some:?} {empty:?}"), "{0, 64, 4095} all");
    }
}

//! The VLAN settings of a port.

use serde::Serialize;

/// VLAN settings as they are written; the mode that follows from them is `mode_or_default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vlan {
    /// The access or native VLAN, 0..=4095.
    pub tag: Option<u16>,
    /// VLANs carried by a trunk; empty = all.
    pub trunks: Vec<u16>,
    /// The mode, where it is stated.
    pub mode: Option<VlanMode>,
}

/// The four VLAN modes of Open vSwitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VlanMode {
    /// One VLAN, untagged on the wire.
    Access,
    /// Tagged frames of the listed VLANs.
    Trunk,
    /// A trunk whose native VLAN leaves tagged.
    NativeTagged,
    /// A trunk whose native VLAN leaves untagged.
    NativeUntagged,
}

impl VlanMode {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Access, Self::Trunk, Self::NativeTagged, Self::NativeUntagged];

    /// As it is spelled in files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Trunk => "trunk",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
        }
    }
}

//! The VLAN settings of a port.

use serde::Serialize;

/// The VLAN settings as written; `mode_or_default` returns the mode in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vlan {
    /// The access or native VLAN, 0..=4095.
    pub tag: Option<u16>,
    /// The VLANs of a trunk; empty = all.
    pub trunks: Vec<u16>,
    /// The mode, if stated.
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
    /// All modes.
    pub const ALL: [Self; 4] =
        [Self::Access, Self::Trunk, Self::NativeTagged, Self::NativeUntagged];

    /// The spelling in files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Trunk => "trunk",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
        }
    }
}

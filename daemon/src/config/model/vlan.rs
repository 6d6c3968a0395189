//! The VLAN settings of a port.

pub use trama_switch::VlanModeName;

/// The VLAN settings as written; `mode_or_default` returns the mode in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlan {
    /// The access or native VLAN, 0..=4095.
    pub tag: Option<u16>,
    /// The VLANs of a trunk; empty = all.
    pub trunks: Vec<u16>,
    /// The mode, if stated.
    pub mode: Option<VlanModeName>,
}

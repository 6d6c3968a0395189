//! The VLAN settings of a port.

use serde::{Serialize, Serializer};
pub use trama_switch::VlanModeName;

/// The VLAN settings as written; `mode_or_default` returns the mode in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vlan {
    /// The access or native VLAN, 0..=4095.
    pub tag: Option<u16>,
    /// The VLANs of a trunk; empty = all.
    pub trunks: Vec<u16>,
    /// The mode, if stated.
    #[serde(serialize_with = "by_name")]
    pub mode: Option<VlanModeName>,
}

fn by_name<S: Serializer>(mode: &Option<VlanModeName>, to: S) -> Result<S::Ok, S::Error> {
    mode.map(VlanModeName::name).serialize(to)
}

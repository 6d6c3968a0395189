//! The VLAN mode in force.

use crate::config::model::{Vlan, VlanModeName};

impl Vlan {
    /// The mode in force: the stated one, else access if a tag is set, else trunk.
    pub fn mode_or_default(&self) -> VlanModeName {
        self.mode.unwrap_or(if self.tag.is_some() {
            VlanModeName::Access
        } else {
            VlanModeName::Trunk
        })
    }
}

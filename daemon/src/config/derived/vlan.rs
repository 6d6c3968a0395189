//! The VLAN mode in force.

use crate::config::model::{Vlan, VlanMode};

impl Vlan {
    /// The mode in force: the stated one, else access if a tag is set, else trunk.
    pub fn mode_or_default(&self) -> VlanMode {
        self.mode.unwrap_or(if self.tag.is_some() { VlanMode::Access } else { VlanMode::Trunk })
    }
}

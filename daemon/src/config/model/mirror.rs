//! A `[[mirror]]` table.

use std::collections::{BTreeMap, BTreeSet};

/// Most mirrors of one network.
pub const MAX_MIRRORS: usize = trama_switch::mirror::MAX_MIRRORS;

/// Copies of a network's frames for an analyser.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// Unique name.
    pub name: String,
    /// The UUID that it was created with; `None` = it follows from the name.
    pub uuid: Option<String>,
    /// Its network; `None` = none yet, within a transaction.
    pub network: Option<String>,
    /// Whether it copies what enters from any port.
    pub select_all: bool,
    /// Ports of which it copies what enters.
    pub select_src_port: BTreeSet<String>,
    /// Ports of which it copies what leaves.
    pub select_dst_port: BTreeSet<String>,
    /// VLANs of which it copies frames; empty = all.
    pub select_vlan: BTreeSet<u16>,
    /// The port that gets the copies.
    pub output_port: Option<String>,
    /// The VLAN that gets the copies.
    pub output_vlan: Option<u16>,
    /// Most bytes of a copy; 0 = all of it.
    pub snaplen: u16,
    /// Which frames it copies, in the language of captures; empty = all.
    pub filter: String,
    /// Free-form data of management software; trama does not read it.
    pub external_ids: BTreeMap<String, String>,
}

impl Mirror {
    /// Whether what enters from a port that is not named is copied. As in Open vSwitch, VLANs alone
    /// select all of their frames.
    pub fn takes_from_all(&self) -> bool {
        let is_by_port = !self.select_src_port.is_empty() || !self.select_dst_port.is_empty();
        self.select_all || (!is_by_port && !self.select_vlan.is_empty())
    }

    /// Returns where its copies go, for people.
    pub fn output(&self) -> String {
        match (&self.output_port, self.output_vlan) {
            (Some(port), _) => port.clone(),
            (None, vlan) => format!("VLAN {}", vlan.unwrap_or_default()),
        }
    }
}

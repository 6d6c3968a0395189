//! Where forwards and loopback maps lead.

use std::net::IpAddr;

use crate::config::model::Network;
use crate::config::model::rule::Rule;

/// The guest that a forward leads to; `None` if the rule names no guest and the network has no
/// well-known one.
pub fn forward_guest(rule: &Rule, network: &Network) -> Option<IpAddr> {
    let subnets = network.subnets();
    rule.guest.or_else(|| subnets.iter().find_map(|subnet| network.well_known(*subnet).guest))
}

/// The address at which guests reach the target of a loopback map: by default the gateway's.
pub fn loopback_guest(map: &Rule, network: &Network) -> Option<IpAddr> {
    map.guest.or_else(|| Some(network.well_known(*network.subnets().first()?).gateway))
}

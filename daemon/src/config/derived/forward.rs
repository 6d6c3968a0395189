//! Where forwards and loopback maps lead.

use std::net::IpAddr;

use crate::config::model::Network;
use crate::config::model::rule::Rule;

/// A forward of a port as it runs: without a guest address it leads to the guest's address of the
/// IP version on which it listens, or to the IPv4 one if it listens on both.
pub fn port_rule(rule: &Rule, addresses: &[IpAddr]) -> Rule {
    let fits = |it: &&IpAddr| rule.host.is_none_or(|host| host.is_ipv4() == it.is_ipv4());
    let guest = rule.guest.or_else(|| addresses.iter().filter(fits).min().copied());
    Rule { guest, ..rule.clone() }
}

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

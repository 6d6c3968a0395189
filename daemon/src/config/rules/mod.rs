//! The rules that a configuration must follow, wherever it comes from.
//!
//! [`validate`] checks plain values: the same rules apply to a file and to a draft that `tramactl`
//! has edited. It returns all problems, and never looks at the host: whether a directory exists or
//! a device can be created shows when the port starts.

mod check;
mod daemon;
mod dhcp;
mod export;
mod forward;
mod guest;
mod mirror;
mod name;
mod network;
pub(crate) mod openvswitch;
pub(super) mod port;
pub(super) mod problem;
pub(crate) mod records;
mod socket;
pub(super) mod subnet;
mod tunnel;
mod wire;

use std::collections::HashSet;

use check::Check;
use forward::Listeners;
use mirror::Mirrored;
use openvswitch::KEPT;
use port::Claims;
pub use problem::{Place, Problem};

use super::model::Config;

/// All problems of `config`; empty if it is valid.
pub fn validate(config: &Config) -> Vec<Problem> {
    let mut check = Check::new();
    check.daemon(&config.daemon);
    check.kept(KEPT, &config.daemon.openvswitch, &openvswitch::ROOT);
    let mut names = HashSet::new();
    let mut listeners = Listeners::default();
    for (index, network) in config.networks.iter().enumerate() {
        check.enter(Place::Network(index), &network.name);
        check.name("network", &network.name, &mut names);
        check.network(network);
        check.kept(KEPT, &network.openvswitch, &openvswitch::BRIDGE);
        check.mode(network, &config.networks[..index]);
        check.nat(network, config, &mut listeners);
        check.dhcp(index, network);
        check.exports(network, index);
    }
    let mut names = HashSet::new();
    let mut claims = Claims::of(config);
    for (index, port) in config.ports.iter().enumerate() {
        check.enter(Place::Port(index), &port.name);
        check.name("port", &port.name, &mut names);
        check.port(port, config, &mut claims);
        check.kept_of_port(port, config);
        check.qos_of_port(port, config);
        check.port_forwards(port, config, &mut listeners);
    }
    check.ephemeral(config);
    let mut names = HashSet::new();
    let mut known = (!config.mirrors.is_empty()).then(|| Mirrored::of(config));
    for (index, mirror) in config.mirrors.iter().enumerate() {
        check.enter(Place::Mirror(index), &mirror.name);
        check.name("mirror", &mirror.name, &mut names);
        if let Some(known) = &mut known {
            check.mirror(mirror, known);
        }
    }
    let mut names = HashSet::new();
    for (index, record) in config.records.iter().enumerate() {
        check.enter(Place::Record(index), &record.name);
        check.record(record, config, &mut names);
    }
    check.finish()
}

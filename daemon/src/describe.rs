//! `tramad --check`: what a configuration would build.

use std::process::ExitCode;

use crate::config::model::wire::Stream;
use crate::config::model::{Config, Interface, Role, System, Tap, Uplink, VhostUser, Vlan};
use crate::host;
use crate::state::Source;

/// Prints what a configuration would build, or all its faults.
pub fn check(source: &Source) -> ExitCode {
    match source.clone().read_on(host::problems) {
        Ok(config) => {
            if source.may_be_missing && !source.file.exists() {
                println!("{} is not there: nothing is set up", source.file.display());
            }
            describe(&config);
            ExitCode::SUCCESS
        }
        Err(faults) => {
            eprintln!("{faults}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line for each network and port that would be built.
fn describe(config: &Config) {
    for network in &config.networks {
        let mut words = format!("{}, MTU {}", network.mode.name(), network.mtu);
        for subnet in network.subnets() {
            words.push_str(&format!(", {subnet}"));
        }
        if let Some(uplink) = &network.uplink {
            words.push_str(&format!(", uplink {uplink}"));
        }
        println!("network {}: {words}", network.name);
    }
    for network in &config.expanded().networks {
        for (kind, rules) in [("forward", &network.forward), ("loopback", &network.loopback)] {
            for rule in rules {
                println!("{kind} {} on {}: {rule}", rule.label(), network.name);
            }
        }
    }
    for port in &config.expanded().ports {
        let device = match &port.interface {
            Interface::VhostUser(VhostUser { path, role: Role::Server, .. }) => {
                format!("vhost-user, listens on {}", path.display())
            }
            Interface::VhostUser(VhostUser { path, role: Role::Client, .. }) => {
                format!("vhost-user, connects to {}", path.display())
            }
            Interface::Tap(Tap { ifname, netns: None, .. }) => format!("TAP {ifname}"),
            Interface::Tap(Tap { ifname, netns: Some(netns), .. }) => {
                format!("TAP {ifname} in namespace {netns}")
            }
            Interface::Stream(Stream { place, role: Role::Server, .. }) => {
                format!("stream, listens on {place}")
            }
            Interface::Stream(Stream { place, role: Role::Client, .. }) => {
                format!("stream, connects to {place}")
            }
            Interface::Dgram(device) => format!("datagrams at {device}"),
            Interface::System(System { ifname, netns: None, .. }) => format!("interface {ifname}"),
            Interface::System(System { ifname, netns: Some(netns), .. }) => {
                format!("interface {ifname} in namespace {netns}")
            }
            Interface::Attached(device) => device.to_string(),
            Interface::Uplink(Uplink { ifname }) => format!("uplink {ifname}"),
        };
        // Printed as written: a port of a network of mode `nat` runs on a network of its own.
        let written = config.port(&port.name).unwrap_or(port);
        let place = match &written.network {
            Some(network) => format!("on {network}, {}", vlans(&written.vlan)),
            None => "not attached".to_owned(),
        };
        println!("port {}: {device}; {place}", port.name);
    }
}

/// Describes the VLANs of a port in a few words.
fn vlans(vlan: &Vlan) -> String {
    let mut words = vlan.mode_or_default().name().to_owned();
    if let Some(tag) = vlan.tag {
        words.push_str(&format!(", VLAN {tag}"));
    }
    if !vlan.trunks.is_empty() {
        let trunks: Vec<String> = vlan.trunks.iter().map(u16::to_string).collect();
        words.push_str(&format!(", trunks {}", trunks.join(" ")));
    }
    words
}

//! `tramad --check`: what a configuration would build.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::model::wire::Stream;
use crate::config::model::{Config, Interface, Role, System, Tap, Uplink, VhostUser, Vlan};
use crate::host;
use crate::state::Source;

/// Prints what a configuration would build, or all its faults.
pub fn check(source: &Source) -> ExitCode {
    match source.clone().read_on(host::problems) {
        Ok(config) => {
            let mut text = String::new();
            if source.may_be_missing && !source.file.exists() {
                text = format!("{} is not there: nothing is set up\n", source.file.display());
            }
            // Text takes what is written.
            let _ = describe(&config, &mut text);
            match io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    trama_log::error(&format!("standard output: {error}"));
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            }
        }
        Err(faults) => {
            trama_log::error(&faults.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes one line for each network and port that would be built.
fn describe(config: &Config, out: &mut String) -> fmt::Result {
    for network in &config.networks {
        let mut words = format!("{}, MTU {}", network.mode.name(), network.mtu);
        for subnet in network.subnets() {
            words.push_str(&format!(", {subnet}"));
        }
        if let Some(uplink) = &network.uplink {
            words.push_str(&format!(", uplink {uplink}"));
        }
        writeln!(out, "network {}: {words}", network.name)?;
    }
    for network in &config.expanded().networks {
        for (kind, rules) in [("forward", &network.forward), ("loopback", &network.loopback)] {
            for rule in rules {
                writeln!(out, "{kind} {} on {}: {rule}", rule.label(), network.name)?;
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
            Interface::Vxlan(device) => format!("VXLAN to {device}"),
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
        writeln!(out, "port {}: {device}; {place}", port.name)?;
    }
    Ok(())
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

//! Checks of the daemon: it answers, has this version, and may do what its ports need.

use std::net::TcpListener;

use super::finding::{Finding, or_ok};
use super::helper::is_service;
use super::switch::Switch;
use super::system::System;

/// Capabilities of the helper by number (capabilities(7)), and what needs each.
const NEEDED: [(&str, u32, Need); 3] = [
    ("CAP_NET_ADMIN", 12, |switch| port_of(switch, |kind| kind == "tap")),
    ("CAP_NET_RAW", 13, |switch| {
        let bridged = switch.networks.iter().find(|network| network.mode == "bridged");
        let bridged = bridged.map(|network| format!("the network {}", network.name));
        bridged.or_else(|| port_of(switch, |kind| kind == "system"))
    }),
    ("CAP_SYS_ADMIN", 21, |switch| {
        let port = switch.ports.iter().find(|port| port.option("netns").is_some())?;
        Some(format!("the namespace of port {}", port.name))
    }),
];

/// What of the configuration needs a capability.
type Need = fn(&Switch) -> Option<String>;

fn port_of(switch: &Switch, is_wanted: fn(&str) -> bool) -> Option<String> {
    let port = switch.ports.iter().find(|port| is_wanted(&port.kind))?;
    Some(format!("port {}", port.name))
}

/// What is found if the daemon answers.
pub(super) fn check(switch: &Switch, system: &System) -> Vec<Finding> {
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let version = &switch.version;
    let answers = match version == OWN {
        true => Finding::ok("daemon", format!("tramad {version} answers")),
        false => Finding::warn(
            "daemon",
            format!("tramad has version {version}, and this tramactl {OWN}"),
            "after an update: tramactl upgrade, or systemctl restart trama",
        ),
    };
    let rights = or_ok("rights", rights(switch, system), "the helper has what the ports need");
    [vec![answers], rights].concat()
}

fn rights(switch: &Switch, system: &System) -> Vec<Finding> {
    let helpers =
        system.processes().into_iter().filter(|process| process.title() == "trama:helper");
    let Some(held) = helpers.map(|helper| helper.capabilities).reduce(|all, one| all | one) else {
        let remedy = match is_service(system) {
            true => "systemctl restart trama starts one",
            false => "tramad --take-over with the same options starts one",
        };
        return vec![Finding::fail("rights", "no helper runs: nothing new can be made", remedy)];
    };
    let missing = NEEDED.into_iter().filter(|(_, number, _)| held & 1 << number == 0);
    let finding = |(name, _, need): (&str, u32, Need)| {
        let needs = need(switch)?;
        let remedy = match is_service(system) {
            true => "name it in CapabilityBoundingSet= of trama-helper@.service",
            false => "start tramad as root, or give the unit AmbientCapabilities",
        };
        Some(Finding::fail(
            "rights",
            format!("the helper lacks {name}, which {needs} needs"),
            remedy,
        ))
    };
    missing.filter_map(finding).collect()
}

/// What is found if it does not answer; `message` says why.
pub(super) fn absent(message: &str, configuration: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![Finding::fail("daemon", message, "")];
    // Another program at the metrics' address keeps it from starting.
    let address = configuration.and_then(metrics_address);
    if let Some(address) = address
        && let Err(error) = TcpListener::bind(&address)
    {
        let text = format!("the metrics' address {address} cannot be used: {error}");
        let remedy = format!("ss -tlnp 'sport = :{}' names its user", port(&address));
        findings.push(Finding::fail("metrics", text, remedy));
    }
    findings
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

/// The address of `[daemon] metrics`.
fn metrics_address(configuration: &str) -> Option<String> {
    let table: toml_edit::DocumentMut = configuration.parse().ok()?;
    Some(table.get("daemon")?.get("metrics")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let configuration = format!("[daemon]\nmetrics = \"{address}\"\n");
        let findings = absent("cannot reach tramad", Some(&configuration));
        assert_eq!(findings.len(), 2);
        assert!(findings[1].line().contains(&format!("sport = :{}", address.port())));
        drop(taken);
        assert_eq!(absent("cannot reach tramad", Some(&configuration)).len(), 1);
        for other in [None, Some("[daemon"), Some("daemon = 1"), Some("")] {
            assert_eq!(absent("cannot reach tramad", other).len(), 1);
        }
    }
}

//! Checks of ports: their settings, their sockets, the VMMs at them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use super::finding::{Finding, or_ok};
use super::switch::{Port, Switch};
use super::system::{Process, System};

pub(super) fn check(switch: &Switch, system: &System) -> Vec<Finding> {
    let processes = system.processes();
    [
        or_ok("running", not_running(switch), "all networks and ports run"),
        or_ok("vmm", vmms(switch), "each VMM is connected, and its driver runs"),
        or_ok("access", access(switch, system, &processes), "VMMs may use their ports' sockets"),
        or_ok("vlan", vlans(switch), "gateways serve the VLANs of their networks' ports"),
        or_ok("mac", same_macs(switch), "no two ports of a network have the same mac"),
        or_ok("mtu", mtus(switch, system), "no network's MTU is above that of its uplink"),
    ]
    .concat()
}

/// Networks and ports that do not run, or not as stored.
fn not_running(switch: &Switch) -> Vec<Finding> {
    let networks = switch.networks.iter().map(|network| (&network.name, &network.error));
    let ports = switch.ports.iter().map(|port| (&port.name, &port.error));
    let failed = networks.chain(ports).filter_map(|(name, error)| Some((name, error.as_ref()?)));
    // The reason has its remedy.
    failed.map(|(name, error)| Finding::fail("running", format!("{name}: {error}"), "")).collect()
}

/// How a frontend's last connection ended, if its memory was not shared.
const NOT_SHARED: &str = "memory is not shared";

/// VMMs that never came, share no memory, or whose guests have no driver.
fn vmms(switch: &Switch) -> Vec<Finding> {
    let ports = switch.ports.iter().filter(|port| port.kind == "vhost-user" && port.cable);
    let look = |port: &Port| {
        let name = &port.name;
        let is = |key: &str, value: &str| port.state(key) == Some(value);
        let show = format!("tramactl qemu {name} prints the arguments");
        match port.state("last_error") {
            Some(error) if error.contains(NOT_SHARED) => {
                return Some(Finding::fail("vmm", format!("{name}: {error}"), show));
            }
            _ => {}
        }
        if is("state", "connected") && is("queue_pairs", "0") {
            let text = format!("{name}: a VMM is connected, and no driver has started its rings");
            let remedy = "wait until the guest has booted, or load virtio_net in it; a device \
                          that shares no memory with the daemon looks the same";
            return Some(Finding::warn("vmm", text, remedy));
        }
        if let Some(waiting) = port.state("waiting_peers") {
            let text = format!("{name}: {waiting} waits, as a port serves one VMM");
            return Some(Finding::warn("vmm", text, "end the other one, or give it another port"));
        }
        let is_absent = is("connects", "0") && !is("state", "connected");
        let text = format!("{name}: no VMM has ever connected");
        is_absent.then(|| Finding::note("vmm", text, show))
    };
    ports.filter_map(look).collect()
}

/// VMMs that may not write to the socket that they are to use.
fn access(switch: &Switch, system: &System, processes: &[Process]) -> Vec<Finding> {
    let sockets = switch.ports.iter().filter_map(|port| Some((port, port.socket()?)));
    let look = |(port, path): (&Port, &str)| {
        let Some(file) = system.metadata(path) else {
            let text = format!("{}: there is no {path}", port.name);
            let gone =
                port.cable && port.error.is_none() && port.state("state") == Some("listening");
            let remedy = "something has removed it: tramactl reload makes it again";
            return gone.then(|| Finding::fail("access", text, remedy)).into_iter().collect();
        };
        let users = processes.iter().filter(|it| !it.name.starts_with("tram") && it.names(path));
        let refused = users.filter(|process| !process.may_write(&file));
        let fault = |process: &Process| {
            let Process { id, name, .. } = process;
            let (user, owner, group) = (process.user(), file.uid(), file.gid());
            let mode = file.mode() & 0o777;
            Finding::fail(
                "access",
                format!(
                    "{}: {name} (process {id}, user {user}) may not use {path}, whose owner is \
                     {owner}:{group} and mode {mode:04o}",
                    port.name
                ),
                format!(
                    "tramactl set Interface {} options:socket-group=GROUP options:socket-mode=0660 \
                     with a group of that user",
                    port.name
                ),
            )
        };
        refused.map(fault).collect::<Vec<_>>()
    };
    sockets.flat_map(look).collect()
}

/// Ports in VLANs where the network's gateway, which is untagged, is not. On a network of mode
/// `nat` each is alone with its gateway, and VLANs have no effect.
fn vlans(switch: &Switch) -> Vec<Finding> {
    let look = |port: &Port| {
        let network = switch.network_of(port).filter(|network| !network.subnets.is_empty())?;
        let tag = port.tag.filter(|tag| *tag != 0 && network.mode != "nat")?;
        let (name, net) = (&port.name, &network.name);
        Some(Finding::warn(
            "vlan",
            format!("{name} is in VLAN {tag}, where {net}'s gateway serves neither DHCP nor NAT"),
            format!("tramactl clear Port {name} tag, or leave it if the guest needs no gateway"),
        ))
    };
    switch.ports.iter().filter_map(look).collect()
}

/// Ports of one network with the same `mac`.
fn same_macs(switch: &Switch) -> Vec<Finding> {
    let mut users: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for port in &switch.ports {
        if let (Some(network), Some(mac)) = (&port.network, &port.mac) {
            users.entry((network, mac.to_ascii_lowercase())).or_default().push(&port.name);
        }
    }
    let doubled = users.into_iter().filter(|(_, ports)| ports.len() > 1);
    let finding = |((network, mac), ports): ((&str, String), Vec<&str>)| {
        let text = format!("{} of {network} have the mac {mac}", ports.join(" and "));
        Finding::fail("mac", text, "frames go to the one that sent last: give one another address")
    };
    doubled.map(finding).collect()
}

/// Networks with an MTU above that of the interface that leads outside.
fn mtus(switch: &Switch, system: &System) -> Vec<Finding> {
    let look = |network: &super::switch::Network| {
        let uplink = network.uplink.as_ref()?;
        let limit = system.number(&format!("/sys/class/net/{uplink}/mtu"))?;
        let (name, mtu) = (&network.name, network.mtu);
        (mtu > limit).then(|| {
            Finding::warn(
                "mtu",
                format!("{name} has an MTU of {mtu}, its uplink {uplink} one of {limit}"),
                format!("tramactl set Bridge {name} mtu={limit}, or raise that of {uplink}"),
            )
        })
    };
    switch.networks.iter().filter_map(look).collect()
}

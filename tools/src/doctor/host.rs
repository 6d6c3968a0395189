//! Checks of the host: devices, the kernel's settings, routes, name servers, its log.

use ipnet::IpNet;
use serde_json::Value as Json;

use super::finding::{Finding, or_ok};
use super::switch::{Network, Switch};
use super::system::System;

/// The kernel from which the host hears what guests on a bridged network send to it.
const BRIDGED_TO_HOST: (u64, u64) = (6, 6);

pub(super) fn check(switch: &Switch, system: &System) -> Vec<Finding> {
    [
        vec![tun(system), forwarding(switch, system), kernel(switch, system)],
        or_ok("netfilter", netfilter(switch, system), "no filter of the host takes bridged frames"),
        or_ok("routes", routes(switch, system), "no subnet hides a network of the host"),
        vec![resolvers(switch, system), pings(system), denials(switch, system), clock()],
    ]
    .concat()
}

/// The device by which TAPs are made.
fn tun(system: &System) -> Finding {
    const CHECK: &str = "tun";
    match system.metadata("/dev/net/tun") {
        Some(_) => Finding::ok(CHECK, "/dev/net/tun is there"),
        None => Finding::fail(
            CHECK,
            "there is no /dev/net/tun, so no TAP can be made",
            "modprobe tun; in a container, pass the device",
        )
        .fixed_by(&["modprobe", "tun"]),
    }
}

/// Whether guests of a host-only network could leave it through the host.
fn forwarding(switch: &Switch, system: &System) -> Finding {
    const CHECK: &str = "forwarding";
    let is_on = |file: &str| system.number(file) == Some(1);
    let on: Vec<&str> = [
        ("IPv4", "/proc/sys/net/ipv4/ip_forward"),
        ("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ]
    .into_iter()
    .filter_map(|(version, file)| is_on(file).then_some(version))
    .collect();
    let host_only = switch.networks.iter().find(|network| network.mode == "host-only");
    match host_only {
        Some(network) if !on.is_empty() => Finding::note(
            CHECK,
            format!(
                "the host forwards {}, also what guests of {} send",
                on.join(" and "),
                network.name
            ),
            "filter it with nftables if these guests are to reach the host alone",
        ),
        _ => Finding::ok(CHECK, "guests of host-only networks reach the host alone"),
    }
}

fn kernel(switch: &Switch, system: &System) -> Finding {
    const CHECK: &str = "kernel";
    let release = system.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|it| it.parse().ok());
    let version: Option<(u64, u64)> = numbers.next().zip(numbers.next());
    let bridged = switch.networks.iter().find(|network| network.mode == "bridged");
    match (version, bridged) {
        (Some(version), Some(network)) if version < BRIDGED_TO_HOST => Finding::note(
            CHECK,
            format!("Linux {release}: the host does not hear guests of {}", network.name),
            "they reach all others; the host does from Linux 6.6 on",
        ),
        _ => Finding::ok(CHECK, format!("Linux {release}")),
    }
}

/// Interfaces that share a bridge of the kernel whose frames the host's firewall drops.
fn netfilter(switch: &Switch, system: &System) -> Vec<Finding> {
    const CHECK: &str = "netfilter";
    let is_on = system.number("/proc/sys/net/bridge/bridge-nf-call-iptables") == Some(1);
    let joined = switch.networks.iter().filter_map(|network| network.uplink.as_deref());
    let system_ports = switch.ports.iter().filter(|port| port.kind == "system");
    let joined = joined.chain(system_ports.filter_map(|port| port.option("ifname")));
    let is_bridged = |name: &&str| {
        let place = |what| system.metadata(&format!("/sys/class/net/{name}/{what}")).is_some();
        place("brport") || place("bridge")
    };
    let bridged: Vec<&str> = joined.filter(is_bridged).collect();
    if !is_on || bridged.is_empty() {
        return Vec::new();
    }
    let Some(rules) = system.output(&["iptables", "-S", "FORWARD"]) else {
        let text = format!(
            "br_netfilter is loaded, and the host's filter of frames between {} and its bridge's \
             other ports cannot be read",
            bridged.join(", ")
        );
        return vec![Finding::note(CHECK, text, "run this as root, with iptables")];
    };
    if !rules.lines().any(|rule| rule == "-P FORWARD DROP") {
        return Vec::new();
    }
    let text = format!(
        "br_netfilter is loaded and the policy of FORWARD is DROP: frames between {} and its \
         bridge's other ports are dropped",
        bridged.join(", ")
    );
    let remedy = "sysctl net.bridge.bridge-nf-call-iptables=0, or allow them in FORWARD";
    let fix = ["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0"];
    vec![Finding::warn(CHECK, text, remedy).fixed_by(&fix)]
}

/// Routes of the host, in any of its tables, that a network's subnet hides from its guests, or
/// that hide the subnet from the host.
fn routes(switch: &Switch, system: &System) -> Vec<Finding> {
    const CHECK: &str = "routes";
    let own = switch.own_interfaces();
    let matters = |network: &&Network| network.has_nat() || network.mode == "host-only";
    if !switch.networks.iter().any(|network| matters(&network)) {
        return Vec::new();
    }
    let answers = ["-4", "-6"].map(|version| {
        let text = system.output(&["ip", "-j", version, "route", "show", "table", "all"])?;
        serde_json::from_str::<Vec<Json>>(&text).ok()
    });
    if answers.iter().all(Option::is_none) {
        let text = "the host's routes cannot be read";
        return vec![Finding::note(CHECK, text, "install iproute2, which has the command ip")];
    }
    let routes = answers.iter().flatten().flatten();
    let known: Vec<(IpNet, String)> = routes.filter_map(|route| to_other(route, &own)).collect();
    let look = |network: &Network| {
        let mut found = Vec::new();
        for subnet in &network.subnets {
            let overlaps = |net: &IpNet| net.contains(subnet) || subnet.contains(net);
            for (net, device) in known.iter().filter(|(net, _)| overlaps(net)) {
                let name = &network.name;
                let text = format!(
                    "{name} has the subnet {subnet}, and the host reaches {net} by {device}"
                );
                let remedy = format!("tramactl set Bridge {name} subnet=… to another one");
                found.push(Finding::warn(CHECK, text, remedy));
            }
        }
        found
    };
    switch.networks.iter().filter(matters).flat_map(look).collect()
}

/// A route to more than the whole internet's half, by an interface that is not trama's.
fn to_other(route: &Json, own: &[&str]) -> Option<(IpNet, String)> {
    let device = route["dev"].as_str().filter(|device| !own.contains(device))?;
    if route["type"].as_str().is_some_and(|kind| kind != "unicast") {
        return None;
    }
    let destination = route["dst"].as_str()?;
    let net = destination
        .parse()
        .ok()
        .or_else(|| Some(IpNet::from(destination.parse::<std::net::IpAddr>().ok()?)))?;
    // Link-local addresses are on every link.
    let is_meant = net.prefix_len() > 1
        && !matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local() || net.addr().is_multicast());
    is_meant.then(|| (net, device.to_owned()))
}

fn resolvers(switch: &Switch, system: &System) -> Finding {
    const CHECK: &str = "resolvers";
    let text = system.read("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next())
        .collect();
    if servers.is_empty() && switch.networks.iter().any(|network| !network.subnets.is_empty()) {
        return Finding::warn(
            CHECK,
            "/etc/resolv.conf has no nameserver: guests get no names from their gateways",
            "set up the host's name resolution, or the networks' `dns` for their DHCP",
        );
    }
    let loopback = |server: &&str| {
        server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let where_ = match servers.iter().all(loopback) {
        true => ", which gateways ask for their guests",
        false => "",
    };
    Finding::ok(CHECK, format!("names from {}{where_}", servers.join(", ")))
}

/// Whether an ordinary user's gateways may ping.
fn pings(system: &System) -> Finding {
    const CHECK: &str = "ping";
    let range = system.read("/proc/sys/net/ipv4/ping_group_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u32>().ok());
    let bounds = bounds.next().zip(bounds.next());
    match bounds {
        Some((first, last)) if first > last => Finding::note(
            CHECK,
            "net.ipv4.ping_group_range is empty: guests behind a NAT ping no other host",
            "sysctl net.ipv4.ping_group_range=\"0 2147483647\"",
        )
        .fixed_by(&["sysctl", "-w", "net.ipv4.ping_group_range=0 2147483647"]),
        _ => Finding::ok(CHECK, format!("groups {range} may ping")),
    }
}

/// What AppArmor or SELinux has denied of the sockets.
fn denials(switch: &Switch, system: &System) -> Finding {
    const CHECK: &str = "denials";
    let Some(log) = system.output(&["dmesg"]) else {
        return Finding::note(CHECK, "the kernel's log cannot be read", "run this as root");
    };
    let mut paths: Vec<&str> = switch.ports.iter().filter_map(|port| port.socket()).collect();
    paths.push("/run/trama/");
    let is_denial =
        |line: &&str| line.contains("apparmor=\"DENIED\"") || line.contains("avc:  denied");
    let ours = |line: &&str| paths.iter().any(|path| line.contains(path));
    match log.lines().rev().filter(is_denial).find(ours) {
        Some(line) => Finding::fail(
            CHECK,
            format!("the kernel has refused access: {}", line.trim()),
            "allow the sockets' folder in the profile of the VMM (libvirt: \
             /etc/apparmor.d/local/abstractions/libvirt-qemu)",
        ),
        // Then the refusals are there, and not in the kernel's log.
        None if system.metadata("/var/log/audit/audit.log").is_some() => Finding::note(
            CHECK,
            "auditd keeps the kernel's refusals, and they were not looked at",
            "ausearch -m AVC,APPARMOR_DENIED -ts today | grep trama",
        ),
        None => Finding::ok(CHECK, "the kernel's log has no refusal of our sockets"),
    }
}

/// Whether the clock can be right: leases are kept with their times.
fn clock() -> Finding {
    // 2026-01-01, when there was no trama.
    const EARLIEST: u64 = 1_767_225_600;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    of_clock(now, EARLIEST)
}

pub(super) fn of_clock(now: u64, earliest: u64) -> Finding {
    const CHECK: &str = "clock";
    match now < earliest {
        true => Finding::fail(
            CHECK,
            "the host's clock is years behind: leases in the store end at wrong times",
            "set it, or start a time service before trama",
        ),
        false => Finding::ok(CHECK, "the host's clock is not behind"),
    }
}

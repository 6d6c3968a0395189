//! Rules for networks with NAT: forwards, loopback maps, discovery protocols.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use trama_gateway::Transport;

use super::check::Check;
use super::subnet::subnets_remedy;
use crate::Fault;
use crate::config::derived::addresses::{GUEST, WellKnown};
use crate::config::derived::forward::{forward_guest, loopback_guest, port_rule};
use crate::config::derived::subnet;
use crate::config::model::rule::Rule;
use crate::config::model::{Config, Mode, Network, Port};

/// The longest prefix with room for the guest's host number.
const LONGEST_PREFIX: u8 = 27;

/// Ports of the gateway's services.
const DNS_PORT: u16 = 53;

const TFTP_PORT: u16 = 69;

/// What forwards have taken.
#[derive(Default)]
pub(super) struct Listeners {
    /// The rules, for the ports of the host that they listen on, with the paths of their tables.
    rules: Vec<(Rule, String)>,
    /// Gateways, by the names of their networks, and the labels of the rules that run in them.
    labels: HashSet<(String, String)>,
}

impl Check {
    /// Keys of networks with NAT.
    pub(super) fn nat(&mut self, network: &Network, config: &Config, taken: &mut Listeners) {
        if network.mode == Mode::Nat {
            let long = |it: &&IpNet| it.addr().is_ipv4() && it.prefix_len() > LONGEST_PREFIX;
            if let Some(subnet) = network.subnet.iter().find(long) {
                let message = format!("{subnet} has no room for the guest, host {GUEST}");
                self.problem("subnet", message, format!("use /24, or /8 to /{LONGEST_PREFIX}"));
            }
        }
        let keys = [
            ("forward", !network.forward.is_empty()),
            ("loopback", !network.loopback.is_empty()),
            ("reflect", !network.reflect.is_empty()),
        ];
        for (key, is_set) in keys {
            if is_set && !network.has_nat() {
                let message = r#"belongs to networks of mode "nat" and "nat-network""#;
                self.problem(key, message, r#"remove it, or set mode = "nat-network""#);
                return;
            }
        }
        if network.mode == Mode::Nat && !network.forward.is_empty() {
            let ports = config.ports.iter().filter(|port| port.is_on(&network.name)).count();
            if ports > 1 {
                let message = format!("needs a network with one port, and this one has {ports}");
                self.problem("forward", message, "give each [[port]] a forward of its own");
                return;
            }
        }
        self.forwards(&network.forward, network, &network.name, taken);
        self.loopback(network);
    }

    /// The forwards of a port.
    pub(super) fn port_forwards(&mut self, port: &Port, config: &Config, taken: &mut Listeners) {
        if port.forward.is_empty() {
            return;
        }
        let network = port.network.as_deref().and_then(|name| config.network(name));
        let Some(network) = network.filter(|network| network.has_nat()) else {
            let message = r#"belongs to ports on a network of mode "nat" or "nat-network""#;
            let remedy = "remove it, or put the port on such a network";
            return self.problem("forward", message, remedy);
        };
        let rules: Vec<Rule> =
            port.forward.iter().map(|rule| port_rule(rule, &port.addresses)).collect();
        let lost = rules.iter().find(|rule| forward_guest(rule, network).is_none());
        if let Some(rule) = lost {
            let version = match rule.host {
                Some(host) if !port.addresses.is_empty() && host.is_ipv4() => " of IPv4",
                Some(_) if !port.addresses.is_empty() => " of IPv6",
                _ => "",
            };
            let message = format!("{}: the port states no address{version}", rule.label());
            let remedy = "give the port addresses, or the rule the guest's address";
            return self.problem("forward", message, remedy);
        }
        self.forwards(&rules, network, &network.running_name(port), taken);
    }

    /// `gateway` is the name of the network in whose gateway the rules run.
    fn forwards(
        &mut self,
        rules: &[Rule],
        network: &Network,
        gateway: &str,
        taken: &mut Listeners,
    ) {
        for rule in rules {
            let label = rule.label();
            if let Some(Fault { message, remedy }) = forward_fault(rule, network) {
                self.problem("forward", format!("{label}: {message}"), remedy);
            }
            let is_of_network = taken.labels.contains(&(network.name.clone(), label.clone()));
            if is_of_network || !taken.labels.insert((gateway.to_owned(), label.clone())) {
                let message = format!("there are two rules {label}");
                self.problem("forward", message, "give each a name of its own");
            }
            let clash = taken.rules.iter().find(|(other, _)| other.clashes(rule));
            if let Some((other, owner)) = clash {
                let message = format!(
                    "{label}: port {} of the host is taken by rule {} of {owner}",
                    rule.host_port.max(other.host_port),
                    other.label()
                );
                self.problem("forward", message, "choose another port, or another host address");
            }
            taken.rules.push((rule.clone(), self.path().to_owned()));
        }
    }

    fn loopback(&mut self, network: &Network) {
        let maps = &network.loopback;
        for (index, map) in maps.iter().enumerate() {
            let label = map.label();
            if let Some(Fault { message, remedy }) = loopback_fault(map, network) {
                self.problem("loopback", format!("{label}: {message}"), remedy);
                continue;
            }
            let end = |map: &Rule| (map.transport, loopback_guest(map, network), map.guest_port);
            if maps[..index].iter().any(|other| end(other) == end(map)) {
                let message = format!("{label}: another map has port {} already", map.guest_port);
                self.problem("loopback", message, "choose another guest port");
            }
        }
    }
}

/// The fault of a forward; `None` if it has none.
fn forward_fault(rule: &Rule, network: &Network) -> Option<Fault> {
    if let Some(host) = rule.host.filter(|host| host.is_multicast()) {
        let remedy = "use an address of the host, or leave it empty for all";
        return Some(Fault::new(format!("{host} is a multicast address"), remedy));
    }
    if let Some(IpAddr::V6(host)) = rule.host
        && host.is_unicast_link_local()
    {
        let remedy = "leave the host address empty: that covers the link-local ones";
        let message = format!("{host} is a link-local address, which exists on every link");
        return Some(Fault::new(message, remedy));
    }
    let Some(guest) = forward_guest(rule, network) else {
        let remedy = "add the guest's address";
        return Some(Fault::new("the rule has no guest address", remedy));
    };
    let subnets = network.subnets();
    let Some(subnet) = subnets.iter().find(|subnet| subnet::is_host(**subnet, guest)) else {
        let message = format!("guest address {guest} is not in the network's subnet");
        return Some(Fault::new(message, subnets_remedy(&subnets)));
    };
    let WellKnown { gateway, dns, tftp, .. } = network.well_known(*subnet);
    if [gateway, dns, tftp].contains(&guest) {
        return Some(Fault::new(format!("{guest} is the gateway's"), "use a guest's address"));
    }
    None
}

/// The fault of a loopback map; `None` if it has none.
fn loopback_fault(map: &Rule, network: &Network) -> Option<Fault> {
    if let Some(host) = map.host.filter(|host| !host.is_loopback()) {
        let remedy = "use 127.0.0.1 or ::1, or leave it empty";
        return Some(Fault::new(format!("{host} is not a loopback address"), remedy));
    }
    if map.count > 1 || map.as_gateway {
        let message = "a loopback map has one port and no options";
        return Some(Fault::new(message, "write one for each port"));
    }
    let subnets = network.subnets();
    let gateways: Vec<_> = subnets.iter().map(|subnet| network.well_known(*subnet)).collect();
    let guest = loopback_guest(map, network)?;
    let Some(known) = gateways.iter().find(|known| known.gateway == guest) else {
        let texts: Vec<_> = gateways.iter().map(|known| known.gateway.to_string()).collect();
        let message = format!("guest address {guest} is not the gateway's");
        let remedy = format!("use {}, or leave it empty", texts.join(" or "));
        return Some(Fault::new(message, remedy));
    };
    let dns = known.dns == guest && map.guest_port == DNS_PORT;
    let tftp = known.tftp == guest
        && map.guest_port == TFTP_PORT
        && map.transport == Transport::Udp
        && network.tftp.is_some();
    if dns || tftp {
        let message = format!("guest port {} is used by the gateway itself", map.guest_port);
        return Some(Fault::new(message, "choose another guest port"));
    }
    None
}

impl Rule {
    /// Whether both listen on the same port of the same address. IP versions do not share ports.
    pub fn clashes(&self, other: &Rule) -> bool {
        self.transport == other.transport
            && self.host_port <= other.last_host_port()
            && other.host_port <= self.last_host_port()
            && overlap(self.host, other.host)
    }
}

/// Whether listeners on the two have an address in common.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    let is_all = one.is_unspecified() || other.is_unspecified();
    one == other || (is_all && one.is_ipv4() == other.is_ipv4())
}

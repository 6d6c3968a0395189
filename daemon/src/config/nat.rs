//! The modes `nat` and `nat-network`: their addresses, what runs of a `nat` network, and the rules
//! that lead in and out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trama_nat::Transport;

use super::model::{Config, Mode, Network, Port, Vlan};
use super::rule::Rule;
use super::subnet::{self, Subnet};
use super::validate::Check;

/// VirtualBox's choice.
pub const DEFAULT_SUBNET: Subnet = (IpAddr::V4(Ipv4Addr::new(10, 0, 2, 0)), 24);
/// The longest prefix with room for the host numbers below.
const LONGEST_PREFIX: u8 = 27;
/// Who is who on a network of mode `nat`, as VirtualBox has it.
const GATEWAY: u8 = 2;
const DNS: u8 = 3;
const TFTP: u8 = 4;
/// The machine of a network of mode `nat`: the number of its address.
pub const GUEST: u8 = 15;
/// Ports of the services at a gateway's address.
const DNS_PORT: u16 = 53;
const TFTP_PORT: u16 = 69;

/// Whose which address of a subnet is.
pub struct Places {
    /// The gateway's own.
    pub gateway: IpAddr,
    /// Where its DNS is.
    pub dns: IpAddr,
    /// Where its TFTP is.
    pub tftp: IpAddr,
    /// The one machine's, if there is but one and we know it.
    pub guest: Option<IpAddr>,
}

impl Network {
    /// Whose which address of one of its subnets is.
    pub fn places(&self, subnet: &Subnet) -> Places {
        let place = |number| subnet::host(subnet, number);
        let gateway = match (self.mode, subnet.1) {
            (Mode::Nat, _) => place(GATEWAY),
            // The host itself has the first. VirtualBox's choice, or the second of a small subnet.
            (Mode::HostOnly, 25..=32) => place(2),
            (Mode::HostOnly, _) => place(100),
            _ => place(1),
        };
        if self.mode != Mode::Nat {
            return Places { gateway, dns: gateway, tftp: gateway, guest: None };
        }
        // Machines make up their own IPv6 addresses.
        let guest = subnet.0.is_ipv4().then(|| place(GUEST));
        Places { gateway, dns: place(DNS), tftp: place(TFTP), guest }
    }

    /// Whether its machines reach other networks through sockets of the host.
    pub fn has_nat(&self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::NatNetwork)
    }

    /// The subnets in force of a network that [`Network::has_nat`].
    pub(super) fn nat_subnets(&self) -> Vec<Subnet> {
        let mut subnets = self.subnet.clone();
        if subnets.is_empty() {
            subnets.push(DEFAULT_SUBNET);
        }
        if let [(IpAddr::V4(address), _)] = subnets[..] {
            subnets.push((unique_local(address).into(), 64));
        }
        subnets
    }
}

/// The IPv6 subnet beside an IPv4 one, as VirtualBox has it: its prefix of unique local addresses
/// (RFC 4193), and the second and third byte of the IPv4 subnet.
fn unique_local(address: Ipv4Addr) -> Ipv6Addr {
    let [_, b, c, _] = address.octets();
    Ipv6Addr::new(0xfd17, 0x625c, 0xf037, u16::from_be_bytes([b, c]), 0, 0, 0, 0)
}

/// What is between a network's and a port's name in [`Config::laid_out`]; no name has it.
const JOINT: char = '/';

/// Whether the network that runs under the name `running` is all or part of the network `name`.
pub fn is_part_of(running: &str, name: &str) -> bool {
    written_name(running) == name || running == name
}

/// The name in the configuration of a network that runs.
pub fn written_name(running: &str) -> &str {
    running.split_once(JOINT).map_or(running, |(name, _)| name)
}

impl Config {
    /// What runs of it: in place of a network of mode `nat`, one for each of its ports, named
    /// `NETWORK/PORT`. Nothing else is on these, so VLANs mean nothing there. Ports' sockets have
    /// absolute paths, and the owners that are in force.
    pub fn laid_out(&self) -> Config {
        let mut networks = Vec::with_capacity(self.networks.len());
        let mut ports = self.ports.clone();
        self.place_sockets(&mut ports);
        for network in &self.networks {
            if network.mode != Mode::Nat {
                networks.push(network.clone());
                continue;
            }
            for port in ports.iter_mut().filter(|port| is_on(port, network)) {
                let name = format!("{}{JOINT}{}", network.name, port.name);
                let rules =
                    network.forward.iter().cloned().chain(std::mem::take(&mut port.forward));
                let forward = rules.collect();
                port.network = Some(name.clone());
                port.vlan = Vlan::default();
                networks.push(Network { name, forward, ..network.clone() });
            }
        }
        Config { daemon: self.daemon.clone(), networks, ports }
    }
}

fn is_on(port: &Port, network: &Network) -> bool {
    port.network.as_deref() == Some(network.name.as_str())
}

/// The ports of the host that forwards listen on so far, and whose they are.
#[derive(Default)]
pub(super) struct Listeners(Vec<(Rule, String)>);

impl Check {
    /// What only networks with NAT have.
    pub(super) fn nat(&mut self, network: &Network, config: &Config, taken: &mut Listeners) {
        if network.mode == Mode::Nat {
            let long = |(address, prefix): &&Subnet| address.is_ipv4() && *prefix > LONGEST_PREFIX;
            if let Some((address, prefix)) = network.subnet.iter().find(long) {
                let message =
                    format!("{address}/{prefix} has no room for the machine, host {GUEST}");
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
        let ports = config.ports.iter().filter(|port| is_on(port, network)).count();
        if network.mode == Mode::Nat && ports > 1 && !network.forward.is_empty() {
            let message = format!("is for a network with one port, and this has {ports}");
            self.problem("forward", message, "give each [[port]] a forward of its own");
            return;
        }
        self.forwards(&network.forward, network, &[], taken);
        self.loopback(network);
    }

    /// The forwards of a port.
    pub(super) fn port_forwards(&mut self, port: &Port, config: &Config, taken: &mut Listeners) {
        if port.forward.is_empty() {
            return;
        }
        let network = port.network.as_deref().and_then(|name| config.network(name));
        match network {
            Some(network) if network.mode == Mode::Nat => {
                self.forwards(&port.forward, network, &network.forward, taken);
            }
            Some(network) if network.mode == Mode::NatNetwork => {
                let message = format!("network {} has one gateway for all its ports", network.name);
                self.problem("forward", message, "move it to the [[network]]");
            }
            _ => {
                let message = r#"belongs to ports on a network of mode "nat""#;
                self.problem("forward", message, "remove it, or put the port on such a network");
            }
        }
    }

    /// `others` are rules beside which these run.
    fn forwards(
        &mut self,
        rules: &[Rule],
        network: &Network,
        others: &[Rule],
        taken: &mut Listeners,
    ) {
        for (index, rule) in rules.iter().enumerate() {
            let label = rule.label();
            if let Some((message, remedy)) = forward_fault(rule, network) {
                self.problem("forward", format!("{label}: {message}"), remedy);
            }
            let mut beside = others.iter().chain(&rules[..index]);
            if beside.any(|other| other.label() == label) {
                let message = format!("there are two rules {label}");
                self.problem("forward", message, "give each a name of its own");
            }
            let clash = taken.0.iter().find(|(other, _)| other.clashes(rule));
            if let Some((other, owner)) = clash {
                let message = format!(
                    "{label}: port {} of the host is taken by rule {} of {owner}",
                    rule.host_port.max(other.host_port),
                    other.label()
                );
                self.problem("forward", message, "choose another port, or another host address");
            }
            taken.0.push((rule.clone(), self.path().to_owned()));
        }
    }

    fn loopback(&mut self, network: &Network) {
        let maps = &network.loopback;
        for (index, map) in maps.iter().enumerate() {
            let label = map.label();
            if let Some((message, remedy)) = loopback_fault(map, network) {
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

/// Where a forward leads to, if it can be told.
pub fn forward_guest(rule: &Rule, network: &Network) -> Option<IpAddr> {
    let subnets = network.subnets();
    rule.guest.or_else(|| subnets.iter().find_map(|subnet| network.places(subnet).guest))
}

/// The address at which machines find what a loopback map leads to: the gateway's.
pub fn loopback_guest(map: &Rule, network: &Network) -> Option<IpAddr> {
    map.guest.or_else(|| Some(network.places(network.subnets().first()?).gateway))
}

/// Why a forward cannot be, and what to do.
fn forward_fault(rule: &Rule, network: &Network) -> Option<(String, String)> {
    if let Some(host) = rule.host.filter(|host| host.is_multicast()) {
        let remedy = "use an address of the host, or leave it empty for all";
        return Some((format!("{host} is not an address of one host"), remedy.into()));
    }
    if let Some(IpAddr::V6(host)) = rule.host
        && host.is_unicast_link_local()
    {
        let remedy = "leave the host address empty: link-local ones are among all of the host's";
        return Some((format!("{host} is on each of the host's links"), remedy.into()));
    }
    let Some(guest) = forward_guest(rule, network) else {
        let remedy = "name the guest's address";
        return Some(("which machine it leads to is not known".into(), remedy.into()));
    };
    let subnets = network.subnets();
    let Some(subnet) = subnets.iter().find(|subnet| subnet::is_host(subnet, guest)) else {
        let texts: Vec<_> = subnets.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
        let message = format!("guest address {guest} is not in the network's subnet");
        return Some((message, format!("use an address in {}", texts.join(" or "))));
    };
    let Places { gateway, dns, tftp, .. } = network.places(subnet);
    if [gateway, dns, tftp].contains(&guest) {
        return Some((format!("{guest} is the gateway's"), "name a machine's address".into()));
    }
    None
}

/// Why a loopback map cannot be, and what to do.
fn loopback_fault(map: &Rule, network: &Network) -> Option<(String, String)> {
    if let Some(host) = map.host.filter(|host| !host.is_loopback()) {
        let remedy = "use 127.0.0.1 or ::1, or leave it empty";
        return Some((format!("{host} is not a loopback address"), remedy.into()));
    }
    if map.count > 1 || map.as_gateway {
        let message = "a map is of one port, and has no options";
        return Some((message.into(), "write one for each port".into()));
    }
    let subnets = network.subnets();
    let gateways: Vec<_> = subnets.iter().map(|subnet| network.places(subnet)).collect();
    let guest = loopback_guest(map, network)?;
    let Some(places) = gateways.iter().find(|places| places.gateway == guest) else {
        let texts: Vec<_> = gateways.iter().map(|places| places.gateway.to_string()).collect();
        let message = format!("guest address {guest} is not the gateway's");
        return Some((message, format!("use {}, or leave it empty", texts.join(" or "))));
    };
    let dns = places.dns == guest && map.guest_port == DNS_PORT;
    let tftp = places.tftp == guest
        && map.guest_port == TFTP_PORT
        && map.transport == Transport::Udp
        && network.tftp.is_some();
    if dns || tftp {
        let message = format!("guest port {} is the gateway's own service", map.guest_port);
        return Some((message, "choose another guest port".into()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const TWO: &str = r#"
        [[network]]
        name = "out"
        mode = "nat"
        mtu = 1400
        loopback = "db,tcp,,5432,,5432"

        [[network]]
        name = "lab"

        [[port]]
        name = "vm1"
        network = "out"
        type = "tap"
        tag = 7
        forward = ["ssh,tcp,127.0.0.1,2222,,22", ":udp:[]:5000-5001:[fd17:625c:f037:2::9]:6000-6001:as-gateway"]

        [[port]]
        name = "vm2"
        network = "out"
        type = "tap"

        [[port]]
        name = "vm3"
        network = "lab"
        type = "tap"
        tag = 7
    "#;

    #[test]
    fn each_port_of_a_nat_network_runs_on_one_of_its_own() {
        let config = parse(TWO, "").unwrap();
        let running = config.laid_out();
        let names: Vec<_> = running.networks.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["out/vm1", "out/vm2", "lab"]);
        assert!(running.networks[..2].iter().all(|it| it.mtu == 1400 && it.loopback.len() == 1));
        assert_eq!(running.networks[0].forward, config.ports[0].forward);
        assert!(running.networks[1].forward.is_empty());
        let places: Vec<_> = running.ports.iter().map(|it| it.network.as_deref()).collect();
        assert_eq!(places, [Some("out/vm1"), Some("out/vm2"), Some("lab")]);
        assert_eq!(running.ports[0].vlan, Vlan::default());
        assert_eq!(running.ports[2], config.ports[2]);
        assert!(is_part_of("out/vm1", "out") && !is_part_of("outer", "out"));
        assert!(is_part_of("out/vm1", "out/vm1") && !is_part_of("out/vm1", "out/vm2"));
    }

    #[test]
    fn a_gateway_is_told_what_virtualbox_users_expect() {
        let running = parse(TWO, "").unwrap().laid_out();
        let config = crate::convert::gateway(&running.networks[0], "/".as_ref()).unwrap();
        let subnet = config.ipv4.unwrap();
        assert_eq!((subnet.address.to_string(), subnet.prefix), ("10.0.2.2".into(), 24));
        assert_eq!(config.ipv6.unwrap().address.to_string(), "fd17:625c:f037:2::2");
        let apart: Vec<_> = config.service_addresses.iter().map(|(address, _)| address.to_string()).collect();
        let wanted = ["10.0.2.3", "10.0.2.4", "fd17:625c:f037:2::3", "fd17:625c:f037:2::4"];
        assert_eq!(apart, wanted);
        let dhcp = config.dhcp.unwrap();
        assert_eq!(dhcp.ranges, [[10, 0, 2, 15].into()..=[10, 0, 2, 15].into()]);
        assert_eq!(
            (dhcp.router, dhcp.dns),
            (Some([10, 0, 2, 2].into()), vec![[10, 0, 2, 3].into()])
        );
        let nat = config.nat.unwrap();
        let ends: Vec<_> = nat
            .forwards
            .iter()
            .map(|it| (it.name.as_str(), it.host, it.host_port, it.guest.to_string(), it.count))
            .collect();
        assert_eq!(
            ends,
            [
                ("ssh", Some([127, 0, 0, 1].into()), 2222, "10.0.2.15:22".into(), 1),
                ("udp-5000", None, 5000, "[fd17:625c:f037:2::9]:6000".into(), 2),
            ]
        );
        assert_eq!(
            nat.forwards.iter().map(|it| it.hides_client).collect::<Vec<_>>(),
            [false, true]
        );
        let map = nat.loopback[0];
        assert_eq!(
            (map.guest, map.host),
            ("10.0.2.2:5432".parse().unwrap(), "127.0.0.1:5432".parse().unwrap())
        );
    }

    #[test]
    fn the_gateway_leaves_the_first_address_to_the_host() {
        let at = |mode, subnet: &str| {
            let subnet = crate::config::parse_address(subnet).unwrap();
            Network { mode, ..Network::new("n") }.places(&subnet).gateway.to_string()
        };
        assert_eq!(at(Mode::HostOnly, "192.168.56.0/24"), "192.168.56.100");
        assert_eq!(at(Mode::HostOnly, "192.168.56.16/28"), "192.168.56.18");
        assert_eq!(at(Mode::HostOnly, "fd00:56::/64"), "fd00:56::64");
        assert_eq!(at(Mode::Internal, "10.1.0.0/24"), "10.1.0.1");
    }

    #[test]
    fn subnets_move_with_their_hosts() {
        let network = |mode, subnet: &[&str]| Network {
            mode,
            subnet: subnet.iter().map(|it| crate::config::parse_address(it).unwrap()).collect(),
            ..Network::new("n")
        };
        let gateways = |network: &Network| -> Vec<String> {
            let subnets = network.subnets();
            subnets.iter().map(|it| network.places(it).gateway.to_string()).collect()
        };
        let own = network(Mode::Nat, &["10.0.3.0/24"]);
        assert_eq!(gateways(&own), ["10.0.3.2", "fd17:625c:f037:3::2"]);
        assert_eq!(own.places(&own.subnets()[0]).guest, Some([10, 0, 3, 15].into()));
        let shared = network(Mode::NatNetwork, &[]);
        assert_eq!(gateways(&shared), ["10.0.2.1", "fd17:625c:f037:2::1"]);
        let both = network(Mode::NatNetwork, &["192.168.7.0/24", "fd00:7::/64"]);
        assert_eq!(gateways(&both), ["192.168.7.1", "fd00:7::1"]);
        assert_eq!(gateways(&network(Mode::Nat, &["fd00:7::/64"])), ["fd00:7::2"]);
    }
}

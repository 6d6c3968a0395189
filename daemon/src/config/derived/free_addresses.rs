//! Free addresses of a network, for guests that ask the daemon instead of DHCP.
//!
//! They are taken from the far end of what DHCP leases, so that both rarely meet.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use trama_dhcp::Address;
use trama_gateway::report::{LeaseRow, LeaseState};

use super::subnet;
use crate::Fault;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::model::{Config, Interface, Mode, Network, Port, Tap};

/// Addresses that a network's DHCP clients have.
#[derive(Default)]
pub struct Leased {
    /// Leased, offered, or used by a host without asking.
    pub held: HashSet<IpAddr>,
    /// Free, but remembered for their clients.
    pub remembered: HashSet<IpAddr>,
}

impl Leased {
    /// Those of a gateway's answer.
    pub fn of(rows: &[LeaseRow]) -> Leased {
        let of = |is_idle: bool| {
            let rows = rows.iter().filter(move |row| (row.state == LeaseState::Idle) == is_idle);
            rows.map(|row| row.address).collect()
        };
        Leased { held: of(false), remembered: of(true) }
    }
}

impl Config {
    /// Chooses an address for a port of each subnet of its network of whose IP version it states
    /// none. Addresses that DHCP clients remember come last.
    ///
    /// # Errors
    /// The port is on no network with a subnet, or no address is free.
    pub fn free_addresses(&self, port: &Port, leased: &Leased) -> Result<Vec<IpAddr>, Fault> {
        let network = port.network.as_deref().and_then(|name| self.network(name));
        let Some(network) = network.filter(|network| !network.subnets().is_empty()) else {
            let name = port.network.as_deref().unwrap_or_default();
            let message = format!("network {name} has no subnet to take an address from");
            let remedy = format!(
                "add one, as in tramactl set Bridge {name} subnet=10.1.0.0/24, or give the port \
                 addresses"
            );
            return Err(Fault::new(message, remedy));
        };
        let taken = self.taken(network, port);
        let mut chosen = Vec::new();
        for subnet in network.subnets() {
            let is_ipv4 = subnet.addr().is_ipv4();
            if port.addresses.iter().any(|address| address.is_ipv4() == is_ipv4) {
                continue;
            }
            let ranges = network.lease_ranges(subnet);
            let is_free =
                |address: &IpAddr| !taken.contains(address) && !leased.held.contains(address);
            let is_fresh = |it: &IpAddr| is_free(it) && !leased.remembered.contains(it);
            let address = last(&ranges, is_fresh).or_else(|| last(&ranges, is_free));
            chosen.push(address.ok_or_else(|| full(network, subnet))?);
        }
        Ok(chosen)
    }

    /// The addresses on a network that the configuration gives away already, but for those of this
    /// port.
    fn taken(&self, network: &Network, port: &Port) -> HashSet<IpAddr> {
        let mut taken: HashSet<IpAddr> = network.hosts.values().copied().collect();
        taken.extend(network.forward.iter().filter_map(|rule| rule.guest));
        for subnet in network.subnets() {
            let known = network.well_known(subnet);
            taken.extend([known.gateway, known.dns, known.tftp]);
            taken.extend((network.mode == Mode::HostOnly).then(|| subnet::first_host(subnet)));
        }
        if let DhcpSetting::On(dhcp) = &network.dhcp {
            taken.extend(dhcp.settings.routers.iter().map(|it| IpAddr::from(*it)));
            for it in &dhcp.clients.reservations {
                taken.extend(it.address.map(IpAddr::from));
                taken.extend(it.address6.map(IpAddr::from));
            }
        }
        let is_beside = |other: &&Port| {
            other.name != port.name && network.mode != Mode::Nat && other.is_on(&network.name)
        };
        for other in self.ports.iter().filter(is_beside) {
            taken.extend(other.addresses.iter().copied());
            if let Interface::Tap(Tap { address, .. }) = &other.interface {
                taken.extend(address.iter().map(IpNet::addr));
            }
        }
        taken
    }
}

/// The last address of these ranges for which `is_one` holds.
fn last(ranges: &[(IpAddr, IpAddr)], is_one: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable_by_key(|(_, end)| Reverse(*end));
    ranges.into_iter().find_map(|range| match range {
        (IpAddr::V4(first), IpAddr::V4(end)) => last_of(first, end, &is_one),
        (IpAddr::V6(first), IpAddr::V6(end)) => last_of(first, end, &is_one),
        _ => None,
    })
}

fn last_of<A: Address + Into<IpAddr>>(
    first: A,
    end: A,
    is_one: &impl Fn(&IpAddr) -> bool,
) -> Option<IpAddr> {
    let down = (first.number()..=end.number()).rev();
    down.map(|number| A::from_number(number).into()).find(is_one)
}

fn full(network: &Network, subnet: IpNet) -> Fault {
    let message = format!("network {} has no free address left in {subnet}", network.name);
    Fault::new(message, "enlarge the range of its dhcp, or detach ports that are not needed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn chosen(text: &str, leased: &Leased) -> Result<String, String> {
        let port = "[[port]]\nname = \"new\"\nnetwork = \"n\"\ntype = \"tap\"\n";
        let config = parse(&[text, port].concat(), "").unwrap();
        let addresses = config.free_addresses(config.port("new").unwrap(), leased);
        let addresses = addresses.map_err(|fault| fault.to_string())?;
        Ok(addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    fn set(addresses: &[&str]) -> HashSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_last_that_nobody_has_is_chosen_of_each_subnet() {
        let network = "[[network]]\nname = \"n\"\nsubnet = [\"10.1.0.0/24\", \"fd00::/64\"]\n";
        let nothing = Leased::default();
        assert_eq!(chosen(network, &nothing).unwrap(), "10.1.0.254 fd00::1fff");
        let text = [
            network,
            "hosts = { x = \"10.1.0.254\" }\n[network.dhcp]\nrouter = \"10.1.0.252\"\n\
             range = [\"10.1.0.100-10.1.0.254\", \"10.1.0.20-10.1.0.30\"]\n\
             [[network.dhcp.reservation]]\nmac = \"52:54:00:00:00:01\"\naddress = \"10.1.0.253\"\n\
             [[port]]\nname = \"a\"\nnetwork = \"n\"\ntype = \"tap\"\naddresses = \"10.1.0.251\"\n\
             [[port]]\nname = \"b\"\nnetwork = \"n\"\ntype = \"tap\"\naddress = \"10.1.0.250/24\"\n\
             [[port]]\nname = \"c\"\ntype = \"tap\"\naddresses = \"10.1.0.248\"\n",
        ];
        assert_eq!(chosen(&text.concat(), &nothing).unwrap(), "10.1.0.249 fd00::1fff");
        let leased = Leased {
            held: set(&["10.1.0.249", "fd00::1fff"]),
            remembered: set(&["10.1.0.248", "fd00::1ffd"]),
        };
        assert_eq!(chosen(&text.concat(), &leased).unwrap(), "10.1.0.247 fd00::1ffe");
    }

    #[test]
    fn what_clients_remember_is_taken_when_nothing_else_is_left() {
        let small = "[[network]]\nname = \"n\"\nmode = \"nat-network\"\nsubnet = \"10.1.0.0/29\"\n\
                     dhcp = { ipv6 = false }\n";
        let leased = Leased {
            held: set(&["10.1.0.3", "10.1.0.4", "10.1.0.6"]),
            remembered: set(&["10.1.0.2", "10.1.0.5"]),
        };
        assert!(chosen(small, &leased).unwrap().starts_with("10.1.0.5 "));
        let leased = Leased { held: &leased.held | &leased.remembered, ..leased };
        assert_eq!(
            chosen(small, &leased).unwrap_err(),
            "network n has no free address left in 10.1.0.0/29; enlarge the range of its dhcp, or \
             detach ports that are not needed"
        );
    }

    #[test]
    fn a_network_without_a_subnet_has_none() {
        assert_eq!(
            chosen("[[network]]\nname = \"n\"\n", &Leased::default()).unwrap_err(),
            "network n has no subnet to take an address from; add one, as in tramactl set Bridge n \
             subnet=10.1.0.0/24, or give the port addresses"
        );
    }

    #[test]
    fn a_guest_that_is_alone_has_the_address_of_such_guests() {
        let text = "[[network]]\nname = \"n\"\nmode = \"nat\"\n[[port]]\nname = \"a\"\n\
                    network = \"n\"\ntype = \"tap\"\naddresses = \"10.0.2.15\"\n";
        let chosen = chosen(text, &Leased::default()).unwrap();
        assert_eq!(chosen, "10.0.2.15 fd17:625c:f037:2::1fff");
    }
}

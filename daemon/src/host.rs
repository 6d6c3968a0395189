//! What the host has already: the routes that a host-only network's subnet must not overlap.
//!
//! Read from `/proc/net`, whose text every kernel has and everybody may read. The default route
//! covers everything and is meant to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::model::{Config, Mode, Network};
use crate::config::subnet::{Subnet, overlap};
use crate::config::{Place, Problem};

const IPV4: &str = "/proc/net/route";
const IPV6: &str = "/proc/net/ipv6_route";
/// What to do about an overlap.
const REMEDY: &str = "choose another subnet";

/// One route of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    destination: Subnet,
    interface: String,
}

/// The subnets of `config` that overlap a route of the host.
pub fn problems(config: &Config) -> Vec<Problem> {
    let routes = routes();
    let networks = config.networks.iter().enumerate();
    let networks = networks.filter(|(_, network)| network.mode == Mode::HostOnly);
    let found = networks.filter_map(|(index, network)| {
        Some(Problem {
            place: Place::Network(index),
            key: "subnet",
            path: format!("network.{}.subnet", network.name),
            message: collision(network, &routes)?,
            remedy: REMEDY.to_owned(),
        })
    });
    found.collect()
}

/// Checks that no route of the host overlaps the network's subnets.
///
/// # Errors
/// Which one does, and what to do.
pub fn check(network: &Network) -> Result<(), String> {
    match collision(network, &routes()) {
        Some(message) => Err(format!("{message}; {REMEDY}")),
        None => Ok(()),
    }
}

/// The first route in the way, as a message. Routes over the network's own interface are its own.
fn collision(network: &Network, routes: &[Route]) -> Option<String> {
    let subnets = network.subnets();
    let others = routes.iter().filter(|route| route.interface != network.name);
    let mut pairs = others.flat_map(|route| subnets.iter().map(move |subnet| (route, *subnet)));
    let (route, subnet) = pairs.find(|(route, subnet)| overlap(&route.destination, subnet))?;
    let (address, prefix) = route.destination;
    Some(format!(
        "{}/{} overlaps the host's route {address}/{prefix} dev {}",
        subnet.0, subnet.1, route.interface
    ))
}

/// The host's routes, without default routes and without what is local or multicast.
fn routes() -> Vec<Route> {
    let lines = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let mut routes: Vec<Route> = lines(IPV4).lines().skip(1).filter_map(ipv4_route).collect();
    routes.extend(lines(IPV6).lines().filter_map(ipv6_route));
    routes.retain(|route| route.destination.1 > 0);
    routes
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`; addresses as the memory holds
/// them, in hexadecimal.
fn ipv4_route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    let address = |number: u32| Ipv4Addr::from(number.to_ne_bytes());
    let prefix = address(number(7)?).to_bits().count_ones() as u8;
    let destination = (IpAddr::V4(address(number(1)?)), prefix);
    Some(Route { destination, interface: (*fields.first()?).to_owned() })
}

/// `destination length source length gateway metric refs use flags interface`.
fn ipv6_route(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = Ipv6Addr::from_bits(u128::from_str_radix(fields.first()?, 16).ok()?);
    let prefix = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    // Every interface has them.
    if address.is_multicast() || address.is_unicast_link_local() || address.is_loopback() {
        return None;
    }
    let destination = (IpAddr::V6(address), prefix);
    Some(Route { destination, interface: (*fields.get(9)?).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Mode;

    #[test]
    fn an_overlap_names_the_route() {
        let v4 = ipv4_route("tun0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0").unwrap();
        let v6 = ipv6_route(
            "fd000056000000000000000000000000 30 00000000000000000000000000000000 00 \
             00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0",
        )
        .unwrap();
        assert_eq!(v4.destination, ("192.168.0.0".parse().unwrap(), 16));
        let mut network = Network { mode: Mode::HostOnly, ..Network::new("vboxnet0") };
        let shown = |network: &Network, routes: &[Route]| collision(network, routes);
        assert_eq!(
            shown(&network, std::slice::from_ref(&v4)).as_deref(),
            Some("192.168.56.0/24 overlaps the host's route 192.168.0.0/16 dev tun0")
        );
        assert_eq!(shown(&network, std::slice::from_ref(&v6)), None);
        let own = Route { interface: "vboxnet0".into(), ..v4 };
        assert_eq!(shown(&network, &[own]), None, "its own");
        network.subnet = vec![("fd00:56::".parse().unwrap(), 64)];
        assert_eq!(
            shown(&network, &[v6]).as_deref(),
            Some("fd00:56::/64 overlaps the host's route fd00:56::/48 dev eth0")
        );
    }
}

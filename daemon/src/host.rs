//! What a configuration needs of the host: the group of the control socket, routes that the subnets
//! of a host-only network do not overlap, and a confirmation where an interface that joins carries
//! the default route.
//!
//! A default route covers every subnet and does not count as an overlap.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;

use trama_api::folders::Folders;
use trama_switch::NamespaceId;
use trama_vhost_net_backend::access;

use crate::Fault;
use crate::config::derived::subnet::overlap;
use crate::config::model::{Config, Mode, Network};
use crate::config::{Place, Problem};
use crate::routes::{self, Route};

/// Two routes with this prefix length stand for a default route: VPNs use them to take precedence
/// over the existing one.
const LONGEST_DEFAULT: u8 = 1;
/// What to do about an overlap.
const REMEDY: &str = "choose another subnet";

/// Returns what the host lacks, or has in the way, of what a configuration needs.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut all = group(config);
    all.extend(overlaps(config));
    all
}

/// Returns a problem if the host has no group of the control socket, without which the daemon does
/// not start. A port whose socket has an unknown owner is stored all the same.
pub(crate) fn group(config: &Config) -> Vec<Problem> {
    group_by(config, |name| access::group_id(name).map_err(|error| error.to_string()))
}

/// As [`group`], with this way to look up a group, whose error has the remedy.
pub(crate) fn group_by<T>(
    config: &Config,
    look_up: impl FnOnce(&str) -> Result<T, String>,
) -> Vec<Problem> {
    let unknown = |error: String| Problem {
        place: Place::Daemon,
        key: "group",
        path: "daemon.group".to_owned(),
        fault: Fault::plain(error),
    };
    let group = config.daemon.group.as_deref().map(look_up);
    group.and_then(Result::err).map(unknown).into_iter().collect()
}

/// Returns a problem for each network whose subnets overlap a route of the host.
fn overlaps(config: &Config) -> Vec<Problem> {
    let routes = routes();
    let networks = config.networks.iter().enumerate();
    let networks = networks.filter(|(_, network)| network.mode == Mode::HostOnly);
    let found = networks.filter_map(|(index, network)| {
        Some(Problem {
            place: Place::Network(index),
            key: "subnet",
            path: format!("network.{}.subnet", network.name),
            fault: Fault::new(collision(network, &routes)?, REMEDY),
        })
    });
    found.collect()
}

/// Checks that no route of the host overlaps the network's subnets.
///
/// # Errors
/// A route overlaps; the fault names it.
pub fn check(network: &Network) -> Result<(), Fault> {
    match collision(network, &routes()) {
        Some(message) => Err(Fault::new(message, REMEDY)),
        None => Ok(()),
    }
}

/// Returns what tells whether a port may join an interface of a name as it is: the host has one,
/// and the daemon is root's or the system's. An ordinary user's daemon has no right to join any;
/// what exists there is a TAP that was made for it.
pub(crate) fn interfaces(folders: &Folders) -> fn(&str) -> bool {
    let is_systems = rustix::process::geteuid().is_root() || !folders.is_private;
    if is_systems { routes::has_interface } else { |_| false }
}

/// Checks that an interface may join a network although guests then reach what is behind it.
///
/// # Errors
/// It, or what is above it, carries the host's default route, of any table; the fault says what
/// that means.
pub(crate) fn check_uplink(port: &str, ifname: &str) -> Result<(), Fault> {
    let routes = routes::of_host().unwrap_or_else(|error| {
        tracing::warn!("the host's routes cannot be read, so no default route is seen: {error}");
        Vec::new()
    });
    let above = routes::above(ifname).unwrap_or_else(|error| {
        tracing::warn!("what is above {ifname} cannot be read: {error}");
        BTreeSet::new()
    });
    let is_default = |route: &&Route| {
        let way = route.interface.as_deref();
        route.destination.prefix_len() <= LONGEST_DEFAULT
            && way.is_some_and(|way| way == ifname || above.contains(way))
    };
    let Some(route) = routes.iter().find(is_default) else { return Ok(()) };
    Err(Fault::new(
        format!(
            "interface {ifname} carries the host's default route {route}: guests would be on the \
             host's LAN, and a loop or a storm could cut the host off"
        ),
        format!("if that is meant: tramactl set Interface {port} options:confirm-uplink=true"),
    ))
}

/// Returns the daemon's own network namespace.
pub(crate) fn namespace() -> Option<NamespaceId> {
    let file = std::fs::metadata("/proc/self/ns/net").ok()?;
    Some(NamespaceId { device: file.dev(), inode: file.ino() })
}

/// Returns a message about the first route that overlaps. Routes over the network's own interface
/// do not count.
fn collision(network: &Network, routes: &[Route]) -> Option<String> {
    let subnets = network.subnets();
    let others = routes.iter().filter(|route| route.interface.as_ref() != Some(&network.name));
    let mut pairs = others.flat_map(|route| subnets.iter().map(move |subnet| (route, *subnet)));
    let (route, subnet) = pairs.find(|(route, subnet)| overlap(route.destination, *subnet))?;
    Some(format!("{subnet} overlaps the host's route {route}"))
}

/// Returns the host's routes, without default routes and those that every interface has.
fn routes() -> Vec<Route> {
    let mut routes = routes::of_host().unwrap_or_else(|error| {
        tracing::warn!("the host's routes cannot be read, so no overlap is seen: {error}");
        Vec::new()
    });
    routes.retain(|route| {
        let destination = route.destination;
        destination.prefix_len() > LONGEST_DEFAULT && !is_everywhere(destination.addr())
    });
    routes
}

/// Returns whether every interface has a route to the address.
fn is_everywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            address.is_multicast() || address.is_unicast_link_local() || address.is_loopback()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Mode;

    #[test]
    fn an_overlap_names_the_route() {
        let route = |destination: &str, interface: &str, table| Route {
            destination: destination.parse().unwrap(),
            interface: Some(interface.to_owned()),
            table,
        };
        let v4 = route("192.168.0.0/16", "tun0", 100);
        let v6 = route("fd00:56::/48", "eth0", routes::MAIN);
        let mut network = Network { mode: Mode::HostOnly, ..Network::new("vboxnet0") };
        let shown = |network: &Network, routes: &[Route]| collision(network, routes);
        assert_eq!(
            shown(&network, std::slice::from_ref(&v4)).as_deref(),
            Some("192.168.56.0/24 overlaps the host's route 192.168.0.0/16 dev tun0 table 100")
        );
        assert_eq!(shown(&network, std::slice::from_ref(&v6)), None);
        let own = Route { interface: Some("vboxnet0".into()), ..v4 };
        assert_eq!(shown(&network, &[own]), None, "its own");
        network.subnet = vec!["fd00:56::/64".parse().unwrap()];
        assert_eq!(
            shown(&network, &[v6]).as_deref(),
            Some("fd00:56::/64 overlaps the host's route fd00:56::/48 dev eth0 table main")
        );
    }
}

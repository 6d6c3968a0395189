//! Rules for what a port states of its guest: its IP addresses and its host names. No two ports of
//! a network have the same, and none has what the network itself has given away.

use std::collections::HashMap;
use std::net::IpAddr;

use trama_api::values::is_host_name;

use super::check::Check;
use super::name::HOST_NAME_REMEDY;
use super::problem::{Place, table_path};
use super::subnet::subnets_remedy;
use crate::config::derived::subnet;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::model::{Config, Mode, Network, Port};

/// Most addresses, and most names, of a port.
const MOST: usize = 64;

/// The addresses and names that are taken, by the network, each with what has it.
#[derive(Default)]
pub(super) struct Stations {
    addresses: HashMap<(String, IpAddr), String>,
    names: HashMap<(String, String), String>,
}

impl Stations {
    /// What the networks themselves have.
    pub(super) fn of(config: &Config) -> Stations {
        let mut stations = Stations::default();
        for (index, network) in config.networks.iter().enumerate() {
            stations.add_services(network);
            stations.add_reservations(index, network);
            for name in network.hosts.keys() {
                let owner = format!("network.{}.hosts", network.name);
                stations.names.insert((network.name.clone(), plain_name(network, name)), owner);
            }
        }
        stations
    }

    fn add_services(&mut self, network: &Network) {
        for subnet in network.subnets() {
            let known = network.well_known(subnet);
            let mut take = |address, owner: &str| {
                self.addresses.insert((network.name.clone(), address), owner.to_owned());
            };
            take(known.tftp, "the network's TFTP server");
            take(known.dns, "the network's DNS server");
            take(known.gateway, "the network's gateway");
            if network.mode == Mode::HostOnly {
                take(subnet::first_host(subnet), "the host");
            }
        }
    }

    fn add_reservations(&mut self, index: usize, network: &Network) {
        let DhcpSetting::On(dhcp) = &network.dhcp else { return };
        for (number, it) in dhcp.clients.reservations.iter().enumerate() {
            let owner = table_path(Place::Reservation(index, number), &network.name);
            let addresses = [it.address.map(IpAddr::from), it.address6.map(IpAddr::from)];
            for address in addresses.into_iter().flatten() {
                self.addresses.insert((network.name.clone(), address), owner.clone());
            }
            if let Some(name) = &it.name {
                let name = plain_name(network, name.as_str());
                self.names.insert((network.name.clone(), name), owner);
            }
        }
    }
}

/// A name as it is compared: in lower case, without the domain of the network's names.
fn plain_name(network: &Network, name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let domain = match &network.dhcp {
        DhcpSetting::On(dhcp) => dhcp.settings.domain.as_ref(),
        DhcpSetting::ByMode | DhcpSetting::Off => None,
    };
    let plain = domain.and_then(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'));
    plain.map_or_else(|| name.clone(), str::to_owned)
}

impl Check {
    /// The keys `addresses` and `names`.
    pub(super) fn guest(
        &mut self,
        port: &Port,
        network: Option<&Network>,
        stations: &mut Stations,
    ) {
        for (key, number) in [("addresses", port.addresses.len()), ("names", port.names.len())] {
            if number > MOST {
                self.problem(key, format!("are {number}"), format!("use {MOST} at most"));
            }
        }
        if !port.names.is_empty() && port.addresses.is_empty() {
            let remedy = "add addresses, those that the names stand for";
            self.problem("names", "a guest without addresses has no names", remedy);
        }
        for (index, address) in port.addresses.iter().enumerate() {
            if port.addresses[..index].contains(address) {
                self.problem("addresses", format!("{address} is listed twice"), "list it once");
            } else {
                self.guest_address(*address, port, network, stations);
            }
        }
        for name in &port.names {
            self.guest_name(name, port, network, stations);
        }
    }

    fn guest_address(
        &mut self,
        address: IpAddr,
        port: &Port,
        network: Option<&Network>,
        stations: &mut Stations,
    ) {
        let is_broadcast = address == IpAddr::from([255; 4]);
        if address.is_multicast()
            || address.is_unspecified()
            || address.is_loopback()
            || is_broadcast
        {
            let message = format!("{address} is not the address of a host");
            return self.problem("addresses", message, "use one such as 10.1.0.7 or fd00::7");
        }
        let Some(network) = network else { return };
        let subnets = network.subnets();
        if !subnets.is_empty() && !subnets.iter().any(|it| subnet::is_host(*it, address)) {
            let message = format!("{address} is not in the network's subnet");
            return self.problem("addresses", message, subnets_remedy(&subnets));
        }
        let of_network = stations.addresses.get(&(network.name.clone(), address)).cloned();
        let key = (network.running_name(port), address);
        let owner = format!("{}.addresses", self.path());
        if let Some(other) = of_network.or_else(|| stations.addresses.insert(key, owner)) {
            let message = format!("{address} is taken by {other} on the same network");
            self.problem("addresses", message, "choose another");
        }
    }

    fn guest_name(
        &mut self,
        name: &str,
        port: &Port,
        network: Option<&Network>,
        stations: &mut Stations,
    ) {
        if !is_host_name(name) {
            let message = format!("{name:?} is not a host's name");
            return self.problem("names", message, HOST_NAME_REMEDY);
        }
        let Some(network) = network else { return };
        let name = plain_name(network, name);
        let of_network = stations.names.get(&(network.name.clone(), name.clone())).cloned();
        let key = (network.running_name(port), name.clone());
        let owner = format!("{}.names", self.path());
        if let Some(other) = of_network.or_else(|| stations.names.insert(key, owner)) {
            let message = format!("{name:?} is taken by {other} on the same network");
            self.problem("names", message, "choose another");
        }
    }
}

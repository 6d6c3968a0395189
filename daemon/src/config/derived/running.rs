//! The configuration that runs: a network of mode `nat` becomes one network for each of its ports,
//! and networks are told what their ports state of their guests.

use std::borrow::Borrow;
use std::collections::HashMap;

use super::forward::port_rule;
use crate::config::model::network::Guest;
use crate::config::model::{Config, Mode, Network, Port, Vlan};

/// Separates the names of network and port in [`Config::expanded`]; no name contains it.
const SEPARATOR: char = '/';

/// Whether the network that runs as `running` is all or part of the network `name`.
pub fn is_part_of(running: &str, name: &str) -> bool {
    written_name(running) == name || running == name
}

/// The name in the configuration of the network that runs as `running`.
pub fn written_name(running: &str) -> &str {
    running.split_once(SEPARATOR).map_or(running, |(name, _)| name)
}

impl Config {
    /// The configuration that runs. Each network of mode `nat` is replaced by one network for each
    /// of its ports, named `NETWORK/PORT`; the port is alone there, so it has no VLAN settings.
    /// Ports' sockets get their absolute paths and the owners in force. Networks with a gateway
    /// get the guests of their ports, and those with NAT the ports' forwards.
    pub fn expanded(&self) -> Config {
        let mut networks = Vec::with_capacity(self.networks.len());
        let mut ports = self.ports.clone();
        self.place_sockets(&mut ports);
        let mut on = ports_by_network(&mut ports);
        for network in &self.networks {
            let mut on = on.remove(network.name.as_str()).unwrap_or_default();
            let tells_events = self.daemon.events > 0 && network.has_gateway();
            if network.mode != Mode::Nat {
                let mut network = Network { tells_events, ..network.clone() };
                // The order of tables has no meaning.
                on.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                on.into_iter().for_each(|port| take_guest(&mut network, port));
                networks.push(network);
                continue;
            }
            for port in on {
                let name = network.running_name(port);
                port.network = Some(name.clone());
                port.vlan = Vlan::default();
                let mut network = Network { name, tells_events, ..network.clone() };
                take_guest(&mut network, port);
                networks.push(network);
            }
        }
        let (daemon, mirrors) = (self.daemon.clone(), self.mirrors.clone());
        Config { daemon, networks, ports, mirrors, records: Vec::new() }
    }

    /// The names of the networks of [`Config::expanded`], in its order.
    pub fn running_names(&self) -> Vec<String> {
        let on = ports_by_network(&self.ports);
        let of_ports = |network: &Network| {
            let ports = on.get(&network.name).into_iter().flatten();
            ports.map(|port| network.running_name(port)).collect()
        };
        let names = self.networks.iter().flat_map(|network| match network.mode {
            Mode::Nat => of_ports(network),
            _ => vec![network.name.clone()],
        });
        names.collect()
    }
}

impl Network {
    /// The name of the network that a port on this one runs on.
    pub fn running_name(&self, port: &Port) -> String {
        match self.mode {
            Mode::Nat => format!("{}{SEPARATOR}{}", self.name, port.name),
            _ => self.name.clone(),
        }
    }
}

/// Tells a network of a port's guest, and takes over the port's forwards.
fn take_guest(network: &mut Network, port: &mut Port) {
    if network.has_nat() {
        let rules = std::mem::take(&mut port.forward);
        network.forward.extend(rules.iter().map(|rule| port_rule(rule, &port.addresses)));
    }
    if network.has_gateway() && !port.addresses.is_empty() {
        let (addresses, names) = (port.addresses.clone(), port.names.clone());
        network.guests.push(Guest { addresses, names });
    }
}

/// The ports on each network, in order.
fn ports_by_network<P: Borrow<Port>>(
    ports: impl IntoIterator<Item = P>,
) -> HashMap<String, Vec<P>> {
    let mut on: HashMap<String, Vec<P>> = HashMap::new();
    for port in ports {
        if let Some(network) = &port.borrow().network {
            on.entry(network.clone()).or_default().push(port);
        }
    }
    on
}

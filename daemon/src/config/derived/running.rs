//! The configuration that runs: a network of mode `nat` becomes one network for each of its ports.

use std::collections::HashMap;

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
    /// Ports' sockets get their absolute paths and the owners in force.
    pub fn expanded(&self) -> Config {
        let mut networks = Vec::with_capacity(self.networks.len());
        let mut ports = self.ports.clone();
        self.place_sockets(&mut ports);
        let mut on = ports_by_network(&mut ports);
        for network in &self.networks {
            if network.mode != Mode::Nat {
                networks.push(network.clone());
                continue;
            }
            for port in on.remove(network.name.as_str()).unwrap_or_default() {
                let name = format!("{}{SEPARATOR}{}", network.name, port.name);
                let rules =
                    network.forward.iter().cloned().chain(std::mem::take(&mut port.forward));
                let forward = rules.collect();
                port.network = Some(name.clone());
                port.vlan = Vlan::default();
                networks.push(Network { name, forward, ..network.clone() });
            }
        }
        Config { daemon: self.daemon.clone(), networks, ports, records: Vec::new() }
    }
}

/// The ports on each network, in order.
fn ports_by_network(ports: &mut [Port]) -> HashMap<String, Vec<&mut Port>> {
    let mut on: HashMap<String, Vec<&mut Port>> = HashMap::new();
    for port in ports {
        if let Some(network) = &port.network {
            on.entry(network.clone()).or_default().push(port);
        }
    }
    on
}

//! The steps that concern a network: it is added, changed or removed, with its gateway.

use super::{DataPlane, RunningNetwork, RunningPort};
use crate::config::model::{Config, Network};
use crate::convert;
use crate::gateway::Gateway;
use crate::spread::Spread;

impl DataPlane {
    pub(super) fn add_network(&mut self, network: &Network, spread: &mut Spread) {
        let settings = convert::network(network);
        let worker = spread.least_loaded();
        let (id, mut value) = self.group.network(settings);
        let counters = self.kept.network(&network.name);
        value.set_counters(counters.clone());
        self.kept.keep_macs(&network.name, &mut value);
        match self.workers[worker].handle.take_network(value) {
            Ok(()) => {
                let config = network.clone();
                let running = RunningNetwork { worker, id, counters, config, gateway: None };
                self.networks.insert(network.name.clone(), running);
                spread.add(&network.name, worker);
                self.set_gateway(network);
            }
            Err(error) => tracing::error!("network {}: {error}", network.name),
        }
    }

    /// Returns the settings of a running network's gateway.
    pub(crate) fn gateway_settings(&self, network: &str) -> Option<trama_gateway::Config> {
        convert::gateway(&self.networks.get(network)?.config, &self.state)
    }

    pub(super) fn set_network(&mut self, network: &Network, wanted: &Config) {
        let Some(running) = self.networks.get_mut(&network.name) else { return };
        let (worker, id) = (running.worker, running.id);
        let settings = convert::network(network);
        let old = std::mem::replace(&mut running.config, network.clone());
        let done = if old.mac_table_size == network.mac_table_size {
            let set = self.on_worker(worker, move |engine, _| engine.set_network(id, settings));
            set.and_then(|done| done.map_err(|error| error.to_string()))
        } else {
            // The entries move on this thread, while the worker serves other networks.
            let (keeps, epoch) = (self.kept.keeps(), self.kept.epoch());
            let mut memory = None;
            let set = self.move_network(&network.name, worker, |value| {
                value.set(settings);
                memory = keeps.then(|| value.keep_macs(epoch));
            });
            if let Some(memory) = memory {
                self.kept.put_macs(&network.name, memory);
            }
            set.map_err(|error| error.to_string())
        };
        if let Err(error) = done {
            tracing::error!("network {}: {error}", network.name);
        }
        self.set_gateway(network);
        if old.mtu != network.mtu {
            for port in wanted.all_ports().filter(|port| port.is_on(&network.name)) {
                match self.ports.get(&port.name) {
                    Some(RunningPort { session: Some(session), .. }) => {
                        session.set_device(convert::device(&port, network.mtu));
                    }
                    // It takes whatever the path takes.
                    Some(RunningPort { tunnel: Some(_), .. }) => {}
                    // One that does not run may fit now.
                    Some(RunningPort { joined_for: Some(_), .. }) | None => self.set_port(&port),
                    Some(_) => tracing::warn!(
                        "port {}: its device keeps the MTU that it was made with",
                        port.name
                    ),
                }
            }
        }
    }

    /// Starts, changes or stops a network's gateway according to its settings.
    fn set_gateway(&mut self, network: &Network) {
        let wanted = convert::gateway(network, &self.state);
        let Some(running) = self.networks.get_mut(&network.name) else { return };
        match (running.gateway.take(), wanted) {
            (Some(gateway), Some(config)) => {
                gateway.configure(config);
                running.gateway = Some(gateway);
            }
            (Some(gateway), None) => gateway.stop(),
            (None, Some(config)) => {
                let place = (self.workers[running.worker].handle.clone(), running.id);
                let means = (self.rights.clone(), self.starts.clone(), self.events.clone());
                match Gateway::start(&network.name, place, config, means) {
                    Ok(gateway) => running.gateway = Some(gateway),
                    Err(error) => {
                        tracing::error!("network {}: no gateway: {error}", network.name);
                    }
                }
            }
            (None, None) => {}
        }
    }

    pub(super) fn remove_network(&mut self, name: &str) {
        let Some(mut network) = self.networks.remove(name) else { return };
        if let Some(gateway) = network.gateway.take() {
            gateway.stop();
        }
        // The answer returns the removed network, which is freed on this thread.
        let id = network.id;
        let removed = self.on_worker(network.worker, move |engine, _| engine.remove_network(id));
        if let Ok(Err(error)) = removed {
            tracing::error!("network {name}: {error}");
        }
        self.kept.forget_network(name);
        self.forget_mirrors(name);
    }
}

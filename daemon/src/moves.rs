//! Moves networks and ports between workers while they carry traffic.
//!
//! A session's thread reaches its port by the port's [`PortPlace`]. A move holds the places of its
//! ports until it is complete, so a session's request either comes before the move or finds the
//! port at its new worker.

use std::time::{Duration, Instant};

use trama_switch::{EngineError, Network, PortSettings, WorkerHandle};
use trama_vhost_net::PortPlace;

use crate::apply::Machine;
use crate::balance::{Move, NetworkLoad};

impl Machine {
    /// Samples how busy the networks keep the workers, and moves one if that balances the load.
    pub fn balance(&mut self, begun: Instant) {
        let load = |(name, network): (&String, &crate::apply::RunningNetwork)| NetworkLoad {
            name: name.clone(),
            worker: network.worker,
            busy: Duration::from_nanos(network.counters.snapshot().busy_nanos),
        };
        let networks = self.networks.iter().map(load).collect();
        let workers = self.workers.len();
        let Some(next) = self.balancer.look(begun.elapsed(), networks, workers) else { return };
        let Move { network, from, to } = &next;
        match self.carry(network, *to, |_| {}) {
            Ok(()) => tracing::info!("network {network} moved from loaded worker {from} to {to}"),
            Err(error) => tracing::error!("network {network} cannot move: {error}"),
        }
    }

    /// Moves a network to a worker, which may be its own; `on_the_way` is called while no worker
    /// has the network.
    pub(crate) fn carry(
        &mut self,
        name: &str,
        to: usize,
        on_the_way: impl FnOnce(&mut Network),
    ) -> Result<(), String> {
        let network = self.networks.get_mut(name).ok_or_else(|| format!("no network {name}"))?;
        let (from, id) = (network.worker, network.id);
        let new = self.workers.get(to).ok_or_else(|| format!("no worker {to}"))?;
        let on_it = |port: &&mut crate::apply::RunningPort| port.settings.network == Some(id);
        let mut ports: Vec<_> = self.ports.values_mut().filter(on_it).collect();
        let places = ports.iter().filter_map(|port| port.place.clone());
        let gateway = network.gateway.as_ref().map(|gateway| gateway.place().clone());
        let places: Vec<PortPlace> = places.chain(gateway).collect();
        let mut held: Vec<_> = places.iter().map(PortPlace::hold).collect();
        let moved = self.workers[from].handle.move_network(id, &new.handle, on_the_way);
        moved.map_err(|error| error.to_string())?;
        held.iter_mut().for_each(|place| **place = new.handle.clone());
        ports.iter_mut().for_each(|port| port.worker = to);
        network.worker = to;
        Ok(())
    }

    /// Moves a port to another worker and plugs it in there. The inner error means that the port
    /// has moved but is not attached.
    pub(crate) fn carry_port(
        &mut self,
        name: &str,
        to: usize,
        settings: PortSettings,
    ) -> Result<Result<(), EngineError>, String> {
        let port = self.ports.get_mut(name).ok_or_else(|| format!("no port {name}"))?;
        let [old, new]: [&WorkerHandle; 2] = [port.worker, to].map(|w| &self.workers[w].handle);
        let place = port.place.clone();
        let held = place.as_ref().map(PortPlace::hold);
        let moved = old.move_port(port.id, new, settings).map_err(|error| error.to_string())?;
        if let Some(mut held) = held {
            *held = new.clone();
        }
        port.worker = to;
        Ok(moved)
    }
}

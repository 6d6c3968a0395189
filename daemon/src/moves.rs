//! Moves networks and ports between workers while they carry traffic.
//!
//! A session's thread reaches its port by the port's [`PortPlace`]. A move holds the places of its
//! ports until it is complete, so a session's request either comes before the move or finds the
//! port at its new worker.

use std::time::{Duration, Instant};

use trama_switch::{EngineError, Network, PortMoved, PortSettings, WorkerHandle};
use trama_vhost_net::PortPlace;

use crate::apply::DataPlane;
use crate::balance::{Move, NetworkLoad};

/// Why a network or port cannot move to another worker. It stays where it is, unless a worker has
/// ended.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no network of this name.
    #[error("no network {0}")]
    NoNetwork(String),
    /// There is no port of this name.
    #[error("no port {0}")]
    NoPort(String),
    /// There is no worker of this number.
    #[error("no worker {0}")]
    NoWorker(usize),
    /// One of the workers refuses, or has ended.
    #[error(transparent)]
    Worker(#[from] trama_switch::MoveError),
}

impl DataPlane {
    /// Samples how busy the networks keep the workers, and moves one if that balances the load.
    pub fn balance(&mut self, started: Instant) {
        let load = |(name, network): (&String, &crate::apply::RunningNetwork)| NetworkLoad {
            name: name.clone(),
            worker: network.worker,
            busy: Duration::from_nanos(network.counters.snapshot().busy_nanos),
        };
        let networks = self.networks.iter().map(load).collect();
        let workers = self.workers.len();
        let Some(next) = self.balancer.look(started.elapsed(), networks, workers) else { return };
        let Move { network, from, to } = &next;
        match self.move_network(network, *to, |_| {}) {
            Ok(()) => tracing::info!("network {network} moved from loaded worker {from} to {to}"),
            Err(error) => tracing::error!("network {network} cannot move: {error}"),
        }
    }

    /// Moves a network to a worker, which may be its own; `while_detached` is called while no
    /// worker has the network.
    pub(crate) fn move_network(
        &mut self,
        name: &str,
        to: usize,
        while_detached: impl FnOnce(&mut Network),
    ) -> Result<(), MoveError> {
        let network = self.networks.get_mut(name);
        let network = network.ok_or_else(|| MoveError::NoNetwork(name.to_owned()))?;
        let (from, id) = (network.worker, network.id);
        let new = self.workers.get(to).ok_or(MoveError::NoWorker(to))?;
        let on_it = |port: &&mut crate::apply::RunningPort| port.settings.network == Some(id);
        let mut ports: Vec<_> = self.ports.values_mut().filter(on_it).collect();
        let places = ports.iter().filter_map(|port| port.place.clone());
        let gateway = network.gateway.as_ref().map(|gateway| gateway.place().clone());
        let places: Vec<PortPlace> = places.chain(gateway).collect();
        let mut held: Vec<_> = places.iter().map(PortPlace::hold).collect();
        self.workers[from].handle.move_network(id, &new.handle, while_detached)?;
        held.iter_mut().for_each(|place| **place = new.handle.clone());
        ports.iter_mut().for_each(|port| port.worker = to);
        network.worker = to;
        let has_tunnel = ports.iter().any(|port| port.tunnel.is_some());
        drop(held);
        if has_tunnel {
            self.renew_tunnels();
        }
        Ok(())
    }

    /// Moves a port to another worker and plugs it in there. The inner error means that the port
    /// has moved but is not attached.
    pub(crate) fn move_port(
        &mut self,
        name: &str,
        to: usize,
        settings: PortSettings,
    ) -> Result<Result<(), EngineError>, MoveError> {
        let port = self.ports.get_mut(name);
        let port = port.ok_or_else(|| MoveError::NoPort(name.to_owned()))?;
        let [old, new]: [&WorkerHandle; 2] = [port.worker, to].map(|w| &self.workers[w].handle);
        let place = port.place.clone();
        let held = place.as_ref().map(PortPlace::hold);
        let moved = old.move_port(port.id, new, settings)?;
        if let Some(mut held) = held {
            *held = new.clone();
        }
        port.worker = to;
        if port.tunnel.is_some() {
            self.renew_tunnels();
        }
        Ok(match moved {
            PortMoved::Attached => Ok(()),
            PortMoved::Unattached(error) => Err(error),
        })
    }
}

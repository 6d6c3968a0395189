//! Moves networks and ports between engines.
//!
//! Between two bursts no frame is in transit, so what leaves is complete: rings with everything
//! waiting in them, learned addresses, counters. Its descriptors wake the other worker before it
//! leaves this one, and every port is polled when it arrives. So no kick is lost, and drivers
//! notice only a short pause.

use super::network::Network;
use super::{Engine, EngineError, NetworkId, PortId, PortLocation, UNATTACHED};
use crate::mac_table::PortIndex;
use crate::ports::{Doorbell, Port, Watched};
use crate::time::Time;

/// A port outside any engine.
pub struct DetachedPort(Port);

impl Engine {
    /// Adds a network, new or from another engine.
    pub fn take_network(&mut self, network: Network, now: Time) {
        let slot = self.networks.iter().position(Option::is_none).unwrap_or(self.networks.len());
        if slot == self.networks.len() {
            self.networks.push(None);
            self.awake.reserve(self.networks.len());
        }
        self.pipeline.touched.reserve(network.ports.len());
        let ports = network.ports.iter().enumerate();
        let ids: Vec<_> = ports.filter_map(|(i, port)| Some((i, port.as_ref()?.id))).collect();
        self.networks[slot] = Some(Network { awake: false, ..network });
        for (index, id) in ids {
            let location = PortLocation { slot, index: PortIndex(index as u16) };
            self.locations.insert(id, location);
            self.activate(location, now);
        }
    }

    /// Releases a network for the engine whose worker `to` wakes. On an error nothing has changed.
    ///
    /// # Errors
    /// The network does not exist, or a descriptor cannot be registered at `to`.
    pub fn give_network(&mut self, id: NetworkId, to: &Doorbell) -> Result<Network, EngineError> {
        let slot = self.network_slot(id)?;
        let network = self.network_mut(id)?;
        let devices = network.ports.iter_mut().flatten().map(|port| &mut port.device);
        let watched: Vec<&mut Watched> = devices.flat_map(|device| device.watched()).collect();
        Watched::move_all(watched, to).map_err(EngineError::Watch)?;
        self.rings.clear();
        self.slots.clear();
        let network = self.networks[slot].take().ok_or(EngineError::NoSuchNetwork(id))?;
        self.awake.retain(|awake| *awake != slot);
        self.locations.retain(|_, location| location.slot != slot);
        Ok(network)
    }

    /// Adds a port from another engine, unattached until [`Engine::set_port`].
    ///
    /// # Errors
    /// There is no room for another port, which is dropped.
    pub fn take_port(&mut self, port: DetachedPort, now: Time) -> Result<(), EngineError> {
        self.insert_port(UNATTACHED, port.0, now)
    }

    /// Releases a port for the engine whose worker `to` wakes. On an error nothing has changed.
    ///
    /// # Errors
    /// The port does not exist, or a descriptor cannot be registered at `to`.
    pub fn give_port(&mut self, id: PortId, to: &Doorbell) -> Result<DetachedPort, EngineError> {
        let watched = self.port_mut(id)?.device.watched();
        Watched::move_all(watched, to).map_err(EngineError::Watch)?;
        self.extract_port(id).map(DetachedPort)
    }
}

//! Ring operations of a vhost-user session.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use trama_virtqueue::{GuestMemory, RingFds, RingSetup};

use super::{Engine, EngineError, PortId, PortLocation};
use crate::counters::{Lasting, PortCounters};
use crate::ports::{Device, Port};
use crate::sources::Sources;
use crate::time::Time;

impl Engine {
    /// Carries out a request of a port's frontend. If the process crashes in it, that is noted.
    pub fn for_frontend<R>(&mut self, port: PortId, request: impl FnOnce(&mut Engine) -> R) -> R {
        self.pipeline.note.request(port);
        let result = request(self);
        self.pipeline.note.idle();
        result
    }

    /// Gives the port's rings a new memory map.
    ///
    /// # Errors
    /// The port does not exist, has no rings, or has a ring that does not fit into the new map.
    pub fn set_memory(
        &mut self,
        port: PortId,
        memory: Arc<GuestMemory>,
    ) -> Result<(), EngineError> {
        self.rings.clear();
        self.vhost_mut(port)?.set_memory(&memory)
    }

    /// Starts ring `index` (2n: the driver's receive ring, 2n + 1: its transmit ring). The port is
    /// polled from now on, kicked or not, and its fault is cleared.
    ///
    /// # Errors
    /// The port or the ring does not exist, the ring cannot be used as set up, or its kick
    /// descriptor cannot be waited for.
    pub fn start_ring(
        &mut self,
        port: PortId,
        index: usize,
        setup: RingSetup,
        fds: RingFds,
    ) -> Result<(), EngineError> {
        let (watcher, is_held) = (self.watcher(port), self.is_held);
        let vhost = self.vhost_mut(port)?;
        vhost.start(index, setup, fds, &watcher)?;
        if !is_held {
            vhost.disarm();
        }
        let state = self.port_mut(port)?;
        state.clear_fault();
        state.share_rings();
        self.activate(self.locate(port)?, Time::ZERO);
        Ok(())
    }

    /// Replaces the call descriptor of a started ring and calls through it. A ring that is not
    /// started gets its descriptor with [`Engine::start_ring`], so there is nothing to do for it.
    pub fn set_call(&mut self, port: PortId, index: usize, call: Option<OwnedFd>) {
        let Ok(PortLocation { slot, index: port_index }) = self.locate(port) else { return };
        if let Some(network) = &mut self.networks[slot]
            && let Some(Port { device: Device::Vhost(vhost), .. }) =
                &mut network.ports[usize::from(port_index.0)]
        {
            vhost.set_call(index, call, &mut self.pipeline.calls);
            self.pipeline.calls.make();
        }
    }

    /// Replaces the kick descriptor of a started ring.
    ///
    /// # Errors
    /// The port or the ring does not exist, is not started, or the descriptor cannot be waited for.
    pub fn set_kick(
        &mut self,
        port: PortId,
        index: usize,
        kick: Option<OwnedFd>,
    ) -> Result<(), EngineError> {
        let watcher = self.watcher(port);
        self.vhost_mut(port)?.set_kick(index, kick, &watcher)?;
        // A kick may have come through the old one.
        self.activate(self.locate(port)?, Time::ZERO);
        Ok(())
    }

    /// Stops a ring and returns the index at which it resumes. Between two bursts no frame is in
    /// transit, so that is also the driver's used index.
    ///
    /// # Errors
    /// The port or the ring does not exist, or is not started.
    pub fn stop_ring(&mut self, port: PortId, index: usize) -> Result<u16, EngineError> {
        self.rings.clear();
        let is_held = self.is_held;
        let vhost = self.vhost_mut(port)?;
        if is_held {
            vhost.catch_up();
        }
        vhost.stop(index)
    }

    /// Ends a session: drops all rings, forgets the port's addresses and its fault.
    pub fn detach(&mut self, port: PortId) {
        let Ok(location) = self.locate(port) else { return };
        self.rings.clear();
        if let Ok(vhost) = self.vhost_mut(port) {
            vhost.detach();
        }
        if let Ok(port) = self.port_mut(port) {
            port.clear_fault();
            port.sources = Sources::default();
        }
        self.flush_port(location);
    }

    /// Returns the counters of a port.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn port_counters(&mut self, port: PortId) -> Result<Lasting<PortCounters>, EngineError> {
        Ok(self.port_mut(port)?.counters.clone())
    }

    /// Sets an eventfd that is written when the port breaks, so that no polling is needed. Ports
    /// may share one.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn set_fault_event(
        &mut self,
        port: PortId,
        event: Option<Arc<OwnedFd>>,
    ) -> Result<(), EngineError> {
        self.port_mut(port)?.fault_event = event;
        Ok(())
    }
}

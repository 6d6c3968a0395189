//! One worker's state: networks, ports, rings, tables. No thread, no clock: also what a
//! simulation drives.
//!
//! Here is what control does to it, between two bursts; `round` is what it does by itself. Names
//! ([`NetworkId`], [`PortId`]) are never used twice, so a late request meets nothing instead of a
//! stranger.

mod batching;
mod round;
mod types;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::{Registry, Token};
use trama_frame::Offloads;
use trama_virtqueue::{GuestMemory, RingSetup, TxBurst};

use crate::counters::{PortCounters, WorkerCounters};
use crate::delivery::Scratch;
use crate::forward::Plan;
use crate::mac_table::{FdbEntry, MacTable, PortIndex};
use crate::ports::calls::Calls;
use crate::ports::pool::PoolBurst;
use crate::ports::vhost::{RingFds, VhostDevice};
use crate::ports::{Device, Port, Watcher};
use crate::time::Time;
use batching::Batching;
pub(crate) use batching::LOAD;
pub use types::{EngineError, NetworkId, NetworkSettings, PortFault, PortId, PortSettings};

/// Most ports of one worker.
const MAX_PORTS: usize = 4096;

/// One worker's state.
pub struct Engine {
    seed: u64,
    next_id: u32,
    networks: Vec<Option<Network>>,
    /// A port's place here is its [`PortIndex`], which is used again after it is removed.
    ports: Vec<Option<Port>>,
    /// Ports to look at each round.
    active: Vec<PortIndex>,
    /// How long a silent port stays active; none: for ever.
    spin: Option<Duration>,
    /// Where descriptors are registered that wake the worker; none: every port stays active.
    registry: Option<Arc<Registry>>,
    counters: Arc<WorkerCounters>,
    /// The last burst from a ring; holds its memory until it is cleared or used again.
    rings: TxBurst,
    pool: PoolBurst,
    stage: Stage,
    batching: Batching,
}

/// A network and who is on it.
struct Network {
    id: NetworkId,
    settings: NetworkSettings,
    table: MacTable,
    members: Vec<PortIndex>,
}

/// What a burst needs on its way, beside its source.
struct Stage {
    plan: Plan,
    scratch: Scratch,
    /// Ports with frames that are not visible yet.
    touched: Vec<PortIndex>,
    calls: Calls,
}

impl Engine {
    /// An engine without networks and ports. `seed` keys its hashes.
    pub fn new(seed: u64) -> Engine {
        Engine {
            seed,
            next_id: 1,
            networks: Vec::new(),
            ports: Vec::new(),
            active: Vec::new(),
            spin: None,
            registry: None,
            counters: Arc::default(),
            rings: TxBurst::new(),
            pool: PoolBurst::new(),
            stage: Stage {
                plan: Plan::new(),
                scratch: Scratch::new(),
                touched: Vec::new(),
                calls: Calls::new(),
            },
            batching: Batching::new(),
        }
    }

    /// Puts the engine on a worker: ports fall silent after `spin` (none: never) and wake it
    /// through `registry`.
    pub(crate) fn attach(&mut self, registry: Registry, spin: Option<Duration>) {
        self.registry = Some(Arc::new(registry));
        self.spin = spin;
    }

    /// Readies calls to drivers that no frontend can make block.
    ///
    /// # Errors
    /// What the kernel says of io_setup(2): it was built without it, a sandbox forbids it, or
    /// `/proc/sys/fs/aio-max-nr` is reached. Calls are then plain writes, which a hostile frontend
    /// can make block.
    pub fn set_up_calls(&mut self) -> std::io::Result<()> {
        self.stage.calls.set_up()
    }

    pub(crate) fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    fn new_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Adds a network.
    pub fn add_network(&mut self, settings: NetworkSettings) -> NetworkId {
        let id = NetworkId(self.new_id());
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut table = MacTable::new(settings.mac_table_size, settings.mac_aging, seed);
        table.reserve_ports(self.ports.len());
        let network = Network { id, settings, table, members: Vec::new() };
        match self.networks.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(network),
            None => self.networks.push(Some(network)),
        }
        id
    }

    fn network_slot(&self, id: NetworkId) -> Result<usize, EngineError> {
        let is_it = |slot: &Option<Network>| slot.as_ref().is_some_and(|network| network.id == id);
        self.networks.iter().position(is_it).ok_or(EngineError::NoSuchNetwork(id))
    }

    fn network_mut(&mut self, id: NetworkId) -> Result<&mut Network, EngineError> {
        let slot = self.network_slot(id)?;
        self.networks[slot].as_mut().ok_or(EngineError::NoSuchNetwork(id))
    }

    /// Changes a network in place; what it has learned stays.
    pub fn set_network(
        &mut self,
        id: NetworkId,
        settings: NetworkSettings,
    ) -> Result<(), EngineError> {
        let network = self.network_mut(id)?;
        network.table.set_limits(settings.mac_table_size, settings.mac_aging);
        network.settings = settings;
        Ok(())
    }

    /// Removes a network; its ports become not attached.
    pub fn remove_network(&mut self, id: NetworkId) -> Result<(), EngineError> {
        let slot = self.network_slot(id)?;
        self.networks[slot] = None;
        for port in self.ports.iter_mut().flatten().filter(|port| port.network == Some(slot)) {
            port.network = None;
            port.settings.network = None;
        }
        Ok(())
    }

    /// Adds a port with its device.
    pub fn add_port(
        &mut self,
        settings: PortSettings,
        mut device: Device,
    ) -> Result<(PortId, Arc<PortCounters>), EngineError> {
        let network = settings.network.map(|id| self.network_slot(id)).transpose()?;
        let free = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if free >= MAX_PORTS {
            return Err(EngineError::TooManyPorts(MAX_PORTS));
        }
        device.watch(&self.watcher(free)).map_err(EngineError::Watch)?;
        if !settings.cable {
            device.set_cable(false);
        }
        let id = PortId(self.new_id());
        let counters = Arc::<PortCounters>::default();
        let port = Port::new(id, settings, Arc::clone(&counters), device);
        if free == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[free] = Some(port);
        self.reserve();
        let index = PortIndex(free as u16);
        self.join(index, network);
        self.activate(index, Time::ZERO);
        Ok((id, counters))
    }

    /// Nothing that depends on the number of ports grows while frames move.
    fn reserve(&mut self) {
        let ports = self.ports.len();
        self.stage.touched.reserve(ports);
        self.active.reserve(ports);
        for network in self.networks.iter_mut().flatten() {
            network.table.reserve_ports(ports);
        }
    }

    fn watcher(&self, slot: usize) -> Watcher {
        Watcher { registry: self.registry.clone(), token: Token(slot) }
    }

    fn port_slot(&self, id: PortId) -> Result<usize, EngineError> {
        let is_it = |slot: &Option<Port>| slot.as_ref().is_some_and(|port| port.id == id);
        self.ports.iter().position(is_it).ok_or(EngineError::NoSuchPort(id))
    }

    fn port_mut(&mut self, id: PortId) -> Result<&mut Port, EngineError> {
        let slot = self.port_slot(id)?;
        self.ports[slot].as_mut().ok_or(EngineError::NoSuchPort(id))
    }

    fn vhost_mut(&mut self, id: PortId) -> Result<&mut VhostDevice, EngineError> {
        match &mut self.port_mut(id)?.device {
            Device::Vhost(vhost) => Ok(vhost),
            Device::Tap(_) | Device::Dummy(_) => Err(EngineError::NotVhost),
        }
    }

    /// Moves a port onto a network (or off all of them).
    fn join(&mut self, index: PortIndex, network: Option<usize>) {
        let Some(port) = self.ports[usize::from(index.0)].as_mut() else { return };
        let old = std::mem::replace(&mut port.network, network);
        if let Some(old) = old.and_then(|slot| self.networks[slot].as_mut()) {
            old.members.retain(|member| *member != index);
            old.table.flush_port(index);
        }
        if let Some(new) = network.and_then(|slot| self.networks[slot].as_mut()) {
            new.members.push(index);
        }
    }

    /// Forgets the addresses learned on a port.
    fn flush_port(&mut self, slot: usize) {
        let network = self.ports[slot].as_ref().and_then(|port| port.network);
        if let Some(network) = network.and_then(|network| self.networks[network].as_mut()) {
            network.table.flush_port(PortIndex(slot as u16));
        }
    }

    /// Changes a port in place. Another network or other VLANs make it forget its addresses.
    pub fn set_port(&mut self, id: PortId, settings: PortSettings) -> Result<(), EngineError> {
        let slot = self.port_slot(id)?;
        let network = settings.network.map(|id| self.network_slot(id)).transpose()?;
        let port = self.port_mut(id)?;
        if port.settings.cable != settings.cable {
            port.device.set_cable(settings.cable);
        }
        let other_vlans = port.settings.vlan != settings.vlan;
        let other_network = port.network != network;
        port.settings = settings;
        if other_vlans {
            self.flush_port(slot);
        }
        if other_network {
            self.join(PortIndex(slot as u16), network);
        }
        Ok(())
    }

    /// Removes a port and hands out its device, for the caller to drop: closing a TAP or letting
    /// go of a guest's memory can take milliseconds, which others' frames need not wait for.
    pub fn remove_port(&mut self, id: PortId) -> Result<Device, EngineError> {
        let slot = self.port_slot(id)?;
        let index = PortIndex(slot as u16);
        self.join(index, None);
        self.rings.clear();
        self.active.retain(|active| *active != index);
        let port = self.ports[slot].take().ok_or(EngineError::NoSuchPort(id))?;
        Ok(port.device)
    }

    /// The addresses that a network has learned.
    pub fn fdb(&self, network: NetworkId, now: Time) -> Vec<(PortId, FdbEntry)> {
        let Ok(slot) = self.network_slot(network) else { return Vec::new() };
        let Some(network) = &self.networks[slot] else { return Vec::new() };
        let with_id = |entry: FdbEntry| {
            let port = self.ports.get(usize::from(entry.port.0))?.as_ref()?;
            Some((port.id, entry))
        };
        network.table.entries(now).into_iter().filter_map(with_id).collect()
    }

    /// Forgets the learned addresses of one network or of all.
    pub fn flush_fdb(&mut self, network: Option<NetworkId>) {
        for each in self.networks.iter_mut().flatten() {
            if network.is_none_or(|id| id == each.id) {
                each.table.flush();
            }
        }
    }

    /// Which unfinished frames the port's receiver takes (`VIRTIO_NET_F_GUEST_*`).
    pub fn set_offloads(&mut self, port: PortId, offloads: Offloads) {
        if let Ok(port) = self.port_mut(port) {
            port.offloads = offloads;
        }
    }

    /// Gives the port's rings a new memory map.
    pub fn set_memory(
        &mut self,
        port: PortId,
        memory: Arc<GuestMemory>,
    ) -> Result<(), EngineError> {
        self.rings.clear();
        self.vhost_mut(port)?.set_memory(&memory)
    }

    /// Starts ring `index` (2n: the driver's receive ring, 2n + 1: its transmit ring). The port
    /// is looked at from now on, kicked or not, and an earlier fault of it is forgotten.
    pub fn start_ring(
        &mut self,
        port: PortId,
        index: usize,
        setup: RingSetup,
        fds: RingFds,
    ) -> Result<(), EngineError> {
        let slot = self.port_slot(port)?;
        let watcher = self.watcher(slot);
        self.vhost_mut(port)?.start(index, setup, fds, &watcher)?;
        self.port_mut(port)?.forget_fault();
        self.activate(PortIndex(slot as u16), Time::ZERO);
        Ok(())
    }

    /// Replaces the call descriptor of a started ring and calls by it; a ring that is not started
    /// gets its own with [`Engine::start_ring`], so there is nothing to do for it.
    pub fn set_call(&mut self, port: PortId, index: usize, call: Option<OwnedFd>) {
        let Ok(slot) = self.port_slot(port) else { return };
        if let Some(Port { device: Device::Vhost(vhost), .. }) = &mut self.ports[slot] {
            vhost.set_call(index, call, &mut self.stage.calls);
            self.stage.calls.make();
        }
    }

    /// Replaces the kick descriptor of a started ring.
    pub fn set_kick(
        &mut self,
        port: PortId,
        index: usize,
        kick: Option<OwnedFd>,
    ) -> Result<(), EngineError> {
        let slot = self.port_slot(port)?;
        let watcher = self.watcher(slot);
        self.vhost_mut(port)?.set_kick(index, kick, &watcher)?;
        // It may have been kicked through the old one.
        self.activate(PortIndex(slot as u16), Time::ZERO);
        Ok(())
    }

    /// Stops a ring and says at which index it resumes. Between two bursts nothing is under way,
    /// so that is also the driver's used index.
    pub fn stop_ring(&mut self, port: PortId, index: usize) -> Result<u16, EngineError> {
        self.rings.clear();
        self.vhost_mut(port)?.stop(index)
    }

    /// The frontend is gone: drops all rings, forgets the port's addresses and its fault.
    pub fn detach(&mut self, port: PortId) {
        let Ok(slot) = self.port_slot(port) else { return };
        self.rings.clear();
        if let Ok(vhost) = self.vhost_mut(port) {
            vhost.detach();
        }
        if let Ok(port) = self.port_mut(port) {
            port.forget_fault();
        }
        self.flush_port(slot);
    }

    /// The ports that broke since this was last asked.
    pub fn broken_ports(&mut self) -> Vec<(PortId, PortFault)> {
        let news = self.ports.iter_mut().flatten().filter(|port| port.fault_is_news);
        news.filter_map(|port| {
            port.fault_is_news = false;
            port.fault.map(|fault| (port.id, fault))
        })
        .collect()
    }

    /// What is wrong with a port, until one of its rings is started anew or it is detached.
    pub fn port_fault(&self, port: PortId) -> Option<PortFault> {
        let slot = self.port_slot(port).ok()?;
        self.ports[slot].as_ref()?.fault
    }

    /// An eventfd that is written when the port breaks, so that nobody needs to ask in turn.
    pub fn set_fault_event(
        &mut self,
        port: PortId,
        event: Option<OwnedFd>,
    ) -> Result<(), EngineError> {
        self.port_mut(port)?.fault_event = event;
        Ok(())
    }
}

//! One worker's state: networks, ports, rings, tables. It has no thread and no clock, so a
//! simulation can drive it too.
//!
//! This file has the operations of control, which run between two bursts; `round` has those of the
//! worker. IDs ([`NetworkId`], [`PortId`]) are never reused, so a late request finds nothing
//! instead of another port.

mod announcing;
mod batching;
mod explaining;
mod hold;
mod links;
mod loops;
mod mirroring;
mod moves;
mod network;
mod rings;
mod round;
mod tunnels;
mod watching;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use trama_frame::Offloads;
use trama_virtqueue::{MAX_BURST, TxBurst};

use crate::counters::{Lasting, PortCounters, WorkerCounters};
use crate::delivery::Scratch;
use crate::forward::Plan;
use crate::mac_table::{FdbEntry, KeptMac, PortIndex};
use crate::news::DropTeller;
use crate::notes::Note;
use crate::ports::calls::Calls;
use crate::ports::packet::SlotBurst;
use crate::ports::pool::PoolBurst;
use crate::ports::vhost::VhostDevice;
use crate::ports::{Device, Doorbell, Port, Watcher};
use crate::probe::ProbeKey;
use crate::sources::Sources;
use crate::storm::Storm;
use crate::time::{Epoch, Time};
pub use crate::types::{
    EngineError, HdrLen, NetworkId, NetworkSettings, PortFault, PortFilter, PortId, PortSettings,
    Promiscuous, Spoof, Station,
};
pub(crate) use batching::LOADED_CHAINS;
pub use moves::DetachedPort;
pub(crate) use network::IdAllocator;
pub use network::Network;

/// Slot of the pseudo-network that holds unattached ports.
const UNATTACHED: usize = 0;

/// One worker's state.
pub struct Engine {
    ids: Arc<IdAllocator>,
    /// Most frames of one burst from a ring.
    burst: usize,
    networks: Vec<Option<Network>>,
    /// Slots of the networks with ports to poll each round; none while it is held.
    awake: Vec<usize>,
    /// Whether it leaves rings and devices alone; see `hold`.
    is_held: bool,
    locations: HashMap<PortId, PortLocation>,
    /// How long a silent port stays active; `None` if always.
    spin: Option<Duration>,
    /// Wakes the worker; if it cannot, every port stays active.
    doorbell: Doorbell,
    counters: Arc<WorkerCounters>,
    /// The last burst from a ring; holds the guest's memory until it is cleared or reused.
    rings: TxBurst,
    pool: PoolBurst,
    slots: SlotBurst,
    pipeline: Pipeline,
}

/// Location of a port.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PortLocation {
    /// Slot of its network.
    slot: usize,
    index: PortIndex,
}

/// What a burst needs besides its source.
struct Pipeline {
    plan: Plan,
    scratch: Scratch,
    /// Ports of the burst's network with frames that are not visible yet.
    touched: Vec<PortIndex>,
    calls: Calls,
    /// The port that is worked for, for the process that follows if this one crashes.
    note: Lasting<Note>,
    probe_key: ProbeKey,
    /// This engine's number, for the IDs of frames.
    engine: u64,
    /// The worker's counters, whose number of bursts tells one burst from the others.
    counters: Arc<WorkerCounters>,
    /// The queue pair of the vhost-user port whose burst is switched.
    pair: u16,
    /// Written when a storm begins, or when there is a sign of a loop.
    alarm: Option<OwnedFd>,
}

impl Engine {
    /// Makes an engine without networks and ports. `seed` keys its hashes.
    pub fn new(seed: u64) -> Engine {
        Engine::with_ids(Arc::new(IdAllocator::new(seed)))
    }

    /// Does the same as [`Engine::new`], with bursts of at most `burst` frames from a ring (1 to
    /// [`MAX_BURST`]), for the benchmark that compares sizes.
    #[doc(hidden)]
    pub fn with_burst(seed: u64, burst: usize) -> Engine {
        Engine { burst: burst.clamp(1, MAX_BURST), ..Engine::new(seed) }
    }

    /// Makes another empty engine; networks and ports can move between it and this one.
    pub fn sibling(&self) -> Engine {
        Engine::with_ids(Arc::clone(&self.ids))
    }

    pub(crate) fn with_ids(ids: Arc<IdAllocator>) -> Engine {
        let counters = Arc::<WorkerCounters>::default();
        Engine {
            burst: MAX_BURST,
            networks: vec![Some(Network::unattached())],
            awake: Vec::new(),
            is_held: false,
            locations: HashMap::new(),
            spin: None,
            doorbell: Doorbell::default(),
            counters: Arc::clone(&counters),
            rings: TxBurst::new(),
            pool: PoolBurst::new(),
            slots: SlotBurst::new(),
            pipeline: Pipeline {
                plan: Plan::new(),
                scratch: Scratch::new(),
                touched: Vec::new(),
                calls: Calls::new(),
                note: Lasting::default(),
                probe_key: ProbeKey::new(ids.seed),
                engine: ids.next_engine(),
                counters,
                pair: 0,
                alarm: None,
            },
            ids,
        }
    }

    /// Puts the engine on a worker: ports fall silent after `spin` (never if `None`) and ring
    /// `doorbell` to wake it.
    pub(crate) fn attach(&mut self, doorbell: Doorbell, spin: Option<Duration>) {
        self.doorbell = doorbell;
        self.spin = spin;
    }

    /// Sets up calls to drivers that no frontend can block.
    ///
    /// # Errors
    /// The kernel's error from io_setup(2): it was built without it, a sandbox forbids it, or
    /// `/proc/sys/fs/aio-max-nr` is reached. Calls are then plain writes, which a hostile frontend
    /// can block.
    pub fn set_up_calls(&mut self) -> std::io::Result<()> {
        self.pipeline.calls.set_up()
    }

    /// Notes there from now on which port is worked for. To be called on the engine's thread.
    pub fn set_note(&mut self, note: Lasting<Note>) {
        note.take();
        self.pipeline.note = note;
    }

    /// Tells control of dropped frames from now on.
    pub fn set_drop_teller(&mut self, teller: DropTeller) {
        self.pipeline.plan.news.set_teller(teller);
    }

    pub(crate) fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    /// Adds a network. A large MAC table takes long to make; better make the network elsewhere and
    /// pass it to a running worker with [`Engine::take_network`].
    pub fn add_network(&mut self, settings: NetworkSettings) -> NetworkId {
        let (id, network) = self.ids.new_network(settings);
        self.take_network(network, Time::ZERO);
        id
    }

    fn network_slot(&self, id: NetworkId) -> Result<usize, EngineError> {
        let is_it =
            |slot: &Option<Network>| slot.as_ref().is_some_and(|network| network.id == Some(id));
        self.networks.iter().position(is_it).ok_or(EngineError::NoSuchNetwork(id))
    }

    fn network_mut(&mut self, id: NetworkId) -> Result<&mut Network, EngineError> {
        let slot = self.network_slot(id)?;
        self.networks[slot].as_mut().ok_or(EngineError::NoSuchNetwork(id))
    }

    /// Changes a network in place; see [`Network::set`].
    ///
    /// # Errors
    /// The network does not exist.
    pub fn set_network(
        &mut self,
        id: NetworkId,
        settings: NetworkSettings,
    ) -> Result<(), EngineError> {
        self.network_mut(id)?.set(settings);
        Ok(())
    }

    /// Removes a network; its ports become unattached. The caller drops the returned value, since
    /// freeing a large MAC table takes long.
    ///
    /// # Errors
    /// The network does not exist.
    pub fn remove_network(&mut self, id: NetworkId) -> Result<Network, EngineError> {
        let slot = self.network_slot(id)?;
        let on_it =
            |(id, location): (&PortId, &PortLocation)| (location.slot == slot).then_some(*id);
        let mut ports: Vec<PortId> = self.locations.iter().filter_map(on_it).collect();
        ports.sort_unstable();
        for id in ports {
            let mut port = self.extract_port(id)?;
            port.settings.network = None;
            self.insert_port(UNATTACHED, port, Time::ZERO)?;
        }
        self.give_network(id, &Doorbell::default())
    }

    /// Adds a port with its device.
    ///
    /// # Errors
    /// The network does not exist or has no room, or the device cannot be registered with epoll.
    pub fn add_port(
        &mut self,
        settings: PortSettings,
        device: Device,
    ) -> Result<(PortId, Lasting<PortCounters>), EngineError> {
        let counters = Lasting::<PortCounters>::default();
        let id = self.add_port_with(settings, device, counters.clone())?;
        Ok((id, counters))
    }

    /// Adds a port that goes on with these counters, of which it is the only writer.
    ///
    /// # Errors
    /// The same as of [`Engine::add_port`].
    pub fn add_port_with(
        &mut self,
        settings: PortSettings,
        mut device: Device,
        counters: Lasting<PortCounters>,
    ) -> Result<PortId, EngineError> {
        let slot = self.slot_for(&settings)?;
        let id = self.ids.next_port();
        device.watch(&self.watcher(id)).map_err(EngineError::Watch)?;
        // A device that another process has had may show another state.
        device.set_cable(settings.cable);
        if let Device::Vhost(vhost) = &mut device {
            vhost.set_seed(self.ids.seed);
        }
        let port = Port::new(id, settings, counters, device);
        self.insert_port(slot, port, Time::ZERO)?;
        Ok(id)
    }

    /// Returns the slot of the network for a port with these settings.
    fn slot_for(&self, settings: &PortSettings) -> Result<usize, EngineError> {
        settings.network.map_or(Ok(UNATTACHED), |id| self.network_slot(id))
    }

    /// Puts a port on the network in `slot`. Without room there, the port is dropped.
    fn insert_port(&mut self, slot: usize, port: Port, now: Time) -> Result<(), EngineError> {
        let id = port.id;
        let Some(network) = self.networks[slot].as_mut() else {
            return Err(EngineError::NoSuchPort(id));
        };
        let index = network.join(port)?;
        let ports = network.ports.len();
        self.pipeline.touched.reserve(ports);
        let location = PortLocation { slot, index };
        self.locations.insert(id, location);
        self.activate(location, now);
        Ok(())
    }

    /// Takes a port out and forgets its addresses.
    fn extract_port(&mut self, id: PortId) -> Result<Port, EngineError> {
        let PortLocation { slot, index } = self.locate(id)?;
        self.rings.clear();
        self.slots.clear();
        self.locations.remove(&id);
        let network = self.networks[slot].as_mut();
        network.and_then(|network| network.leave(index)).ok_or(EngineError::NoSuchPort(id))
    }

    fn watcher(&self, port: PortId) -> Watcher {
        Watcher { doorbell: self.doorbell.clone(), port }
    }

    fn locate(&self, id: PortId) -> Result<PortLocation, EngineError> {
        self.locations.get(&id).copied().ok_or(EngineError::NoSuchPort(id))
    }

    fn port(&self, id: PortId) -> Option<&Port> {
        let PortLocation { slot, index } = self.locate(id).ok()?;
        self.networks[slot].as_ref()?.ports[usize::from(index.0)].as_ref()
    }

    fn port_mut(&mut self, id: PortId) -> Result<&mut Port, EngineError> {
        let PortLocation { slot, index } = self.locate(id)?;
        let network = self.networks[slot].as_mut();
        network
            .and_then(|network| network.ports[usize::from(index.0)].as_mut())
            .ok_or(EngineError::NoSuchPort(id))
    }

    fn vhost_mut(&mut self, id: PortId) -> Result<&mut VhostDevice, EngineError> {
        match &mut self.port_mut(id)?.device {
            Device::Vhost(vhost) => Ok(vhost),
            _ => Err(EngineError::NotVhost),
        }
    }

    /// Forgets the addresses learned on a port.
    fn flush_port(&mut self, location: PortLocation) {
        if let Some(network) = self.networks[location.slot].as_mut() {
            network.table.flush_port(location.index);
        }
    }

    /// Changes a port in place. A change of network or VLANs and a pulled cable make it forget its
    /// addresses.
    ///
    /// # Errors
    /// The port or its network does not exist, or the network has no room; then nothing has
    /// changed.
    pub fn set_port(&mut self, id: PortId, settings: PortSettings) -> Result<(), EngineError> {
        let slot = self.slot_for(&settings)?;
        let location = self.locate(id)?;
        if slot != location.slot {
            self.networks[slot].as_ref().map_or(Ok(()), Network::check_room)?;
        }
        let port = self.port_mut(id)?;
        if port.settings.cable != settings.cable {
            port.device.set_cable(settings.cable);
        }
        let is_pulled = port.settings.cable && !settings.cable;
        let other_vlans = port.settings.vlan != settings.vlan;
        port.set(settings);
        port.share_rings();
        if is_pulled {
            port.sources = Sources::default();
        }
        if slot != location.slot {
            let port = self.extract_port(id)?;
            return self.insert_port(slot, port, Time::ZERO);
        }
        if other_vlans || is_pulled {
            self.flush_port(location);
        }
        if let Some(network) = self.networks[slot].as_mut() {
            network.ports_changed();
            network.name_port(location.index);
        }
        Ok(())
    }

    /// Removes a port and returns its device for the caller to drop: closing a TAP or unmapping a
    /// guest's memory can take milliseconds, which would delay other frames.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn remove_port(&mut self, id: PortId) -> Result<Device, EngineError> {
        Ok(self.extract_port(id)?.device)
    }

    /// Returns the addresses that a network knows.
    pub fn fdb(&self, network: NetworkId, now: Time) -> Vec<(PortId, FdbEntry)> {
        let Ok(slot) = self.network_slot(network) else { return Vec::new() };
        let Some(network) = &self.networks[slot] else { return Vec::new() };
        let with_id = |entry: FdbEntry| {
            let port = network.ports.get(usize::from(entry.port.0))?.as_ref()?;
            Some((port.id, entry))
        };
        network.table.entries(now).into_iter().filter_map(with_id).collect()
    }

    /// Returns the number of learned addresses in one part of a network's table, counted from part
    /// 0; `None` if there is no such part or network. Each part is a separate request, so that
    /// frames move in between.
    pub fn count_macs(&self, network: NetworkId, part: usize, now: Time) -> Option<usize> {
        let slot = self.network_slot(network).ok()?;
        self.networks[slot].as_ref()?.table.len_of_part(part, now)
    }

    /// Returns how often an address of a network moved to another port; `None` if there is no such
    /// network.
    pub fn mac_moves(&self, network: NetworkId) -> Option<u64> {
        let slot = self.network_slot(network).ok()?;
        Some(self.networks[slot].as_ref()?.table.moves())
    }

    /// Learns addresses that an earlier process had learned, of the ports of the same names that
    /// carry their VLANs, and returns how many. Those that are known, or too old, are left out. To
    /// be called for each of [`MacImage::parts`](crate::MacImage::parts), so that frames move in
    /// between. `epoch` is the one of `now`.
    ///
    /// # Errors
    /// The network does not exist.
    pub fn import_macs(
        &mut self,
        network: NetworkId,
        macs: &[KeptMac],
        epoch: Epoch,
        now: Time,
    ) -> Result<usize, EngineError> {
        Ok(self.network_mut(network)?.import_macs(macs, epoch, now))
    }

    /// Forgets the learned addresses of one network or of all; static ones stay.
    pub fn flush_fdb(&mut self, network: Option<NetworkId>) {
        for each in self.networks.iter_mut().flatten() {
            if network.is_none() || network == each.id {
                each.table.flush();
            }
        }
    }

    /// Sets the offloads that the port's receiver takes (`VIRTIO_NET_F_GUEST_*`).
    pub fn set_offloads(&mut self, port: PortId, offloads: Offloads) {
        if let Ok(port) = self.port_mut(port) {
            port.offloads = offloads;
        }
    }

    /// Returns the ports that broke since the last call.
    pub fn broken_ports(&mut self) -> Vec<(PortId, PortFault)> {
        let ports = self.networks.iter_mut().flatten().flat_map(|network| &mut network.ports);
        let unreported = ports.flatten().filter(|port| port.fault_unreported);
        unreported
            .filter_map(|port| {
                port.fault_unreported = false;
                port.fault.map(|fault| (port.id, fault))
            })
            .collect()
    }

    /// Sets the descriptor that is written when a storm begins at one of the ports, or when there
    /// is a sign of a loop. A write to it must not block.
    pub fn set_alarm(&mut self, alarm: OwnedFd) {
        self.pipeline.alarm = Some(alarm);
    }

    /// Returns the ports that have sent more flooded frames than they may within the last five
    /// seconds.
    pub fn storms(&self, now: Time) -> Vec<(PortId, Vec<Storm>)> {
        let ports = self.networks.iter().flatten().flat_map(|network| &network.ports).flatten();
        let storms = ports.map(|port| (port.id, port.storm.storms(now)));
        storms.filter(|(_, storms)| !storms.is_empty()).collect()
    }

    /// Returns the port's fault, which lasts until one of its rings is started again or it is
    /// detached.
    pub fn port_fault(&self, port: PortId) -> Option<PortFault> {
        self.port(port)?.fault
    }
}

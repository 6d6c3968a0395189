//! A network as a value: its ports with their rings, learned addresses, counters.
//!
//! It contains everything needed to forward a frame. So a network moves to another worker by
//! passing this value, and slow work (making, resizing and freeing a large MAC table) can be done
//! by its current owner while no worker waits.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::batching::Batching;
use crate::counters::{Lasting, NetworkCounters};
use crate::loops::LoopReports;
use crate::mac_table::{KeptMac, MacTable, PortIndex, StaticEntry, identity};
use crate::mirror::Mirrors;
use crate::mirror::types::Mirrored;
use crate::ports::Port;
use crate::time::{Epoch, Time};
use crate::types::{EngineError, MAX_PORTS, NetworkId, NetworkSettings, PortId, Promiscuous};
use crate::vlan::VlanMode;
use crate::watch::types::Seers;
use crate::watch::{WatchId, Watches};

/// A network with its ports and state.
pub struct Network {
    /// `None` for the pseudo-network of unattached ports.
    pub(super) id: Option<NetworkId>,
    pub(super) settings: NetworkSettings,
    pub(super) table: MacTable,
    /// A port's place is its [`PortIndex`], which is reused after it has left.
    pub(super) ports: Vec<Option<Port>>,
    /// Whether some port listens to others' frames.
    pub(super) has_promiscuous: bool,
    /// Ports to poll each round.
    pub(super) active: Vec<PortIndex>,
    /// Whether it is on the engine's list of networks with active ports.
    pub(super) awake: bool,
    pub(super) batching: Batching,
    pub(super) loops: LoopReports,
    pub(super) onlookers: Onlookers,
    pub(super) counters: Lasting<NetworkCounters>,
}

/// Those who see a network's frames besides their receivers.
#[derive(Default)]
pub(super) struct Onlookers {
    pub watches: Watches,
    pub mirrors: Mirrors,
}

impl Network {
    fn new(id: Option<NetworkId>, settings: NetworkSettings, seed: u64) -> Network {
        let table = MacTable::new(settings.mac_table_size, settings.mac_aging, seed);
        Network {
            id,
            settings,
            table,
            ports: Vec::new(),
            has_promiscuous: false,
            active: Vec::new(),
            awake: false,
            batching: Batching::new(),
            loops: LoopReports::new(),
            onlookers: Onlookers::default(),
            counters: Lasting::default(),
        }
    }

    /// Makes the pseudo-network of unattached ports.
    pub(super) fn unattached() -> Network {
        let settings = NetworkSettings {
            name: String::new(),
            mtu: 0,
            mac_table_size: 1,
            mac_aging: std::time::Duration::ZERO,
        };
        Network::new(None, settings, 0)
    }

    /// Returns its counters.
    pub fn counters(&self) -> Lasting<NetworkCounters> {
        self.counters.clone()
    }

    /// Goes on with these counters, of which it is the only writer.
    pub fn set_counters(&mut self, counters: Lasting<NetworkCounters>) {
        self.counters = counters;
    }

    /// Changes its settings and keeps what it has learned. Another size of the MAC table moves
    /// every entry, which takes long if there are many.
    pub fn set(&mut self, settings: NetworkSettings) {
        self.table.set_limits(settings.mac_table_size, settings.mac_aging);
        self.settings = settings;
    }

    /// Adds a port.
    pub(super) fn join(&mut self, mut port: Port) -> Result<PortIndex, EngineError> {
        self.check_room()?;
        let free = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if free == self.ports.len() {
            self.ports.push(None);
        }
        // It was blocked because of a loop in another network, and watched there.
        port.set_blocked(false);
        port.set_seers(Seers::default());
        self.ports[free] = Some(Port { active: false, touched: false, ..port });
        // Anything that depends on the number of ports grows here, not while frames move.
        self.active.reserve(self.ports.len());
        self.table.reserve_ports(self.ports.len());
        self.ports_changed();
        let index = PortIndex(free as u16);
        self.name_port(index);
        Ok(index)
    }

    /// Checks that there is room for another port.
    pub(super) fn check_room(&self) -> Result<(), EngineError> {
        // Unattached ports must have a place too.
        let most = if self.id.is_some() { MAX_PORTS } else { usize::from(u16::MAX) };
        let has_room = self.ports.len() < most || self.ports.iter().any(Option::is_none);
        if has_room { Ok(()) } else { Err(EngineError::TooManyPorts(most)) }
    }

    /// Removes a port and forgets its addresses.
    pub(super) fn leave(&mut self, index: PortIndex) -> Option<Port> {
        self.table.flush_port(index);
        self.active.retain(|active| *active != index);
        let mut port = self.ports.get_mut(usize::from(index.0))?.take();
        if let Some(port) = &mut port {
            port.set_mirrored(Mirrored::default());
        }
        self.ports_changed();
        self.name_port(index);
        port
    }

    /// Keeps the MAC table in memory that outlives the process: returns its descriptor, for
    /// [`MacImage::read`](crate::MacImage::read). To be called again after
    /// [`Network::set`] with another size. Copies the table, which takes long if it is large.
    ///
    /// # Errors
    /// The memory cannot be made; the table stays where it is.
    pub fn keep_macs(&mut self, epoch: Epoch) -> io::Result<OwnedFd> {
        let fd = self.table.keep(epoch)?;
        (0..self.ports.len()).for_each(|index| self.name_port(PortIndex(index as u16)));
        Ok(fd)
    }

    /// Tells the kept table which port has this index.
    pub(super) fn name_port(&mut self, index: PortIndex) {
        if self.table.is_kept() {
            let port = self.ports.get(usize::from(index.0)).and_then(Option::as_ref);
            self.table.set_identity(index, port.map(|port| identity(&port.settings.name)));
        }
    }

    /// Learns addresses that an earlier process had learned; returns how many.
    pub(super) fn import_macs(&mut self, macs: &[KeptMac], epoch: Epoch, now: Time) -> usize {
        let ports = (0..).map(PortIndex).zip(&self.ports);
        let plugged = ports.filter_map(|(index, port)| {
            let settings = &port.as_ref()?.settings;
            settings.cable.then(|| (identity(&settings.name), (index, &settings.vlan)))
        });
        let plugged: HashMap<u64, (PortIndex, &VlanMode)> = plugged.collect();
        let table = &mut self.table;
        let is_learned = |mac: &&KeptMac| {
            let port = plugged.get(&mac.port).filter(|(_, vlans)| vlans.carries(mac.vlan));
            port.is_some_and(|(index, _)| table.import(mac, *index, epoch, now))
        };
        macs.iter().filter(is_learned).count()
    }

    /// Updates what depends on all ports after one or its settings have changed.
    pub(super) fn ports_changed(&mut self) {
        for index in self.onlookers.mirrors.tell(&mut self.ports) {
            self.table.flush_port(index);
        }
        // Unattached ports send nothing.
        if self.id.is_some() {
            let ports = (0..).map(PortIndex).zip(&self.ports);
            self.table.set_static(ports.filter_map(|(index, port)| {
                let Port { settings, .. } = port.as_ref()?;
                let vlan = settings.vlan.ingress(None).ok()?;
                Some(StaticEntry { port: index, vlan, mac: settings.filter.own_address? })
            }));
        }
        let mut ports = self.ports.iter().flatten();
        self.has_promiscuous =
            ports.any(|port| port.settings.filter.promiscuous != Promiscuous::Deny);
    }
}

/// Shared by engines between which networks and ports move: they never allocate the same ID twice.
pub(crate) struct IdAllocator {
    /// Keys the hashes; unknown to guests.
    pub(crate) seed: u64,
    next: AtomicU64,
    engines: AtomicU64,
}

impl IdAllocator {
    pub(crate) fn new(seed: u64) -> IdAllocator {
        IdAllocator { seed, next: AtomicU64::new(1), engines: AtomicU64::new(0) }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_engine(&self) -> u64 {
        self.engines.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_watch(&self) -> WatchId {
        WatchId(self.next())
    }

    pub(super) fn next_port(&self) -> PortId {
        PortId(self.next())
    }

    /// Makes a network without ports, for any engine of the group.
    pub(crate) fn new_network(&self, settings: NetworkSettings) -> (NetworkId, Network) {
        let id = NetworkId(self.next());
        let seed = self.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (id, Network::new(Some(id), settings, seed))
    }
}

//! A network as a value: its ports, their rings, what it has learned, its counters.
//!
//! Everything that forwarding one frame needs is in here and nowhere else. So a network moves to
//! another worker by handing this value over, and whatever takes long (making, resizing and freeing
//! a large MAC table) is done to the value by whoever holds it, while no worker waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::batching::Batching;
use crate::counters::NetworkCounters;
use crate::mac_table::{MacTable, PortIndex};
use crate::ports::Port;
use crate::types::{EngineError, NetworkId, NetworkSettings, PortId, Promiscuous};

/// Most ports of one network.
const MAX_PORTS: usize = 4096;

/// A network with everything on it.
pub struct Network {
    /// None: where an engine keeps the ports that are not attached.
    pub(super) id: Option<NetworkId>,
    pub(super) settings: NetworkSettings,
    pub(super) table: MacTable,
    /// A port's place here is its [`PortIndex`], which is used again after it has left.
    pub(super) ports: Vec<Option<Port>>,
    /// Whether some port hears others' frames.
    pub(super) has_listeners: bool,
    /// Ports to look at each round.
    pub(super) active: Vec<PortIndex>,
    /// On the engine's list of networks with active ports.
    pub(super) awake: bool,
    pub(super) batching: Batching,
    pub(super) counters: Arc<NetworkCounters>,
}

impl Network {
    fn new(id: Option<NetworkId>, settings: NetworkSettings, seed: u64) -> Network {
        let table = MacTable::new(settings.mac_table_size, settings.mac_aging, seed);
        Network {
            id,
            settings,
            table,
            ports: Vec::new(),
            has_listeners: false,
            active: Vec::new(),
            awake: false,
            batching: Batching::new(),
            counters: Arc::default(),
        }
    }

    /// The place of ports that are not attached.
    pub(super) fn unattached() -> Network {
        let settings = NetworkSettings {
            name: String::new(),
            mtu: 0,
            mac_table_size: 1,
            mac_aging: std::time::Duration::ZERO,
        };
        Network::new(None, settings, 0)
    }

    /// What it did so far.
    pub fn counters(&self) -> Arc<NetworkCounters> {
        Arc::clone(&self.counters)
    }

    /// Changes its settings; what it has learned stays. Another size of the MAC table moves every
    /// entry, which takes long when there are many.
    pub fn set(&mut self, settings: NetworkSettings) {
        self.table.set_limits(settings.mac_table_size, settings.mac_aging);
        self.settings = settings;
    }

    /// Takes a port in.
    pub(super) fn join(&mut self, port: Port) -> Result<PortIndex, EngineError> {
        self.check_room()?;
        let free = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if free == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[free] = Some(Port { active: false, touched: false, ..port });
        // Nothing that depends on the number of ports grows while frames move.
        self.active.reserve(self.ports.len());
        self.table.reserve_ports(self.ports.len());
        self.look_for_listeners();
        Ok(PortIndex(free as u16))
    }

    /// Whether a port can be taken in.
    pub(super) fn check_room(&self) -> Result<(), EngineError> {
        // Ports that are not attached have to be somewhere.
        let most = if self.id.is_some() { MAX_PORTS } else { usize::from(u16::MAX) };
        let has_room = self.ports.len() < most || self.ports.iter().any(Option::is_none);
        if has_room { Ok(()) } else { Err(EngineError::TooManyPorts(most)) }
    }

    /// Lets a port go, and forgets its addresses.
    pub(super) fn leave(&mut self, index: PortIndex) -> Option<Port> {
        self.table.flush_port(index);
        self.active.retain(|active| *active != index);
        let port = self.ports.get_mut(usize::from(index.0))?.take();
        self.look_for_listeners();
        port
    }

    /// Notes whether a port hears others' frames, after ports or their settings have changed.
    pub(super) fn look_for_listeners(&mut self) {
        let mut ports = self.ports.iter().flatten();
        self.has_listeners =
            ports.any(|port| port.settings.filter.promiscuous != Promiscuous::Deny);
    }
}

/// What engines share between which networks and ports move: they never give the same name twice.
pub(crate) struct Names {
    /// Keys hashes; unknown to guests.
    pub(crate) seed: u64,
    next: AtomicU64,
}

impl Names {
    pub(crate) fn new(seed: u64) -> Names {
        Names { seed, next: AtomicU64::new(1) }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn port(&self) -> PortId {
        PortId(self.next())
    }

    /// A network without ports, for whichever engine takes it in.
    pub(crate) fn network(&self, settings: NetworkSettings) -> (NetworkId, Network) {
        let id = NetworkId(self.next());
        let seed = self.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (id, Network::new(Some(id), settings, seed))
    }
}

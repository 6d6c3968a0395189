//! One worker's state: networks, ports, rings, tables. No thread, no clock.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use trama_frame::offload::Offloads;
use trama_virtqueue::{GuestMemory, RingError, RingSetup};

use crate::counters::PortCounters;
use crate::mac_table::FdbEntry;
use crate::ports::Device;
use crate::ports::vhost::RingFds;
use crate::time::Time;
use crate::vlan::VlanMode;

/// Names a network of an engine for as long as it lives; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkId(pub(crate) u32);

/// Names a port of an engine for as long as it lives; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub(crate) u32);

/// What a network is told about itself.
#[derive(Clone, PartialEq, Debug)]
pub struct NetworkSettings {
    /// Its name, for messages.
    pub name: String,
    /// The largest layer-3 packet, in bytes.
    pub mtu: u16,
    /// How many addresses the MAC table holds.
    pub mac_table_size: usize,
    /// How long an address is remembered after it was last seen.
    pub mac_aging: Duration,
}

/// What a port is told about itself; all of it can change while it carries traffic.
#[derive(Clone, PartialEq, Debug)]
pub struct PortSettings {
    /// Its name, for messages.
    pub name: String,
    /// The network it is plugged into; none: not attached, nothing passes.
    pub network: Option<NetworkId>,
    /// Its VLANs.
    pub vlan: VlanMode,
    /// Whether the cable is in.
    pub cable: bool,
}

/// Why the engine refused a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The port does not exist (any more).
    #[error("port {} does not exist in this worker", .0.0)]
    NoSuchPort(PortId),
    /// The network does not exist (any more).
    #[error("network {} does not exist in this worker", .0.0)]
    NoSuchNetwork(NetworkId),
    /// No room for another port.
    #[error("a worker holds at most {0} ports")]
    TooManyPorts(usize),
    /// A ring operation on a port that has no rings.
    #[error("the port has no rings: it is not a vhost-user port")]
    NotVhost,
    /// A ring index beyond the device's queue pairs.
    #[error("ring {index} is beyond the device's {rings} rings")]
    NoSuchRing {
        /// The index asked for.
        index: usize,
        /// How many the device has.
        rings: usize,
    },
    /// The ring is not started.
    #[error("ring {0} is not started")]
    NotStarted(usize),
    /// The ring cannot be used as set up.
    #[error("ring {index}: {error}")]
    Ring {
        /// Which ring.
        index: usize,
        /// What is wrong with it.
        error: RingError,
    },
    /// A descriptor cannot be waited for.
    #[error("the kick descriptor of ring {index} cannot be waited for: {error}; an eventfd is needed")]
    Kick {
        /// Which ring.
        index: usize,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Why a port stopped working until it is started anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortFault {
    /// The driver broke the rules of a ring.
    Ring {
        /// Which ring.
        index: usize,
        /// Which rule.
        error: RingError,
    },
    /// A page of the driver's memory vanished.
    MemoryLost,
    /// The device was deleted.
    DeviceGone,
}

/// One worker's state.
pub struct Engine {}

impl Engine {
    /// An engine without networks and ports. `seed` keys its hashes.
    pub fn new(seed: u64) -> Engine {
        let _ = seed;
        Engine {}
    }

    /// Adds a network.
    pub fn add_network(&mut self, settings: NetworkSettings) -> NetworkId {
        let _ = settings;
        NetworkId(0)
    }

    /// Changes a network in place.
    pub fn set_network(&mut self, id: NetworkId, settings: NetworkSettings) -> Result<(), EngineError> {
        let _ = settings;
        Err(EngineError::NoSuchNetwork(id))
    }

    /// Removes a network; its ports become not attached.
    pub fn remove_network(&mut self, id: NetworkId) -> Result<(), EngineError> {
        Err(EngineError::NoSuchNetwork(id))
    }

    /// Adds a port with its device.
    pub fn add_port(
        &mut self,
        settings: PortSettings,
        device: Device,
    ) -> Result<(PortId, Arc<PortCounters>), EngineError> {
        let _ = (settings, device);
        Err(EngineError::TooManyPorts(0))
    }

    /// Changes a port in place.
    pub fn set_port(&mut self, id: PortId, settings: PortSettings) -> Result<(), EngineError> {
        let _ = settings;
        Err(EngineError::NoSuchPort(id))
    }

    /// Removes a port and drops its device.
    pub fn remove_port(&mut self, id: PortId) -> Result<(), EngineError> {
        Err(EngineError::NoSuchPort(id))
    }

    /// The addresses that a network has learned.
    pub fn fdb(&self, network: NetworkId, now: Time) -> Vec<(PortId, FdbEntry)> {
        let _ = (network, now);
        Vec::new()
    }

    /// Forgets the learned addresses of one network or of all.
    pub fn flush_fdb(&mut self, network: Option<NetworkId>) {
        let _ = network;
    }

    /// Which unfinished frames the port's receiver takes (`VIRTIO_NET_F_GUEST_*`).
    pub fn set_offloads(&mut self, port: PortId, offloads: Offloads) {
        let _ = (port, offloads);
    }

    /// Gives the port's rings a new memory map.
    pub fn set_memory(&mut self, port: PortId, memory: Arc<GuestMemory>) -> Result<(), EngineError> {
        let _ = memory;
        Err(EngineError::NoSuchPort(port))
    }

    /// Starts ring `index` (2n: the driver's receive ring, 2n + 1: its transmit ring).
    pub fn start_ring(
        &mut self,
        port: PortId,
        index: usize,
        setup: RingSetup,
        fds: RingFds,
    ) -> Result<(), EngineError> {
        let _ = (index, setup, fds);
        Err(EngineError::NoSuchPort(port))
    }

    /// Replaces the call descriptor of a started ring.
    pub fn set_call(&mut self, port: PortId, index: usize, call: Option<OwnedFd>) {
        let _ = (port, index, call);
    }

    /// Replaces the kick descriptor of a started ring.
    pub fn set_kick(&mut self, port: PortId, index: usize, kick: Option<OwnedFd>) -> Result<(), EngineError> {
        let _ = (index, kick);
        Err(EngineError::NoSuchPort(port))
    }

    /// Stops a ring and says at which index it resumes.
    pub fn stop_ring(&mut self, port: PortId, index: usize) -> Result<u16, EngineError> {
        let _ = index;
        Err(EngineError::NoSuchPort(port))
    }

    /// The frontend is gone: drops all rings, forgets the port's addresses and its fault.
    pub fn detach(&mut self, port: PortId) {
        let _ = port;
    }

    /// The ports that broke since this was last asked.
    pub fn broken_ports(&mut self) -> Vec<(PortId, PortFault)> {
        Vec::new()
    }

    /// What is wrong with a port, until its rings are started anew or it is detached.
    pub fn port_fault(&self, port: PortId) -> Option<PortFault> {
        let _ = port;
        None
    }

    /// An eventfd that is written when the port breaks, so that nobody needs to ask in turn.
    pub fn set_fault_event(&mut self, port: PortId, event: Option<OwnedFd>) -> Result<(), EngineError> {
        let _ = event;
        Err(EngineError::NoSuchPort(port))
    }

    /// One round over the active ports; true: something moved.
    pub fn poll(&mut self, now: Time) -> bool {
        let _ = now;
        false
    }
}

//! What control says to an engine and hears from it: names, settings, errors, faults.

use std::fmt;
use std::time::Duration;

use trama_frame::MacAddr;
use trama_virtqueue::RingError;

use crate::vlan::VlanMode;

/// Names a network for as long as it lives, wherever it is; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkId(pub(crate) u64);

/// Names a port for as long as it lives, wherever it is; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub(crate) u64);

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
    /// What it may receive and send.
    pub filter: PortFilter,
    /// A number for receivers that want to know by which port a frame came; 0 if it has none.
    pub mark: u16,
    /// Whether each frame's header tells the device behind the port the mark of the port that the
    /// frame came by, in `hdr_len`. Not for virtio drivers, to which the field means something
    /// else.
    pub is_told_marks: bool,
}

/// What a port may receive beside what is for it, and as whom it may send.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortFilter {
    /// Whose frames it receives beside its own.
    pub promiscuous: Promiscuous,
    /// Who is behind it.
    pub station: Station,
    /// Whether it leads out of the network's own machines: to the host, to a LAN.
    pub is_outside: bool,
    /// Whether a frame with another source than [`Station::Known`] is dropped.
    pub refuses_forged: bool,
}

impl PortFilter {
    /// The one source that the port's frames may have, if they may not have any.
    pub(crate) fn only_source(&self) -> Option<MacAddr> {
        match self.station {
            Station::Known(mac) if self.refuses_forged => Some(mac),
            _ => None,
        }
    }
}

/// Whose frames a port receives beside its own, with the meaning that VirtualBox gives the words.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Promiscuous {
    /// Nobody's: what is for it, broadcast and multicast.
    #[default]
    Deny,
    /// What machines of the network send each other, too.
    AllowVms,
    /// All frames of the network.
    AllowAll,
}

/// Who is behind a port, and so which frames to an address that nobody has learned are for it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Station {
    /// Anybody: all such frames.
    #[default]
    Many,
    /// A guest, whose addresses are those it sends from: those for them, and all before it has sent
    /// a frame and while it sends from several.
    Learned,
    /// A guest with this address: those for it, and unless forged sources are refused also those
    /// for the others that it sends from, and all while those are several.
    Known(MacAddr),
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
    #[error("a network holds at most {0} ports")]
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
    /// A device cannot be waited for.
    #[error("the device cannot be waited for: {0}")]
    Watch(std::io::Error),
    /// A descriptor cannot be waited for.
    #[error(
        "the kick descriptor of ring {index} cannot be waited for: {error}; it must be an eventfd"
    )]
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
    /// The interface that was joined is down or was deleted.
    UplinkGone,
}

impl fmt::Display for PortFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortFault::Ring { index, error } => write!(f, "ring {index}: {error}"),
            PortFault::MemoryLost => write!(f, "{}", RingError::MemoryLost),
            PortFault::DeviceGone => f.write_str("the device was deleted"),
            PortFault::UplinkGone => f.write_str("the uplink is down or was deleted"),
        }
    }
}

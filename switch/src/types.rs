//! What control and the engine exchange: IDs, settings, errors, faults.

use std::fmt;
use std::time::Duration;

use trama_frame::MacAddr;
use trama_virtqueue::RingError;

use crate::ports::stream::end::StreamEnd;
use crate::storm::StormLimits;
use crate::vlan::VlanMode;

/// Most ports of one network.
pub(crate) const MAX_PORTS: usize = 4096;

/// Identifies a network for its whole life, on any worker; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkId(pub(crate) u64);

impl NetworkId {
    /// Returns its number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Identifies a port for its whole life, on any worker; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub(crate) u64);

/// Settings of a network.
#[derive(Clone, PartialEq, Debug)]
pub struct NetworkSettings {
    /// Its name, for messages.
    pub name: String,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u16,
    /// Most addresses in the MAC table.
    pub mac_table_size: usize,
    /// How long an address is remembered after it was last seen.
    pub mac_aging: Duration,
}

/// Settings of a port; all can change while it carries traffic.
#[derive(Clone, PartialEq, Debug)]
pub struct PortSettings {
    /// Its name, for messages.
    pub name: String,
    /// The network it is attached to; without one (`None`) it carries no frames.
    pub network: Option<NetworkId>,
    /// Its VLAN membership.
    pub vlan: VlanMode,
    /// Whether the cable is plugged in.
    pub cable: bool,
    /// Which frames it may receive and send.
    pub filter: PortFilter,
    /// The port's mark, for receivers that want it; 0 if it has none.
    pub mark: u16,
    /// What `hdr_len` of the frames delivered to it holds.
    pub hdr_len: HdrLen,
}

/// The meaning of the virtio-net header's `hdr_len` in frames that a port receives.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HdrLen {
    /// The length of the frame's headers (virtio 1.2, section 5.1.6).
    #[default]
    Headers,
    /// The mark of the ingress port; not for virtio drivers.
    IngressMark,
}

/// Which frames a port may receive besides its own, and with which source it may send.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortFilter {
    /// Other stations' frames that it receives.
    pub promiscuous: Promiscuous,
    /// The stations behind it.
    pub station: Station,
    /// Whether it leads out of the network's guests: to the host or a LAN.
    pub is_outside: bool,
    /// Which source addresses it may send from.
    pub spoof: Spoof,
    /// The address that only this port may send from, in the VLAN of its untagged frames: a static
    /// entry of the network's MAC table. Of several ports with one address the first has it.
    pub own_address: Option<MacAddr>,
    /// How many flooded frames it may send.
    pub storm: StormLimits,
}

impl PortFilter {
    /// Returns the only source that the port's frames may have, if they are limited to one.
    pub(crate) fn only_source(&self) -> Option<MacAddr> {
        match self.station {
            Station::Known(mac) if self.spoof == Spoof::Deny => Some(mac),
            _ => None,
        }
    }
}

/// Which other stations' frames a port receives. The terms are VirtualBox's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Promiscuous {
    /// None: only frames for the port, broadcast and multicast.
    #[default]
    Deny,
    /// Also frames between guests of the network.
    AllowVms,
    /// All frames of the network, including those of the host and the LAN.
    AllowAll,
}

impl Promiscuous {
    /// Every value.
    pub const ALL: [Promiscuous; 3] =
        [Promiscuous::Deny, Promiscuous::AllowVms, Promiscuous::AllowAll];

    /// Returns its word in configurations and commands.
    pub fn name(self) -> &'static str {
        match self {
            Promiscuous::Deny => "deny",
            Promiscuous::AllowVms => "allow-vms",
            Promiscuous::AllowAll => "allow-all",
        }
    }
}

impl fmt::Display for Promiscuous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which source addresses a port may send from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Spoof {
    /// Any unicast address.
    #[default]
    Allow,
    /// Only that of [`Station::Known`]; other frames are dropped.
    Deny,
}

impl Spoof {
    /// Every value.
    pub const ALL: [Spoof; 2] = [Spoof::Allow, Spoof::Deny];

    /// Returns its word in configurations and commands.
    pub fn name(self) -> &'static str {
        match self {
            Spoof::Allow => "allow",
            Spoof::Deny => "deny",
        }
    }
}

impl fmt::Display for Spoof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The stations behind a port, and so the unknown unicast frames that may be for them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Station {
    /// Any stations: all such frames.
    #[default]
    Many,
    /// A guest whose addresses are those it sends from: frames for these, and all such frames
    /// before it has sent one and while it sends from several.
    Learned,
    /// A guest with this address: frames for it. Unless forged sources are refused, also those for
    /// other addresses that it sends from, and all while it sends from several.
    Known(MacAddr),
}

/// Why the engine refused a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The port does not exist.
    #[error("port {} does not exist in this worker", .0.0)]
    NoSuchPort(PortId),
    /// The network does not exist.
    #[error("network {} does not exist in this worker", .0.0)]
    NoSuchNetwork(NetworkId),
    /// No room for another port.
    #[error("a network holds at most {0} ports")]
    TooManyPorts(usize),
    /// No room for another watch.
    #[error("a network has at most {0} captures at a time; end one of them first")]
    TooManyWatches(usize),
    /// More mirrors than a network can have.
    #[error("a network has at most {0} mirrors")]
    TooManyMirrors(usize),
    /// The watch has ended, or is another network's.
    #[error("the capture has ended")]
    NoSuchWatch,
    /// A ring operation on a port that has no rings.
    #[error("the port has no rings: it is not a vhost-user port")]
    NotVhost,
    /// A connection for a port that takes none.
    #[error("the port takes no connections: it is not a stream port")]
    NotStream,
    /// Tunnels for a port that receives none.
    #[error("the port receives for no tunnels")]
    NotVtep,
    /// A ring index beyond the device's queue pairs.
    #[error("ring {index} does not exist: the device has {rings} rings")]
    NoSuchRing {
        /// The requested index.
        index: usize,
        /// Number of rings of the device.
        rings: usize,
    },
    /// The ring is not started.
    #[error("ring {0} is not started")]
    NotStarted(usize),
    /// The ring cannot be used as set up.
    #[error("ring {index}: {error}")]
    Ring {
        /// Index of the ring.
        index: usize,
        /// The error.
        error: RingError,
    },
    /// The device's descriptor cannot be registered with epoll.
    #[error("cannot wait for the device: {0}")]
    Watch(std::io::Error),
    /// A ring's descriptor cannot be registered with epoll.
    #[error("cannot wait for the kick descriptor of ring {index}: {error}; it must be an eventfd")]
    Kick {
        /// Index of the ring.
        index: usize,
        /// The system's error.
        error: std::io::Error,
    },
}

/// Why a port stopped working until it is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortFault {
    /// The driver broke the rules of a ring.
    Ring {
        /// Index of the ring.
        index: usize,
        /// The broken rule.
        error: RingError,
    },
    /// A page of the driver's memory vanished.
    MemoryLost,
    /// The device was deleted.
    DeviceGone,
    /// The joined interface is down or was deleted.
    UplinkGone,
    /// The connection of a stream port has ended.
    StreamEnded(StreamEnd),
}

impl fmt::Display for PortFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortFault::Ring { index, error } => write!(f, "ring {index}: {error}"),
            PortFault::MemoryLost => write!(f, "{}", RingError::MemoryLost),
            PortFault::DeviceGone => f.write_str("the device was deleted"),
            PortFault::StreamEnded(end) => end.fmt(f),
            PortFault::UplinkGone => f.write_str("the interface is down or was deleted"),
        }
    }
}

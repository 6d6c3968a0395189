//! A `[[port]]` table.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use trama_frame::MacAddr;
pub use trama_switch::{Promiscuous, Spoof, StormLimits};
pub use trama_vhost_net_backend::{MemoryLimits, Role};

use super::openvswitch::Kept;
use super::rule::Rule;
use super::socket::SocketAccess;
use super::tunnel::Vxlan;
use super::vlan::Vlan;
use super::wire::{Dgram, Stream};

/// The storm limits of a port that states none. The ARP requests of 1000 guests are below 2000 a
/// second, a loop is above 25,000.
pub const STORM: StormLimits = StormLimits { broadcast: 10_000, multicast: 0, unknown: 0 };

/// What is done where a loop is proved at a port.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum LoopMode {
    /// Loops are not looked for at the port: it sends no probes.
    Off,
    /// A warning.
    Detect,
    /// The port is blocked until the loop is gone.
    #[default]
    Block,
}

impl LoopMode {
    /// Every value.
    pub const ALL: [LoopMode; 3] = [LoopMode::Off, LoopMode::Detect, LoopMode::Block];

    /// Returns its word in configurations and commands.
    pub fn name(self) -> &'static str {
        match self {
            LoopMode::Off => "off",
            LoopMode::Detect => "detect",
            LoopMode::Block => "block",
        }
    }
}

/// A port of the switch and the device that plugs into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Unique name.
    pub name: String,
    /// The network it is on; `None` = not attached.
    pub network: Option<String>,
    /// VLAN mode and tags.
    pub vlan: Vlan,
    /// Whether the cable is plugged in.
    pub cable: bool,
    /// Which unicast frames it receives in addition to its own.
    pub promiscuous: Promiscuous,
    /// The MAC address of the guest behind it; `None` = learned.
    pub mac: Option<MacAddr>,
    /// IP addresses that the guest uses without asking DHCP.
    pub addresses: Vec<IpAddr>,
    /// Host names that the network's DNS answers with these addresses.
    pub names: Vec<String>,
    /// Whether the guest may send from other MAC addresses.
    pub spoof: Spoof,
    /// How many flooded frames the guest may send a second.
    pub storm: StormLimits,
    /// What is done about loops.
    pub loop_mode: LoopMode,
    /// The device that plugs in.
    pub interface: Interface,
    /// Whether the network of the same name created it; such a port has no `[[port]]` table.
    pub of_network: bool,
    /// Whether it is in no file and ends with the daemon, by its own setting.
    pub ephemeral: bool,
    /// The stream port one of whose further connections it is; such a port is not in the file, and
    /// ends with its connection.
    pub connection_of: Option<String>,
    /// Which users may connect to its socket.
    pub socket: SocketAccess,
    /// How much memory its guest may share.
    pub memory: MemoryLimits,
    /// Forwards to the guest, on a network with NAT.
    pub forward: Vec<Rule>,
    /// Free-form data of management software; trama does not read it.
    pub external_ids: BTreeMap<String, String>,
    /// Columns of Open vSwitch's Port that are kept.
    pub openvswitch: Kept,
    /// Columns of Open vSwitch's Interface that are kept.
    pub openvswitch_interface: Kept,
}

impl Port {
    /// A port with default settings that is not attached.
    pub fn new(name: impl Into<String>, interface: Interface) -> Self {
        Self {
            name: name.into(),
            network: None,
            vlan: Vlan::default(),
            cable: true,
            promiscuous: Promiscuous::Deny,
            mac: None,
            addresses: Vec::new(),
            names: Vec::new(),
            spoof: Spoof::Allow,
            storm: STORM,
            loop_mode: LoopMode::default(),
            interface,
            of_network: false,
            connection_of: None,
            ephemeral: false,
            socket: SocketAccess::default(),
            memory: MemoryLimits::default(),
            forward: Vec::new(),
            external_ids: BTreeMap::new(),
            openvswitch: Kept::new(),
            openvswitch_interface: Kept::new(),
        }
    }

    /// Whether the port is not in the file.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral || self.is_connection()
    }

    /// Whether it is a further connection of a stream port.
    pub fn is_connection(&self) -> bool {
        self.connection_of.is_some()
    }

    /// Whether it ends with a connection, which no other follows.
    pub fn ends_with_connection(&self) -> bool {
        let kind = match &self.interface {
            Interface::Attached(Attached { kind, .. }) => Some(*kind),
            _ => None,
        };
        self.is_connection() || kind == Some(AttachedKind::Stream)
    }

    /// Whether the port is attached to the network of this name.
    pub fn is_on(&self, network: &str) -> bool {
        self.network.as_deref() == Some(network)
    }
}

/// The device on a port.
#[derive(Clone, Debug, PartialEq)]
pub enum Interface {
    /// A virtio-net device served over a vhost-user socket.
    VhostUser(VhostUser),
    /// A TAP device of the kernel.
    Tap(Tap),
    /// A byte stream with each frame after its length.
    Stream(Stream),
    /// Datagrams with a frame each.
    Dgram(Dgram),
    /// A tunnel to another host.
    Vxlan(Vxlan),
    /// An existing interface of the host or of a namespace.
    System(System),
    /// A device or socket whose descriptor a client has handed over; such a port is ephemeral.
    Attached(Attached),
    /// An existing interface of the host that leads to its LAN; only networks create such ports.
    Uplink(Uplink),
}

/// An existing interface that joins the network.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    /// Its name.
    pub ifname: String,
    /// The network namespace that it is in, by name or absolute path; `None` = the daemon's.
    pub netns: Option<String>,
    /// Whether it may join even if it carries the host's default route.
    pub confirm_uplink: bool,
}

/// A device or socket whose descriptor was handed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// What it is.
    pub kind: AttachedKind,
    /// The name of a TAP in its namespace, or the address of a socket: a path, `@NAME`, an address
    /// with a port, or empty.
    pub place: String,
    /// Under which the descriptor is held; no other has the same.
    pub id: u64,
}

/// What was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedKind {
    /// A TAP.
    Tap,
    /// A connected stream socket; the port ends with the connection.
    Stream,
    /// A connected datagram socket.
    Dgram,
    /// A listening Unix socket, to which a vhost-user frontend connects.
    VhostUser,
}

impl AttachedKind {
    /// The type of its interface.
    pub fn name(self) -> &'static str {
        match self {
            AttachedKind::Tap => "tap",
            AttachedKind::Stream => "stream",
            AttachedKind::Dgram => "dgram",
            AttachedKind::VhostUser => "vhost-user",
        }
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            AttachedKind::Tap => "TAP",
            AttachedKind::Stream => "stream socket",
            AttachedKind::Dgram => "datagram socket",
            AttachedKind::VhostUser => "vhost-user socket",
        };
        match self.place.as_str() {
            "" => write!(f, "attached {what}"),
            place => write!(f, "attached {what} {place}"),
        }
    }
}

/// An interface of the host that a network joins.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Its name.
    pub ifname: String,
}

/// A vhost-user socket.
#[derive(Clone, Debug, PartialEq)]
pub struct VhostUser {
    /// The socket's path; a relative or empty one is below the daemon's run folder
    /// ([`Folders::socket`](trama_api::folders::Folders::socket)).
    pub path: PathBuf,
    /// Which end listens.
    pub role: Role,
    /// Queue pairs, at least 1.
    pub queues: u16,
}

impl Interface {
    /// Returns its type, as in configurations and commands; empty for an uplink, which neither has.
    pub fn type_name(&self) -> &'static str {
        match self {
            Interface::VhostUser(_) => "vhost-user",
            Interface::Tap(_) => "tap",
            Interface::Attached(attached) => attached.kind.name(),
            Interface::Stream(_) => "stream",
            Interface::Dgram(_) => "dgram",
            Interface::Vxlan(_) => "vxlan",
            Interface::System(_) => "system",
            Interface::Uplink(_) => "",
        }
    }

    /// The network namespace that its device is in, if one is stated.
    pub fn netns(&self) -> Option<&str> {
        match self {
            Interface::Tap(Tap { netns, .. }) | Interface::System(System { netns, .. }) => {
                netns.as_deref()
            }
            Interface::VhostUser(_)
            | Interface::Stream(_)
            | Interface::Dgram(_)
            | Interface::Vxlan(_)
            | Interface::Attached(_)
            | Interface::Uplink(_) => None,
        }
    }
}

/// A TAP device.
#[derive(Clone, Debug, PartialEq)]
pub struct Tap {
    /// The device's name.
    pub ifname: String,
    /// The network namespace it lives in, by name or absolute path; `None` = the daemon's.
    pub netns: Option<String>,
    /// Addresses it is given, with prefix lengths.
    pub address: Vec<IpNet>,
}

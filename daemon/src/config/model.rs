//! The validated configuration as plain values.
//!
//! Everything that decides (validation, planning, the commands of `tramactl`) works on these
//! values; only `parse` and `edit` know that they come from TOML.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use trama_frame::MacAddr;
use trama_nat::Discovery;

use super::dhcp::DhcpSetting;
use super::folders::Folders;
use super::rule::Rule;
use super::socket::{SocketAccess, SocketMode};
use super::subnet::{self, Subnet};

/// The whole configuration. Names are unique per kind; order is that of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Config {
    /// The `[daemon]` table.
    pub daemon: DaemonConfig,
    /// The `[[network]]` tables.
    pub networks: Vec<Network>,
    /// The `[[port]]` tables.
    pub ports: Vec<Port>,
}

impl Config {
    /// The network of this name.
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// The port of this name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The ports of the file and, after them, those that networks bring along.
    pub fn all_ports(&self) -> impl Iterator<Item = Cow<'_, Port>> {
        let own = self.networks.iter().filter_map(Network::own_port);
        self.ports.iter().map(Cow::Borrowed).chain(own.map(Cow::Owned))
    }
}

/// What concerns the daemon as a whole. Most changes here need a restart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DaemonConfig {
    /// Where files are that are not placed here; no key.
    #[serde(skip)]
    pub folders: Folders,
    /// The control socket.
    pub control: PathBuf,
    /// The group that may use it; `None` = the daemon's own.
    pub group: Option<String>,
    /// The group of ports' sockets that state none. In force at once, as what follows.
    pub socket_group: Option<String>,
    /// The mode of ports' sockets that state none.
    pub socket_mode: Option<SocketMode>,
    /// Where state that must survive a restart is kept.
    pub state: PathBuf,
    /// Where Prometheus scrapes; `None` = nowhere.
    pub metrics: Option<SocketAddr>,
    /// Data-plane threads, at least 1.
    pub workers: usize,
    /// How long an idle worker looks before it sleeps.
    pub spin: Spin,
}

/// How long an idle worker looks for frames before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spin {
    /// Looks for this long after the last frame; zero = sleeps at once.
    For(Duration),
    /// Never sleeps.
    Always,
}

/// What a network offers beside the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Ports talk to each other and to nobody else.
    Internal,
    /// And to the host, by an interface of it that bears the network's name.
    HostOnly,
    /// And to whatever is behind an interface of the host, and to the host.
    Bridged,
    /// Each port alone with a gateway of its own, through which it reaches what the host does.
    Nat,
    /// Ports talk to each other, and reach what the host does through a gateway.
    NatNetwork,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Internal, Self::HostOnly, Self::Bridged, Self::Nat, Self::NatNetwork];

    /// As it is spelled in files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::HostOnly => "host-only",
            Self::Bridged => "bridged",
            Self::Nat => "nat",
            Self::NatNetwork => "nat-network",
        }
    }
}

/// One layer-2 domain; a *bridge* in the OVS-like commands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// Unique name.
    pub name: String,
    /// What it offers beside the switch.
    pub mode: Mode,
    /// Its subnets as they are written, at most one of each IP version. [`Network::subnets`] are
    /// those in force, [`Network::places`] says whose which address is.
    pub subnet: Vec<Subnet>,
    /// The host's interface that `bridged` joins.
    pub uplink: Option<String>,
    /// Largest layer-3 packet in bytes (68..=65521).
    pub mtu: u16,
    /// Most MAC addresses that are remembered.
    pub mac_table_size: usize,
    /// How long a silent MAC address is remembered.
    pub mac_aging: Duration,
    /// Names that its gateway's DNS knows beside those of the host's resolvers.
    pub hosts: BTreeMap<String, IpAddr>,
    /// The folder below which its gateway serves files by TFTP; `None` = none.
    pub tftp: Option<PathBuf>,
    /// How its machines are told their addresses; [`Network::dhcp`] is what is in force.
    pub dhcp: DhcpSetting,
    /// Ports of the host that lead to its machines.
    pub forward: Vec<Rule>,
    /// Ports of its gateway that lead to the host's loopback.
    pub loopback: Vec<Rule>,
    /// By which protocols its machines find what is on the host's links.
    pub reflect: Vec<Discovery>,
    /// Free-form notes of management software; trama does not read them.
    pub external_ids: BTreeMap<String, String>,
}

impl Network {
    /// A network with the settings that a file need not state.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mode: Mode::Internal,
            subnet: Vec::new(),
            uplink: None,
            mtu: 1500,
            mac_table_size: 8192,
            mac_aging: Duration::from_secs(300),
            hosts: BTreeMap::new(),
            tftp: None,
            dhcp: DhcpSetting::default(),
            forward: Vec::new(),
            loopback: Vec::new(),
            reflect: Vec::new(),
            external_ids: BTreeMap::new(),
        }
    }

    /// The subnets in force: some modes have them even if none is written.
    pub fn subnets(&self) -> Vec<Subnet> {
        match self.mode {
            Mode::HostOnly if self.subnet.is_empty() => vec![DEFAULT_HOST_ONLY],
            Mode::Nat | Mode::NatNetwork => self.nat_subnets(),
            _ => self.subnet.clone(),
        }
    }

    /// Whether a gateway of ours is on it.
    pub fn has_gateway(&self) -> bool {
        match self.mode {
            Mode::Internal => !self.subnet.is_empty(),
            Mode::HostOnly => self.dhcp().is_some(),
            Mode::Bridged => false,
            Mode::Nat | Mode::NatNetwork => true,
        }
    }

    /// The port that the network brings along, named as itself: the host's interface of a
    /// host-only network, the uplink of a bridged one.
    pub fn own_port(&self) -> Option<Port> {
        let interface = match self.mode {
            Mode::Internal | Mode::Nat | Mode::NatNetwork => return None,
            Mode::HostOnly => {
                let first = |subnet: &Subnet| (subnet::first_host(subnet), subnet.1);
                let address = self.subnets().iter().map(first).collect();
                Interface::Tap(Tap { ifname: self.name.clone(), netns: None, address })
            }
            Mode::Bridged => Interface::Uplink(Uplink { ifname: self.uplink.clone()? }),
        };
        Some(Port {
            network: Some(self.name.clone()),
            own: true,
            ..Port::new(&self.name, interface)
        })
    }
}

/// VirtualBox's choice.
const DEFAULT_HOST_ONLY: Subnet = (IpAddr::V4(Ipv4Addr::new(192, 168, 56, 0)), 24);

/// A place on a network where something plugs in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Port {
    /// Unique name.
    pub name: String,
    /// The network it is on; `None` = not attached.
    pub network: Option<String>,
    /// VLAN mode and tags.
    pub vlan: Vlan,
    /// Whether the cable is plugged in.
    pub cable: bool,
    /// Whose frames it receives beside its own.
    pub promiscuous: Promiscuous,
    /// The hardware address of the machine behind it.
    #[serde(serialize_with = "as_text")]
    pub mac: Option<MacAddr>,
    /// Whether that machine may send as others.
    pub spoof: bool,
    /// What plugs in.
    pub interface: Interface,
    /// Whether it comes with its network, whose name it bears; no `[[port]]` stands for it.
    #[serde(skip)]
    pub own: bool,
    /// Which users may connect to its socket.
    pub socket: SocketAccess,
    /// Ports of the host that lead to the machine, on a network of mode `nat`.
    pub forward: Vec<Rule>,
    /// Free-form notes of management software; trama does not read them.
    pub external_ids: BTreeMap<String, String>,
}

impl Port {
    /// A port with the settings that a file need not state, not attached.
    pub fn new(name: impl Into<String>, interface: Interface) -> Self {
        Self {
            name: name.into(),
            network: None,
            vlan: Vlan::default(),
            cable: true,
            promiscuous: Promiscuous::Deny,
            mac: None,
            spoof: true,
            interface,
            own: false,
            socket: SocketAccess::default(),
            forward: Vec::new(),
            external_ids: BTreeMap::new(),
        }
    }
}

fn as_text<S: Serializer>(mac: &Option<MacAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    mac.map(|mac| mac.to_string()).serialize(serializer)
}

/// Whose frames a port receives beside its own; VirtualBox's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promiscuous {
    /// Nobody's.
    Deny,
    /// Those that machines of the network send each other.
    AllowVms,
    /// All of the network, also those of the host and the LAN.
    AllowAll,
}

impl Promiscuous {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deny, Self::AllowVms, Self::AllowAll];

    /// As it is spelled in files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::AllowVms => "allow-vms",
            Self::AllowAll => "allow-all",
        }
    }
}

/// VLAN settings as they are written; the mode that follows from them is `mode_or_default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vlan {
    /// The access or native VLAN, 0..=4095.
    pub tag: Option<u16>,
    /// VLANs carried by a trunk; empty = all.
    pub trunks: Vec<u16>,
    /// The mode, where it is stated.
    pub mode: Option<VlanMode>,
}

/// The four VLAN modes of Open vSwitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VlanMode {
    /// One VLAN, untagged on the wire.
    Access,
    /// Tagged frames of the listed VLANs.
    Trunk,
    /// A trunk whose native VLAN leaves tagged.
    NativeTagged,
    /// A trunk whose native VLAN leaves untagged.
    NativeUntagged,
}

impl VlanMode {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Access, Self::Trunk, Self::NativeTagged, Self::NativeUntagged];

    /// As it is spelled in files and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Trunk => "trunk",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
        }
    }
}

impl Vlan {
    /// The mode in force: the stated one, else access if a tag is set, else trunk.
    pub fn mode_or_default(&self) -> VlanMode {
        self.mode.unwrap_or(if self.tag.is_some() { VlanMode::Access } else { VlanMode::Trunk })
    }
}

/// The device on a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Interface {
    /// A virtio-net device served over a vhost-user socket.
    VhostUser(VhostUser),
    /// A TAP device of the kernel.
    Tap(Tap),
    /// An interface of the host that was there before us; only networks bring one along.
    Uplink(Uplink),
}

/// An interface of the host that a network joins.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uplink {
    /// Its name.
    pub ifname: String,
}

/// A vhost-user socket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VhostUser {
    /// The socket's path; if relative or empty, below the daemon's folder ([`Folders::socket`]).
    pub path: PathBuf,
    /// Which end listens.
    pub role: Role,
    /// Queue pairs, at least 1.
    pub queues: u16,
}

/// Which end of a vhost-user socket we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// We listen.
    Server,
    /// We connect, and reconnect for ever.
    Client,
}

/// A TAP device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tap {
    /// The device's name.
    pub ifname: String,
    /// The named network namespace it lives in; `None` = the daemon's.
    pub netns: Option<String>,
    /// Addresses it is given, with prefix lengths.
    pub address: Vec<(IpAddr, u8)>,
}

/// How long an idle worker looks by default. Measured with `ping -f` between two TAPs, round trip and
/// processor time of 20,000: 0 to 40 µs 33–43 µs and 0.56–1.08 s, 50 µs and more 10 µs and 0.44–0.49 s.
/// A sender that was woken by the answer sends again within that time; who sleeps earlier pays for two
/// wake-ups of idle processors on each frame.
const SPIN: Duration = Duration::from_micros(60);

impl Default for DaemonConfig {
    fn default() -> Self {
        Self::at(Folders::system())
    }
}

impl DaemonConfig {
    /// What is in force where nothing is stated.
    pub fn at(folders: Folders) -> Self {
        Self {
            control: folders.control(),
            group: None,
            socket_group: None,
            socket_mode: None,
            state: folders.state.clone(),
            folders,
            metrics: None,
            workers: 1,
            spin: Spin::For(SPIN),
        }
    }
}

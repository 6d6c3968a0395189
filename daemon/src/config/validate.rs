//! The rules that a whole configuration must follow, whatever it was read from.
//!
//! [`validate`] sees plain values: the same rules hold for a file and for a draft that
//! `tramactl` has edited. It reports everything at once, and never looks at the host: whether a
//! directory exists or a device can be made is found out when the port is started.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trama_frame::MacAddr;

use super::model::{
    Config, DaemonConfig, Interface, Mode, Network, Port, Spin, Tap, VhostUser, VlanMode,
};
use super::nat::Listeners;

/// Longest path of a Unix socket: `sun_path` is 108 bytes with its final zero.
const MAX_SOCKET_PATH: usize = 107;
/// Longest name of a network device: `IFNAMSIZ` is 16 with its final zero.
const MAX_IFNAME: usize = 15;
/// Longest name of a network or port; fits every place where names are shown.
const MAX_NAME: usize = 63;
/// Most data-plane threads.
const MAX_WORKERS: usize = 64;
/// Most queue pairs of a vhost-user port.
pub const MAX_QUEUE_PAIRS: u16 = 8;
/// An MTU must leave IPv4 its 68 bytes (RFC 791) and a tagged frame its 16-bit length.
const MTU: std::ops::RangeInclusive<u16> = 68..=65521;
/// Sizes of a MAC table.
const MAC_TABLE_SIZE: std::ops::RangeInclusive<usize> = 16..=1 << 20;
/// Ageing times of a MAC table.
const MAC_AGING: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);
/// Longest bounded spin.
const MAX_SPIN: Duration = Duration::from_secs(1);

/// Which table a problem is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Place {
    /// `[daemon]`.
    Daemon,
    /// `networks[i]`.
    Network(usize),
    /// `networks[i].dhcp`.
    Dhcp(usize),
    /// `networks[i].dhcp.reservations[j]`.
    Reservation(usize, usize),
    /// `ports[i]`.
    Port(usize),
}

/// Something wrong in a [`Config`]. Displayed as `key: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The table.
    pub place: Place,
    /// The key within the table, such as `tag`.
    pub key: &'static str,
    /// The whole path for people, such as `port.vm1.tag`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::write_message(f, &self.path, &self.message, &self.remedy)
    }
}

/// Everything that is wrong in `config`; empty if nothing is.
pub fn validate(config: &Config) -> Vec<Problem> {
    let mut check = Check { place: Place::Daemon, path: "daemon".to_owned(), problems: Vec::new() };
    check.daemon(&config.daemon);
    let mut names = HashMap::new();
    let mut listeners = Listeners::default();
    for (index, network) in config.networks.iter().enumerate() {
        check.enter(Place::Network(index), &network.name);
        check.name("network", &network.name, &mut names);
        check.network(network);
        check.mode(network, &config.networks[..index]);
        check.nat(network, config, &mut listeners);
        check.dhcp(index, network);
    }
    let mut names = HashMap::new();
    let mut claims = Claims::default();
    claims.sockets.insert(config.daemon.control.clone(), "daemon.control".to_owned());
    for network in config.networks.iter().filter(|network| network.mode == Mode::HostOnly) {
        let owner = format!("network.{}", network.name);
        claims.devices.insert((None, network.name.clone()), owner);
    }
    for (index, port) in config.ports.iter().enumerate() {
        check.enter(Place::Port(index), &port.name);
        check.name("port", &port.name, &mut names);
        check.port(port, config, &mut claims);
        check.port_forwards(port, config, &mut listeners);
    }
    check.problems
}

/// The path for people of a table: its name if it has one, its number if not.
pub(super) fn table_path(place: Place, name: &str) -> String {
    let (kind, index) = match place {
        Place::Daemon => return "daemon".to_owned(),
        Place::Network(index) => ("network", index),
        Place::Dhcp(index) => return table_path(Place::Network(index), name) + ".dhcp",
        Place::Reservation(index, number) => {
            return table_path(Place::Dhcp(index), name) + &format!(".reservation[{number}]");
        }
        Place::Port(index) => ("port", index),
    };
    if name.is_empty() { format!("{kind}[{index}]") } else { format!("{kind}.{name}") }
}

/// What only one port can have, and who has it.
#[derive(Default)]
struct Claims {
    sockets: HashMap<PathBuf, String>,
    devices: HashMap<(Option<String>, String), String>,
    addresses: HashMap<(Option<String>, MacAddr), String>,
}

pub(super) struct Check {
    place: Place,
    path: String,
    problems: Vec<Problem>,
}

impl Check {
    pub(super) fn enter(&mut self, place: Place, name: &str) {
        self.path = table_path(place, name);
        self.place = place;
    }

    /// The table for people.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn problem(
        &mut self,
        key: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem {
            place: self.place,
            key,
            path: format!("{}.{key}", self.path),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    fn daemon(&mut self, daemon: &DaemonConfig) {
        self.account("group", daemon.group.as_deref());
        self.account("socket-group", daemon.socket_group.as_deref());
        if daemon.control.as_os_str().is_empty() && daemon.folders.control().as_os_str().is_empty()
        {
            let message = "has no place: XDG_RUNTIME_DIR is not set to an absolute path";
            self.problem("control", message, "set it, or give the socket's absolute path");
        } else {
            self.socket_path("control", &daemon.control);
        }
        if daemon.state.as_os_str().is_empty() {
            let message = "has no place: neither XDG_STATE_HOME nor HOME is set";
            self.problem("state", message, "set one of them, or give the folder's absolute path");
        } else if !daemon.state.is_absolute() {
            let message = format!("{} is not an absolute path", quoted(&daemon.state));
            self.problem("state", message, "start it with /");
        }
        if !(1..=MAX_WORKERS).contains(&daemon.workers) {
            let message = format!("{} is out of range", daemon.workers);
            self.problem("workers", message, format!("use 1 to {MAX_WORKERS}"));
        }
        if matches!(daemon.spin, Spin::For(time) if time > MAX_SPIN) {
            self.problem("spin", "is out of range", r#"use "0us" to "1s", or "always""#);
        }
    }

    fn network(&mut self, network: &Network) {
        if !MTU.contains(&network.mtu) {
            let message = format!("{} is out of range", network.mtu);
            self.problem("mtu", message, format!("use {} to {} bytes", MTU.start(), MTU.end()));
        }
        if !MAC_TABLE_SIZE.contains(&network.mac_table_size) {
            let (least, most) = (MAC_TABLE_SIZE.start(), MAC_TABLE_SIZE.end());
            let message = format!("{} is out of range", network.mac_table_size);
            self.problem("mac-table-size", message, format!("use {least} to {most} entries"));
        }
        if !MAC_AGING.contains(&network.mac_aging) {
            self.problem("mac-aging", "is out of range", r#"use "1s" to "24h""#);
        }
    }

    fn port(&mut self, port: &Port, config: &Config, claims: &mut Claims) {
        if config.network(&port.name).is_some_and(|network| network.own_port().is_some()) {
            let message = format!("{:?} is the name of the network's own port", port.name);
            self.problem("name", message, "rename one of them");
        }
        if let Some(name) = &port.network
            && !config.networks.iter().any(|network| network.name == *name)
        {
            let known: Vec<&str> = config.networks.iter().map(|n| n.name.as_str()).collect();
            let remedy = match super::nearest(name, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add a [[network]] of that name, or leave the key out".to_owned(),
            };
            self.problem("network", format!("there is no network {name:?}"), remedy);
        }
        self.vlan(port);
        self.address(port, claims);
        match &port.interface {
            Interface::VhostUser(device) => {
                let path = config.daemon.folders.socket(&port.name, &device.path);
                self.vhost_user(device, path, claims);
                self.socket_access(port);
            }
            Interface::Tap(device) => self.tap(device, claims),
            Interface::Uplink(_) => {}
        }
    }

    fn vlan(&mut self, port: &Port) {
        let vlan = &port.vlan;
        if let Some(tag) = vlan.tag.filter(|tag| *tag > 4095) {
            self.problem("tag", format!("{tag} is not a VLAN"), "use 0 to 4095");
        }
        if let Some(bad) = vlan.trunks.iter().find(|trunk| **trunk > 4095) {
            self.problem("trunks", format!("{bad} is not a VLAN"), "use 0 to 4095");
        }
        let twice = vlan.trunks.iter().enumerate().find(|(i, v)| vlan.trunks[..*i].contains(v));
        if let Some((_, twice)) = twice {
            self.problem("trunks", format!("VLAN {twice} is listed twice"), "list it once");
        }
        match (vlan.mode, vlan.tag) {
            (Some(VlanMode::Trunk), Some(_)) => {
                let remedy =
                    r#"remove the tag, or set vlan-mode to "native-tagged" or "native-untagged""#;
                self.problem("tag", "a trunk has no tag of its own", remedy);
            }
            (Some(mode), None) if mode != VlanMode::Trunk => {
                let message = format!("{:?} needs a tag", mode.name());
                self.problem("vlan-mode", message, "add tag = 0 to 4095, or remove vlan-mode");
            }
            _ => {}
        }
        if vlan.mode_or_default() == VlanMode::Access && !vlan.trunks.is_empty() {
            let remedy =
                r#"remove trunks, or set vlan-mode to "native-tagged" or "native-untagged""#;
            self.problem("trunks", "an access port carries its tag's VLAN only", remedy);
        }
    }

    fn address(&mut self, port: &Port, claims: &mut Claims) {
        let Some(mac) = port.mac else {
            if !port.spoof {
                let remedy = "add mac, the one address that it may send from";
                self.problem("spoof", r#""deny" needs the port's address"#, remedy);
            }
            return;
        };
        if mac.is_multicast() || mac.is_zero() {
            let remedy = "use a unicast one, such as 52:54:00:12:34:56";
            self.problem("mac", format!("{mac} is not an address of one machine"), remedy);
        }
        // One machine may have a leg in each of two networks, not two in one.
        if let Some(other) = claims.addresses.insert((port.network.clone(), mac), self.path.clone())
        {
            let message = format!("{mac} is taken by {other}.mac on the same network");
            self.problem("mac", message, "give each port its own");
        }
    }

    fn vhost_user(&mut self, device: &VhostUser, path: PathBuf, claims: &mut Claims) {
        if self.socket_path("path", &path) {
            match claims.sockets.get(&path).cloned() {
                Some(other) => {
                    let message = format!("{} is taken by {other}", quoted(&path));
                    self.problem("path", message, "give each its own socket");
                }
                None => {
                    claims.sockets.insert(path, format!("{}.path", self.path));
                }
            }
        }
        if !(1..=MAX_QUEUE_PAIRS).contains(&device.queues) {
            let message = format!("{} is out of range", device.queues);
            self.problem("queues", message, format!("use 1 to {MAX_QUEUE_PAIRS} queue pairs"));
        }
    }

    fn tap(&mut self, device: &Tap, claims: &mut Claims) {
        if let Some(fault) = ifname_fault(&device.ifname) {
            let message = format!("{:?} {fault}", device.ifname);
            self.problem("ifname", message, super::mode::IFNAME_REMEDY);
        } else {
            let key = (device.netns.clone(), device.ifname.clone());
            match claims.devices.get(&key).cloned() {
                Some(other) => {
                    let place = if key.0.is_some() { " in this netns" } else { "" };
                    let message = format!("{:?} is taken by {other}{place}", device.ifname);
                    self.problem("ifname", message, "give each port its own device");
                }
                None => {
                    claims.devices.insert(key, format!("{}.ifname", self.path));
                }
            }
        }
        if let Some(netns) = device.netns.as_deref()
            && (netns.is_empty() || netns.starts_with('.') || netns.contains('/'))
        {
            let remedy = "use a name as `ip netns list` shows it";
            self.problem("netns", format!("{netns:?} is not a name"), remedy);
        }
        for (index, (address, prefix)) in device.address.iter().enumerate() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            if *prefix > most {
                let message = format!("/{prefix} is too long a prefix for {address}");
                self.problem("address", message, format!("use /0 to /{most}"));
            }
            let earlier: &[(IpAddr, u8)] = &device.address[..index];
            if earlier.iter().any(|(other, _)| other == address) {
                self.problem("address", format!("{address} is listed twice"), "list it once");
            }
        }
    }

    /// A name: present, of harmless characters, not yet used.
    fn name(&mut self, kind: &str, name: &str, seen: &mut HashMap<String, Place>) {
        if name.is_empty() {
            self.problem("name", "is missing", format!("give the {kind} a name"));
            return;
        }
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.:@+".contains(c);
        if name.len() > MAX_NAME || !name.chars().all(harmless) || name.starts_with('-') {
            let remedy = format!(
                "use 1 to {MAX_NAME} letters, digits and any of -_.:@+ (no '-' at the start)"
            );
            self.problem("name", format!("{name:?} is not a usable name"), remedy);
        }
        if seen.insert(name.to_owned(), self.place).is_some() {
            self.problem("name", format!("there are two {kind}s {name:?}"), "rename one of them");
        }
    }

    /// True if `path` can be that of a Unix socket.
    fn socket_path(&mut self, key: &'static str, path: &Path) -> bool {
        let length = path.as_os_str().len();
        let (message, remedy) = if length == 0 {
            ("is missing".to_owned(), "give the socket's absolute path".to_owned())
        } else if !path.is_absolute() {
            (format!("{} is not an absolute path", quoted(path)), "start it with /".to_owned())
        } else if length > MAX_SOCKET_PATH {
            let message = format!("{length} bytes are too long for a Unix socket's path");
            (message, format!("use at most {MAX_SOCKET_PATH}"))
        } else if path.file_name().is_none() || path.to_string_lossy().ends_with('/') {
            (format!("{} names a directory", quoted(path)), "add the socket's file name".to_owned())
        } else if path.to_string_lossy().contains('\0') {
            (format!("{} holds a zero byte", quoted(path)), "remove it".to_owned())
        } else {
            return true;
        };
        self.problem(key, message, remedy);
        false
    }
}

pub(super) fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

/// Why the kernel would refuse this as a device's name.
pub(super) fn ifname_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_IFNAME {
        Some("is longer than 15 bytes")
    } else if name.starts_with('.') {
        Some("begins with a dot")
    } else if name.bytes().any(|byte| !byte.is_ascii_graphic() || b"/:%".contains(&byte)) {
        Some("has characters that a device's name cannot have")
    } else {
        None
    }
}

//! Rules for a `[[port]]`: VLANs, MAC addresses, devices, and what ports cannot share.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use trama_api::nearest::nearest;
use trama_frame::MacAddr;

use super::Place;
use super::check::Check;
use super::guest::Stations;
use super::name::{IFNAME_REMEDY, ifname_fault};
use super::tunnel::Tunnels;
use crate::Fault;
use crate::config::derived::sockets::PlaceSockets;
use crate::config::model::{
    Attached, AttachedKind, Config, DaemonConfig, Interface, Mode, Network, Port, Spoof, Tap,
    VhostUser, VlanModeName, WebAddress,
};

/// Most ephemeral ports.
const MOST_EPHEMERAL: usize = 4096;

/// Most queue pairs of a vhost-user port.
const MAX_QUEUE_PAIRS: u16 = 8;

/// What an address with a port is taken of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// What ports cannot share, with the path of the table that has it; and the networks, by name.
#[derive(Default)]
pub(crate) struct Claims<'a> {
    networks: HashMap<&'a str, &'a Network>,
    pub(super) sockets: HashMap<PathBuf, String>,
    pub(super) internet: HashMap<(Protocol, SocketAddr), String>,
    devices: HashMap<(Option<String>, String), String>,
    addresses: HashMap<(Option<String>, MacAddr), String>,
    guests: Stations,
    tunnels: Tunnels,
}

impl Claims<'_> {
    /// What the daemon and the networks have.
    pub(crate) fn of(config: &Config) -> Claims<'_> {
        let named = config.networks.iter().map(|network| (network.name.as_str(), network));
        let (networks, guests) = (named.collect(), Stations::of(config));
        let mut claims = Claims { networks, guests, ..Claims::default() };
        let DaemonConfig { control, metrics, web, .. } = &config.daemon;
        claims.sockets.insert(control.clone(), "daemon.control".to_owned());
        if let Some(address) = metrics {
            claims.internet.insert((Protocol::Tcp, *address), "daemon.metrics".to_owned());
        }
        match web {
            Some(WebAddress::Unix(path)) => {
                claims.sockets.insert(path.clone(), "daemon.web".to_owned());
            }
            Some(WebAddress::Tcp(address)) => {
                claims.internet.insert((Protocol::Tcp, *address), "daemon.web".to_owned());
            }
            None => {}
        }
        for network in &config.networks {
            if let Some(uplink) = &network.uplink {
                let owner = format!("network.{}.uplink", network.name);
                claims.devices.insert((None, uplink.clone()), owner);
            }
        }
        for network in config.networks.iter().filter(|network| network.mode == Mode::HostOnly) {
            let owner = format!("network.{}", network.name);
            claims.devices.insert((None, network.name.clone()), owner);
        }
        claims
    }
}

impl Check {
    pub(super) fn port(&mut self, port: &Port, config: &Config, claims: &mut Claims<'_>) {
        let twin = claims.networks.get(port.name.as_str());
        if twin.is_some_and(|network| network.network_port().is_some()) {
            let message = format!("{:?} is the name of the network's own port", port.name);
            self.problem("name", message, "rename one of them");
        }
        if let Some(name) = &port.network
            && !claims.networks.contains_key(name.as_str())
        {
            let known: Vec<&str> = config.networks.iter().map(|n| n.name.as_str()).collect();
            let remedy = match nearest(name, &known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add a [[network]] of that name, or leave the key out".to_owned(),
            };
            self.problem("network", format!("there is no network {name:?}"), remedy);
        }
        self.vlan(port);
        if port.is_connection() {
            // It shares all that its port has claimed.
            return;
        }
        self.address(port, claims);
        let network = port.network.as_deref().and_then(|name| claims.networks.get(name).copied());
        self.guest(port, network, &mut claims.guests);
        match &port.interface {
            Interface::VhostUser(device) => {
                let path = config.daemon.folders.socket(&port.name, &device.path);
                self.vhost_user(device, path, claims);
                self.socket_access(port);
                self.memory(port);
            }
            Interface::Tap(device) => self.tap(device, claims),
            Interface::System(device) => {
                self.device(&device.ifname, device.netns.as_deref(), claims);
            }
            Interface::Stream(device) => {
                self.stream(device, config.daemon.folders.place(&port.name, &device.place), claims);
                self.socket_access(port);
                self.one_guest(port);
            }
            Interface::Dgram(device) => {
                self.dgram(&config.daemon.folders.ends(&port.name, device), claims);
                self.socket_access(port);
            }
            Interface::Vxlan(device) => self.vxlan(port, device, network, &mut claims.tunnels),
            Interface::Attached(_) if !port.ephemeral => {
                let remedy = "leave it as it is, or add a port of another type in its place";
                self.problem("ephemeral", "an attached device ends with its descriptor", remedy);
            }
            // The connections of its frontends are known by its path.
            Interface::Attached(Attached { kind: AttachedKind::VhostUser, place, .. }) => {
                self.own_path(place.into(), claims);
            }
            Interface::Attached(_) | Interface::Uplink(_) => {}
        }
    }

    /// The number of ephemeral ports.
    pub(super) fn ephemeral(&mut self, config: &Config) {
        let Some((index, port)) = config
            .ports
            .iter()
            .enumerate()
            .filter(|(_, port)| port.is_ephemeral())
            .nth(MOST_EPHEMERAL)
        else {
            return;
        };
        self.enter(Place::Port(index), &port.name);
        let message = format!("there are {MOST_EPHEMERAL} ephemeral ports already");
        self.problem("ephemeral", message, "detach some that are not needed");
    }

    fn memory(&mut self, port: &Port) {
        if port.memory.max == Some(0) {
            let remedy = r#"use a size such as "8GiB", or remove it"#;
            self.problem("memory-max", "a guest without memory cannot connect", remedy);
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
            (Some(VlanModeName::Trunk), Some(_)) => {
                let remedy =
                    r#"remove the tag, or set vlan-mode to "native-tagged" or "native-untagged""#;
                self.problem("tag", "a trunk has no tag of its own", remedy);
            }
            (Some(mode), None) if mode != VlanModeName::Trunk => {
                let message = format!("{:?} needs a tag", mode.name());
                self.problem("vlan-mode", message, "add tag = 0 to 4095, or remove vlan-mode");
            }
            _ => {}
        }
        if vlan.mode_or_default() == VlanModeName::Access && !vlan.trunks.is_empty() {
            let remedy =
                r#"remove trunks, or set vlan-mode to "native-tagged" or "native-untagged""#;
            self.problem("trunks", "an access port carries only the VLAN of its tag", remedy);
        }
    }

    fn address(&mut self, port: &Port, claims: &mut Claims<'_>) {
        let Some(mac) = port.mac else {
            if port.spoof == Spoof::Deny {
                let remedy = "add mac, the only address that the guest may send from";
                self.problem("spoof", r#""deny" needs the guest's address"#, remedy);
            }
            return;
        };
        if mac.is_multicast() || mac.is_zero() {
            let remedy = "use one such as 52:54:00:12:34:56";
            self.problem("mac", format!("{mac} is not a unicast address"), remedy);
        }
        // A guest may be on two networks with one address, but not twice on one network.
        if let Some(other) =
            claims.addresses.insert((port.network.clone(), mac), self.path().to_owned())
        {
            let message = format!("{mac} is taken by {other}.mac on the same network");
            self.problem("mac", message, "give each port its own");
        }
    }

    fn vhost_user(&mut self, device: &VhostUser, path: PathBuf, claims: &mut Claims<'_>) {
        self.own_path(path, claims);
        if !(1..=MAX_QUEUE_PAIRS).contains(&device.queues) {
            let message = format!("{} is out of range", device.queues);
            self.problem("queues", message, format!("use 1 to {MAX_QUEUE_PAIRS} queue pairs"));
        }
    }

    /// An interface that exists once in its namespace.
    fn device(&mut self, ifname: &str, netns: Option<&str>, claims: &mut Claims<'_>) {
        if let Some(fault) = ifname_fault(ifname) {
            self.problem("ifname", format!("{ifname:?} {fault}"), IFNAME_REMEDY);
        } else {
            let key = (netns.map(namespace_name), ifname.to_owned());
            match claims.devices.get(&key).cloned() {
                Some(other) => {
                    let place = if key.0.is_some() { " in this netns" } else { "" };
                    let message = format!("{ifname:?} is taken by {other}{place}");
                    self.problem("ifname", message, "give each port its own device");
                }
                None => {
                    claims.devices.insert(key, format!("{}.ifname", self.path()));
                }
            }
        }
        if let Some(netns) = netns
            && !netns.starts_with('/')
            && (netns.is_empty() || netns.starts_with('.') || netns.contains('/'))
        {
            let message = format!("{netns:?} is not the name of a network namespace");
            let remedy = "use a name as `ip netns list` shows it, or an absolute path such as \
                          /proc/4711/ns/net";
            self.problem("netns", message, remedy);
        }
    }

    fn tap(&mut self, device: &Tap, claims: &mut Claims<'_>) {
        self.device(&device.ifname, device.netns.as_deref(), claims);
        for (index, address) in device.address.iter().map(IpNet::addr).enumerate() {
            let mut earlier = device.address[..index].iter();
            if earlier.any(|other| other.addr() == address) {
                self.problem("address", format!("{address} is listed twice"), "list it once");
            }
        }
    }
}

/// A namespace as its devices are claimed: by its name where `ip netns` has one.
fn namespace_name(netns: &str) -> String {
    let folders = ["/run/netns/", "/var/run/netns/"];
    let name = folders.iter().find_map(|folder| netns.strip_prefix(folder));
    name.unwrap_or(netns).to_owned()
}

/// The fault of a prefix that is longer than its address.
pub(crate) fn too_long_prefix(address: IpAddr, length: u8) -> Fault {
    let most = if address.is_ipv4() { 32 } else { 128 };
    let message = format!("/{length} is too long a prefix for {address}");
    Fault::new(message, format!("use /0 to /{most}"))
}

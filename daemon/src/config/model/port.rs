//! A `[[port]]` table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Serialize, Serializer};
use trama_frame::MacAddr;
pub use trama_switch::{Promiscuous, Spoof};
pub use trama_vhost_net_backend::Role;

use super::rule::Rule;
use super::socket::SocketAccess;
use super::vlan::Vlan;

/// A port of the switch and the device that plugs into it.
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
    /// Which unicast frames it receives in addition to its own.
    #[serde(serialize_with = "by_name")]
    pub promiscuous: Promiscuous,
    /// The MAC address of the guest behind it; `None` = learned.
    #[serde(serialize_with = "as_text")]
    pub mac: Option<MacAddr>,
    /// Whether the guest may send from other MAC addresses.
    #[serde(serialize_with = "by_name")]
    pub spoof: Spoof,
    /// The device that plugs in.
    pub interface: Interface,
    /// Whether the network of the same name created it; such a port has no `[[port]]` table.
    #[serde(skip)]
    pub of_network: bool,
    /// Which users may connect to its socket.
    pub socket: SocketAccess,
    /// Forwards to the guest, on a network of mode `nat`.
    pub forward: Vec<Rule>,
    /// Free-form data of management software; trama does not read it.
    pub external_ids: BTreeMap<String, String>,
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
            spoof: Spoof::Allow,
            interface,
            of_network: false,
            socket: SocketAccess::default(),
            forward: Vec::new(),
            external_ids: BTreeMap::new(),
        }
    }

    /// Whether the port is attached to the network of this name.
    pub fn is_on(&self, network: &str) -> bool {
        self.network.as_deref() == Some(network)
    }
}

/// Serialises a value by its name, as files and commands spell it.
pub(super) fn by_name<T: fmt::Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_text<S: Serializer>(mac: &Option<MacAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    mac.map(|mac| mac.to_string()).serialize(serializer)
}

/// The device on a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Interface {
    /// A virtio-net device served over a vhost-user socket.
    VhostUser(VhostUser),
    /// A TAP device of the kernel.
    Tap(Tap),
    /// An existing interface of the host; only networks create such ports.
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
    /// The socket's path; a relative or empty one is below the daemon's run folder
    /// ([`Folders::socket`](trama_api::folders::Folders::socket)).
    pub path: PathBuf,
    /// Which end listens.
    #[serde(serialize_with = "by_name")]
    pub role: Role,
    /// Queue pairs, at least 1.
    pub queues: u16,
}

/// A TAP device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tap {
    /// The device's name.
    pub ifname: String,
    /// The named network namespace it lives in; `None` = the daemon's.
    pub netns: Option<String>,
    /// Addresses it is given, with prefix lengths.
    pub address: Vec<IpNet>,
}

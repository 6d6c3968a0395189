//! A `[[port]]` table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use trama_frame::MacAddr;

use super::rule::Rule;
use super::socket::SocketAccess;
use super::vlan::Vlan;

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

    /// Whether the port is attached to the network of this name.
    pub fn is_on(&self, network: &str) -> bool {
        self.network.as_deref() == Some(network)
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

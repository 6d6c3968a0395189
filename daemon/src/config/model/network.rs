//! A `[[network]]` table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use trama_nat::Discovery;

use super::dhcp::DhcpSetting;
use super::rule::Rule;
use super::subnet::Subnet;

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
}

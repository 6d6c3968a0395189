//! A `[[network]]` table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use trama_gateway::Discovery;

use super::dhcp::DhcpSetting;
use super::export::{Ipfix, Sflow};
use super::openvswitch::Kept;
use super::rule::Rule;

/// What a network connects its guests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only each other.
    Internal,
    /// Each other, and the host by an interface with the network's name.
    HostOnly,
    /// Each other, the host, and the LAN behind an interface of the host.
    Bridged,
    /// Each guest alone behind a gateway of its own, which forwards to the host's networks.
    Nat,
    /// Each other, and the host's networks through a gateway.
    NatNetwork,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 5] =
        [Self::Internal, Self::HostOnly, Self::Bridged, Self::Nat, Self::NatNetwork];

    /// The spelling in files and commands.
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

/// What a port states of its guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Its IP addresses, at least one.
    pub addresses: Vec<IpAddr>,
    /// Its host names.
    pub names: Vec<String>,
}

/// One layer-2 domain; a *bridge* in the OVS-like commands.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Unique name.
    pub name: String,
    /// What it connects its guests to.
    pub mode: Mode,
    /// Its subnets as written, at most one of each IP version. [`Network::subnets`] returns those
    /// in force, [`Network::well_known`] the well-known addresses within them.
    pub subnet: Vec<IpNet>,
    /// The interface of the host that a network of mode `bridged` joins.
    pub uplink: Option<String>,
    /// Largest layer-3 packet in bytes (68..=65521).
    pub mtu: u16,
    /// Capacity of the MAC table.
    pub mac_table_size: usize,
    /// Age at which an unused MAC table entry is removed.
    pub mac_aging: Duration,
    /// Names that the gateway's DNS answers in addition to those of the host's resolvers.
    pub hosts: BTreeMap<String, IpAddr>,
    /// The folder that the gateway serves by TFTP; `None` = no TFTP.
    pub tftp: Option<PathBuf>,
    /// The DHCP setting as written; [`Network::dhcp`] returns the settings in force.
    pub dhcp: DhcpSetting,
    /// Forwards: ports of the host that lead to guests.
    pub forward: Vec<Rule>,
    /// Loopback maps: ports of the gateway that lead to the host's loopback.
    pub loopback: Vec<Rule>,
    /// Discovery protocols that are relayed between the guests and the host's links.
    pub reflect: Vec<Discovery>,
    /// What is exported by sFlow, if anything is.
    pub sflow: Option<Sflow>,
    /// What is exported by IPFIX, if anything is.
    pub ipfix: Option<Ipfix>,
    /// Whether the answers of the gateway's DNS are events.
    pub log_dns: bool,
    /// Whether events are kept. No key: filled in by
    /// [`Config::expanded`](super::Config::expanded).
    pub tells_events: bool,
    /// The guests whose ports state their addresses, if the network has a gateway. No key: filled
    /// in by [`Config::expanded`](super::Config::expanded).
    pub guests: Vec<Guest>,
    /// Free-form data of management software; trama does not read it.
    pub external_ids: BTreeMap<String, String>,
    /// Columns of Open vSwitch's Bridge that are kept.
    pub openvswitch: Kept,
}

impl Network {
    /// A network of mode `internal` with default settings.
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
            sflow: None,
            ipfix: None,
            log_dns: false,
            tells_events: false,
            guests: Vec::new(),
            external_ids: BTreeMap::new(),
            openvswitch: Kept::new(),
        }
    }
}

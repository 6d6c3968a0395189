//! What the daemon may be told of a gateway.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a gateway did since it started.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Frames taken from the switch.
    pub received: u64,
    /// Frames given to the switch.
    pub sent: u64,
    /// Frames refused, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The DHCP server, if there is one.
    pub dhcp: Option<DhcpStatus>,
    /// The DHCPv6 server, if there is one.
    pub dhcp6: Option<DhcpStatus>,
    /// Why no address is leased, though there are servers for that; it is tried again.
    pub lease_store: Option<String>,
    /// The way to other networks, if there is one.
    pub nat: Option<NatStatus>,
}

/// What passes a gateway's NAT now.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NatStatus {
    /// Flows by protocol, as [`FlowRow::protocol`] spells it.
    pub flows: BTreeMap<String, u64>,
    /// Forwards that listen.
    pub listening: u64,
    /// Forwards that do not, and are tried again.
    pub pending: u64,
}

/// What one of a gateway's DHCP servers did since it started.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DhcpStatus {
    /// Leases in force.
    pub leases: usize,
    /// Addresses of its ranges.
    pub pool: usize,
    /// Clients' messages, by type.
    pub received: BTreeMap<String, u64>,
    /// Its own messages, by type.
    pub sent: BTreeMap<String, u64>,
    /// Messages that it did not answer, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// A forward as it fares.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// The name of the forward.
    pub name: String,
    /// Why one of its ports is not listened on; it is tried again. `None`: all are.
    pub pending: Option<String>,
}

/// A flow as it is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowRow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The network's guest; of ICMP echo, the port is its identifier.
    pub guest: SocketAddr,
    /// The other end, as the guest sees it; `None` for UDP and ICMP, where one flow may lead to
    /// several.
    pub remote: Option<SocketAddr>,
    /// How far it has come, such as `established`; empty where there is nothing to tell.
    pub state: String,
    /// Bytes of payload that the guest sent.
    pub sent: u64,
    /// Bytes of payload that the guest got.
    pub received: u64,
    /// Seconds since anything was sent either way.
    pub idle: u64,
}

/// An address that a DHCP client has, had or is offered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The address.
    pub address: IpAddr,
    /// What it is in use for.
    pub state: LeaseState,
    /// The client's hardware address.
    pub mac: [u8; 6],
    /// The client's name.
    pub name: Option<String>,
    /// The mark of the switch port that it is charged to.
    pub port: u64,
    /// Seconds until the state ends; [`LeaseState::Idle`] does not.
    pub left: Option<u64>,
}

/// What an address is in use for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Leased.
    Bound,
    /// Offered, or looked at for another user before it is.
    Offered,
    /// Free, and remembered for its last client.
    Idle,
    /// Used by someone who has no lease.
    Conflict,
}

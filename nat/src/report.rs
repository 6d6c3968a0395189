//! What a gateway reports to the daemon.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A gateway's counters and state.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Frames received from the switch.
    pub received: u64,
    /// Frames sent to the switch.
    pub sent: u64,
    /// Frames dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The DHCPv4 server, if there is one.
    pub dhcp: Option<DhcpStatus>,
    /// The DHCPv6 server, if there is one.
    pub dhcp6: Option<DhcpStatus>,
    /// Why no address is leased although a server is configured; it is retried.
    pub lease_store: Option<String>,
    /// The NAT, if there is one.
    pub nat: Option<NatStatus>,
}

/// The current state of a gateway's NAT.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NatStatus {
    /// Flows by protocol, named as in [`FlowRow::protocol`].
    pub flows: BTreeMap<String, u64>,
    /// Forwards that listen.
    pub listening: u64,
    /// Forwards that are pending; they are retried.
    pub pending: u64,
}

/// The counters of a DHCP server since it started.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DhcpStatus {
    /// Active leases.
    pub leases: usize,
    /// Addresses in its ranges.
    pub pool: usize,
    /// Messages from clients, by type.
    pub received: BTreeMap<String, u64>,
    /// Messages to clients, by type.
    pub sent: BTreeMap<String, u64>,
    /// Messages that were not answered, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// The state of a forward.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// The name of the forward.
    pub name: String,
    /// Why one of its ports cannot be bound; it is retried. `None` if all are.
    pub pending: Option<String>,
}

/// A flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowRow {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// The guest's address and port; for ICMP, the port is the echo identifier.
    pub guest: SocketAddr,
    /// The remote address and port, as the guest sees them; `None` for UDP and ICMP, where one flow
    /// may have several.
    pub remote: Option<SocketAddr>,
    /// The state, such as `established`; empty if there is none.
    pub state: String,
    /// Bytes of payload from the guest.
    pub sent: u64,
    /// Bytes of payload to the guest.
    pub received: u64,
    /// Seconds since anything was sent either way.
    pub idle: u64,
}

/// An address that a DHCP client has, had or is offered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The address.
    pub address: IpAddr,
    /// The state of the address.
    pub state: LeaseState,
    /// The client's hardware address.
    pub mac: [u8; 6],
    /// The client's name.
    pub name: Option<String>,
    /// The mark of the switch port that the lease is charged to.
    pub port: u64,
    /// Seconds until the state ends; `None` for [`LeaseState::Idle`].
    pub left: Option<u64>,
}

/// The state of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Leased.
    Bound,
    /// Offered, or probed before the offer.
    Offered,
    /// Free, and reserved for its last client.
    Idle,
    /// In use without a lease.
    Conflict,
}

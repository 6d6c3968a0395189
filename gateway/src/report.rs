//! What a gateway reports to the daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
pub use trama_nat::{FlowRow, ForwardStatus, NatStatus, PortDrops};

/// A gateway's counters and state.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Frames received from the switch.
    pub received: u64,
    /// Frames sent to the switch.
    pub sent: u64,
    /// Frames dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Those of them whose switch port is known, by port and reason.
    pub port_drops: Vec<PortDrops>,
    /// The DHCPv4 server, if there is one.
    pub dhcp: Option<DhcpStatus>,
    /// The DHCPv6 server, if there is one.
    pub dhcp6: Option<DhcpStatus>,
    /// Why no address is leased although a server is configured; it is retried.
    pub lease_store: Option<String>,
    /// The NAT, if there is one.
    pub nat: Option<NatStatus>,
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

impl LeaseState {
    /// Returns its word.
    pub fn name(self) -> &'static str {
        match self {
            LeaseState::Bound => "bound",
            LeaseState::Offered => "offered",
            LeaseState::Idle => "idle",
            LeaseState::Conflict => "conflict",
        }
    }
}

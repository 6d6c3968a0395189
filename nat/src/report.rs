//! What the NAT reports of its state.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The current state of the NAT.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NatStatus {
    /// Flows by protocol, named as in [`FlowRow::protocol`].
    pub flows: BTreeMap<String, u64>,
    /// Forwards that listen.
    pub listening: u64,
    /// Forwards that are pending; they are retried.
    pub pending: u64,
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
    /// The mark of the guest's switch port; 0 where it is not known.
    #[serde(default)]
    pub port: u64,
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

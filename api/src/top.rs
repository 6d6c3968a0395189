//! The numbers of what runs, for a table that is drawn again and again.
//!
//! `POST /v1/top` has a [`Request`] as its body; the answer is [`Numbers`]. They only grow, and a
//! rate is the difference of two answers over that of their [`nanos`](Numbers::nanos).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Asks for the numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the API: [`VERSION`](crate::transaction::VERSION).
    pub version: u32,
    /// The network; all networks if `None`.
    #[serde(default)]
    pub network: Option<String>,
}

/// The numbers at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The process ID of the daemon.
    pub process: u32,
    /// The time of the host's monotonic clock, in nanoseconds.
    pub nanos: u64,
    /// Nanoseconds that each worker has spent on frames.
    pub busy_nanos: Vec<u64>,
    /// Flows through the NAT of each network that has one.
    pub flows: Vec<(String, u64)>,
    /// The ports, in the configuration's order.
    pub ports: Vec<Port>,
}

/// The numbers of a port. Received (rx) is what enters the switch from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The network it is on.
    pub network: Option<String>,
    /// Whether frames can pass.
    pub link: bool,
    /// Frames received from it.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent to it.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Times that its driver woke the switch.
    pub kicks: u64,
    /// Times that the switch woke its driver.
    pub calls: u64,
    /// Frames dropped at it and, of its frames, at the network's gateway: by reason, without zeros.
    pub drops: Vec<(Cow<'static, str>, u64)>,
}

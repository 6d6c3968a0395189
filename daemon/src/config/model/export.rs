//! What of a network's traffic is exported to collectors.

use std::net::SocketAddr;
use std::time::Duration;

/// `[network.sflow]`: samples and counters by sFlow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sflow {
    /// The agent's IP address, or the interface of the host that has it; `None` = the address from
    /// which datagrams are sent.
    pub agent: Option<String>,
    /// Bytes of a sampled frame that are sent.
    pub header: u16,
    /// One frame in this many is sampled.
    pub sampling: u32,
    /// Time between two samples of a port's counters; 0 = none is taken.
    pub polling: Duration,
    /// The collectors.
    pub targets: Vec<SocketAddr>,
}

impl Default for Sflow {
    fn default() -> Sflow {
        let polling = Duration::from_secs(10);
        Sflow { agent: None, header: 128, sampling: 64, polling, targets: Vec::new() }
    }
}

/// `[network.ipfix]`: records of flows by IPFIX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipfix {
    /// The ID of the observation domain.
    pub domain: u32,
    /// One frame in this many is sampled.
    pub sampling: u32,
    /// Time after which a flow that goes on is exported.
    pub active_timeout: Duration,
    /// Time without a sample after which a flow ends.
    pub idle_timeout: Duration,
    /// Most flows at a time.
    pub max_flows: u32,
    /// The collectors.
    pub targets: Vec<SocketAddr>,
}

impl Default for Ipfix {
    fn default() -> Ipfix {
        Ipfix {
            domain: 0,
            sampling: 64,
            active_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15),
            max_flows: 100_000,
            targets: Vec::new(),
        }
    }
}

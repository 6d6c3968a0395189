//! What the page is told: the whole [`View`] once, then a [`Change`] each second.
//!
//! Both are the contract with the page. What the daemon says of networks and ports goes to the page
//! as it is ([`trama_api::state`]), with what is computed here beside it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use trama_api::state;

/// Events that a view has.
pub(crate) const EVENTS: usize = 200;

/// Everything at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct View {
    /// The number of the last change.
    pub(crate) sequence: u64,
    pub(crate) version: String,
    pub(crate) host: String,
    pub(crate) uptime_s: u64,
    /// Whether the page may change something.
    pub(crate) write: bool,
    pub(crate) workers: Vec<Worker>,
    pub(crate) reasons: BTreeMap<String, String>,
    /// Worst first.
    pub(crate) attention: Vec<Attention>,
    /// The last ones, oldest first.
    pub(crate) events: VecDeque<Arc<Event>>,
    /// Their order never changes; new ones are at the end.
    pub(crate) networks: Vec<Network>,
    /// Likewise.
    pub(crate) ports: Vec<Port>,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Worker {
    pub(crate) id: usize,
    /// The share of the time that it has spent on frames, in thousandths as it is serialised.
    #[serde(serialize_with = "in_thousandths")]
    pub(crate) busy: f64,
}

fn in_thousandths<S: Serializer>(share: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((share * 1000.0).round() / 1000.0)
}

/// A network. Its `edge` is in bits per second, where that of the daemon's answer is in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Network {
    #[serde(flatten)]
    pub(crate) network: state::Network,
    /// The VLANs of its ports.
    pub(crate) vlans: Vec<u16>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Port {
    #[serde(flatten)]
    pub(crate) port: state::Port,
    /// Its place on the network's line.
    pub(crate) slot: usize,
    pub(crate) rate: Rate,
    /// By reason.
    pub(crate) drops: Vec<Drops>,
}

/// What passes a port in a second. Received (rx) is what comes from its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rate {
    pub(crate) rx_bps: u64,
    pub(crate) tx_bps: u64,
    pub(crate) rx_pps: u64,
    pub(crate) tx_pps: u64,
}

/// Frames of a port that were dropped for a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Drops {
    pub(crate) reason: String,
    /// In the last minute.
    pub(crate) minute: u64,
    pub(crate) total: u64,
    /// Whether it is no trouble: there is no machine that could have received the frames.
    pub(crate) expected: bool,
    pub(crate) last: Option<state::LastDrop>,
}

/// An event, and its line for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Event {
    #[serde(flatten)]
    pub(crate) event: trama_api::event::Event,
    pub(crate) line: String,
}

impl From<trama_api::event::Event> for Event {
    fn from(event: trama_api::event::Event) -> Event {
        let line = trama_api::event::line(&event).to_string();
        Event { event, line }
    }
}

/// How bad something is. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Bad,
    Warn,
}

/// What kind of thing needs attention. Among equally bad ones, the first kind comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Blocked,
    Down,
    Gateway,
    Forward,
    Drops,
    Pool,
    Waiting,
}

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Attention {
    pub(crate) severity: Severity,
    /// `port:NAME` or `network:NAME`.
    pub(crate) object: String,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// What is different from the view before.
#[derive(Debug, Serialize)]
pub(crate) struct Change<'a> {
    pub(crate) sequence: u64,
    pub(crate) uptime_s: u64,
    pub(crate) workers: &'a [Worker],
    /// Name, rx_bps, tx_bps, rx_pps, tx_pps.
    pub(crate) rates: Vec<(&'a str, u64, u64, u64, u64)>,
    /// Name, bits per second to what is outside, and from there.
    pub(crate) edges: Vec<(&'a str, u64, u64)>,
    pub(crate) networks: Vec<&'a Network>,
    pub(crate) removed_networks: Vec<&'a str>,
    pub(crate) ports: Vec<&'a Port>,
    pub(crate) removed_ports: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasons: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attention: Option<&'a [Attention]>,
    pub(crate) events: &'a [Arc<Event>],
    /// Why the daemon does not answer.
    pub(crate) lost_contact: Option<&'a str>,
}

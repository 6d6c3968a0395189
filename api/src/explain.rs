//! What the switch would do with a frame.
//!
//! `POST /v1/explain` has a [`Request`] as its body; the answer is an [`Answer`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A port and a frame that its machine would send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the API: [`VERSION`](crate::transaction::VERSION).
    pub version: u32,
    /// The port.
    pub port: String,
    /// The network that it must be on; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The frame.
    pub frame: Frame,
}

/// A frame, or what is said of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// Its bytes from the destination address on, without FCS.
    Bytes(Vec<u8>),
    /// A frame that the daemon makes.
    Described(Described),
    /// The last one that was dropped at the port, for this reason if one is given.
    Last {
        /// The reason, as in the metrics.
        reason: Option<String>,
    },
}

/// What a frame has; the rest is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    /// The destination's MAC address.
    pub dst: [u8; 6],
    /// The source; else the port's `mac`, an address known on the port, or one of no station.
    pub src: Option<[u8; 6]>,
    /// The VLAN ID of its tag; untagged without one.
    pub vlan: Option<u16>,
    /// Its length in bytes, without FCS.
    pub len: Option<usize>,
    /// Its Ethertype, of a frame that is not described further.
    pub ethertype: Option<u16>,
    /// The packet in it.
    pub packet: Option<Packet>,
}

/// An IP packet. Both addresses are of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// Its source.
    pub from: IpAddr,
    /// Its destination.
    pub to: IpAddr,
    /// What it carries.
    pub protocol: Protocol,
    /// The destination's L4 port; 0 for ICMP.
    pub port: u16,
}

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
}

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The way of the frame, step by step, for people.
    pub steps: Vec<Step>,
    /// The VLAN that the frame belongs to; `None` if the port does not take it.
    pub vlan: Option<u16>,
    /// The ports that it would leave by.
    pub exits: Vec<Exit>,
    /// Where and why it would be dropped before it reaches any port.
    pub dropped: Option<Dropped>,
}

impl Answer {
    /// Returns whether no port would get the frame.
    pub fn is_dropped(&self) -> bool {
        self.exits.iter().all(|exit| exit.dropped.is_some())
    }
}

/// One step of a frame's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is about: `port`, `vlan`, `look-up`, a port's name …
    pub about: String,
    /// What is found or done.
    pub text: String,
}

/// A port that a frame would leave by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The port; `gateway` for the network's gateway.
    pub port: String,
    /// The VLAN ID of the tag that it would have.
    pub tag: Option<u16>,
    /// Why it would be dropped there.
    pub dropped: Option<Dropped>,
}

/// Where and why a frame would be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The port where it would be counted.
    pub at: String,
    /// The reason, as in the metrics.
    pub reason: String,
    /// What happened and what to do.
    pub remedy: String,
}

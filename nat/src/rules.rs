//! The settings of the NAT.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::station::Station;

/// The settings that flows follow, borrowed for one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config<'a> {
    /// The gateway.
    pub station: &'a Station,
    /// `None`: no NAT. Fragments for the gateway are still reassembled, and its DNS is still served
    /// over TCP.
    pub rules: Option<&'a Rules>,
}

/// What guests can reach outside besides what the host reaches, and what can reach them.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Rules {
    /// Ports of the host that lead to guests.
    pub forwards: Vec<Forward>,
    /// Ports of the host's loopback that guests can reach.
    pub loopback: Vec<LoopbackMap>,
    /// Service discovery on the host's links.
    pub reflect: Vec<Discovery>,
}

/// A protocol of service discovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// Multicast DNS (RFC 6762).
    Mdns,
    /// The Simple Service Discovery Protocol (UPnP Device Architecture 2.0).
    Ssdp,
}

impl Discovery {
    /// All protocols.
    pub const ALL: [Discovery; 2] = [Discovery::Mdns, Discovery::Ssdp];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Discovery::Mdns => "mdns",
            Discovery::Ssdp => "ssdp",
        }
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A range of the host's ports that leads to a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forward {
    /// The name, unique in the network.
    pub name: String,
    /// The transport protocol.
    pub transport: Transport,
    /// The address where the host listens. `None`: at all addresses of both IP versions, as far as
    /// the host has them; `0.0.0.0` and `::` are all addresses of their version.
    pub host: Option<IpAddr>,
    /// The first port of the host.
    pub host_port: u16,
    /// The guest's address and first port.
    pub guest: SocketAddr,
    /// Ports in the range, at least 1.
    pub count: u16,
    /// Whether the guest sees the gateway's address instead of the client's.
    pub hides_client: bool,
}

/// A port of the host's loopback that is mapped to an address of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoopbackMap {
    /// The transport protocol.
    pub transport: Transport,
    /// The gateway's address and port, which guests connect to.
    pub guest: SocketAddr,
    /// The host's address and port.
    pub host: SocketAddr,
}

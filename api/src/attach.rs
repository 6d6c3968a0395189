//! The request by which a client hands over a device, and its answer.
//!
//! `POST /v1/attach` has a [`Request`] as its body, and the device's descriptor is passed with its
//! first byte (SCM_RIGHTS).

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is attached, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the API: [`VERSION`](crate::transaction::VERSION).
    pub version: u32,
    /// The network.
    pub network: String,
    /// The name of the new port.
    pub port: String,
    /// Columns of the port, as `add-port` takes them: `COLUMN[:KEY]=VALUE`.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Whether the daemon chooses an address of each subnet of the network of whose IP version the
    /// column `addresses` has none. It is held until the port ends.
    #[serde(default)]
    pub lease: bool,
    /// What the port's device is.
    #[serde(default)]
    pub device: Device,
}

/// The device of a port that is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// That of the descriptor passed with the request.
    #[default]
    Descriptor,
    /// A vhost-user socket on which the daemon listens; no descriptor is passed.
    VhostUser,
}

/// The answer to a device that was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The port.
    pub port: String,
    /// The device's name in its namespace; empty for a socket.
    pub ifname: String,
    /// The network's MTU in bytes.
    pub mtu: u16,
    /// Addresses of the network's DNS servers.
    pub dns: Vec<IpAddr>,
    /// The port's addresses, with the prefix lengths of their subnets.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// By which other networks are reached, one of each IP version; empty on a network without NAT.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// The socket's absolute path, of a vhost-user port.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

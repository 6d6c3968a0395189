//! The request by which a client hands over a device, and its answer.
//!
//! `POST /v1/attach` has a [`Request`] as its body, and the device's descriptor is passed with its
//! first byte (SCM_RIGHTS).

use std::net::IpAddr;

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
}

/// The answer to a device that was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The port.
    pub port: String,
    /// The device's name in its namespace.
    pub ifname: String,
    /// The network's MTU in bytes.
    pub mtu: u16,
    /// Addresses of the network's DNS servers.
    pub dns: Vec<IpAddr>,
}

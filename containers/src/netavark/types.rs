//! What netavark and podman send, and what they read (netavark's plug-in API 1.0.0).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A network of podman.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Network {
    pub name: String,
    #[serde(default)]
    pub dns_enabled: bool,
    #[serde(default)]
    pub internal: bool,
    #[serde(default)]
    pub ipv6_enabled: bool,
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub ipam_options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    pub routes: Option<Vec<Route>>,
    /// Whatever else there is; podman wants it back as it is.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A subnet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subnet {
    pub subnet: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// From where podman takes addresses.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Subnet {
    pub(super) fn of(subnet: IpNet) -> Subnet {
        Subnet { subnet, gateway: None, rest: Map::new() }
    }
}

/// A route of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Route {
    pub destination: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    #[serde(default)]
    pub metric: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_type: Option<String>,
}

/// A container that joins or leaves a network.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Exec {
    pub container_id: String,
    pub container_name: String,
    #[serde(default)]
    pub port_mappings: Option<Vec<PortMapping>>,
    pub network: Network,
    pub network_options: Options,
}

/// What a container wants of one network.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Options {
    pub interface_name: String,
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
    #[serde(default)]
    pub static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    pub static_mac: Option<String>,
}

/// A published port.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PortMapping {
    pub container_port: u16,
    #[serde(default)]
    pub host_ip: String,
    pub host_port: u16,
    /// `tcp`, `udp` or `sctp`, or several with commas; empty: `tcp`.
    #[serde(default)]
    pub protocol: String,
    /// How many ports; 0 is 1.
    #[serde(default)]
    pub range: u16,
}

/// What the container has got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Status {
    pub dns_search_domains: Vec<String>,
    pub dns_server_ips: Vec<IpAddr>,
    pub interfaces: BTreeMap<String, Interface>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Interface {
    pub mac_address: String,
    pub subnets: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Address {
    /// With the prefix length of its subnet.
    pub ipnet: IpNet,
    pub gateway: Option<IpAddr>,
}

//! What dockerd sends (the API of libnetwork's remote drivers).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Free options by their labels.
pub(super) type Options = BTreeMap<String, Value>;

/// `NetworkDriver.CreateNetwork`.
#[derive(Debug, Deserialize)]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
    #[serde(rename = "IPv4Data", default, deserialize_with = "or_default")]
    pub ipv4: Vec<Pool>,
    #[serde(rename = "IPv6Data", default, deserialize_with = "or_default")]
    pub ipv6: Vec<Pool>,
}

/// A subnet from which dockerd takes addresses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pool {
    pub pool: IpNet,
    /// With the subnet's prefix length.
    #[serde(default, deserialize_with = "text")]
    pub gateway: Option<IpNet>,
}

/// `NetworkDriver.DeleteNetwork`.
#[derive(Debug, Deserialize)]
pub(super) struct OfNetwork {
    #[serde(rename = "NetworkID")]
    pub network: String,
}

/// What names an endpoint, an interface of a container: `DeleteEndpoint` and others.
#[derive(Debug, Deserialize)]
pub(super) struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    #[serde(rename = "Options", default, deserialize_with = "or_default")]
    pub options: Options,
}

/// `NetworkDriver.CreateEndpoint`.
#[derive(Debug, Deserialize)]
pub(super) struct CreateEndpoint {
    #[serde(flatten)]
    pub of: OfEndpoint,
    #[serde(rename = "Interface", default, deserialize_with = "or_default")]
    pub interface: Interface,
}

/// What dockerd has chosen for an interface.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Interface {
    #[serde(rename = "Address", default, deserialize_with = "text")]
    pub ipv4: Option<IpNet>,
    #[serde(rename = "AddressIPv6", default, deserialize_with = "text")]
    pub ipv6: Option<IpNet>,
    /// Empty: the driver chooses.
    #[serde(rename = "MacAddress", default)]
    pub mac: String,
}

/// A published port, in the label `com.docker.network.portmap`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PortBinding {
    /// As in an IP header.
    pub proto: u8,
    /// The container's.
    pub port: u16,
    /// `None`: all addresses.
    #[serde(rename = "HostIP", default, deserialize_with = "text")]
    pub host_ip: Option<IpAddr>,
    /// 0: one that the driver chooses.
    #[serde(default)]
    pub host_port: u16,
    /// The last of those to choose from; 0: no other than `host_port`.
    #[serde(default)]
    pub host_port_end: u16,
}

/// Reads `null` as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads an address that may be empty.
fn text<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let text = text.filter(|text| !text.is_empty());
    let parsed = text.map(|text| {
        let wrong = |error| serde::de::Error::custom(format!("{text:?}: {error}"));
        text.parse().map_err(wrong)
    });
    parsed.transpose()
}

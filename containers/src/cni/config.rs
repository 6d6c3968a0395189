//! The configuration on standard input: the plug-in's part of a list, with what the runtime adds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::failure::{CONFIG, DECODING, Failure, UNSUPPORTED, VERSION};

/// Versions of the specification that are spoken, oldest first.
pub(super) const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];
/// That which is spoken if the input does not say.
pub(super) const NEWEST: &str = VERSIONS[2];
/// What a configuration is taken for that has no `cniVersion`.
const OLDEST_OF_ALL: &str = "0.1.0";

/// Keys that runtimes and other plug-ins use, and that change nothing here.
const IGNORED: [&str; 7] = [
    "args",
    "capabilities",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "plugins",
    "type",
];

/// A configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    /// The name of the list.
    #[serde(default)]
    pub name: String,
    /// The network; `None`: that with the name of the list.
    network: Option<String>,
    /// The VLAN of the container.
    pub vlan: Option<u16>,
    /// The control socket of the daemon.
    pub socket: Option<PathBuf>,
    #[serde(default)]
    pub kind: Kind,
    #[serde(default)]
    pub ipam: Option<Ipam>,
    #[serde(default)]
    runtime_config: Option<RuntimeConfig>,
    #[serde(default)]
    pub prev_result: Option<Value>,
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Of GC: what is still there.
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "list")]
    valid: Option<Vec<Attachment>>,
    /// The same by the name that the specification had first; runtimes state both.
    #[serde(default, rename = "cni.dev/attachments", deserialize_with = "list")]
    attachments: Option<Vec<Attachment>>,
    /// All other keys.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// What the container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// An interface in its namespace.
    #[default]
    Tap,
    /// A vhost-user socket, for a VM in the container's place.
    VhostUser,
}

/// Who chooses addresses.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Ipam {
    /// `trama`, or the program; empty: there are no addresses.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Of `trama`: the routes; `None`: by the network's gateways. Others read it themselves.
    #[serde(default)]
    pub routes: Option<Value>,
}

/// What the runtime wants of one container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    pub port_mappings: Option<Vec<PortMapping>>,
    #[serde(default)]
    pub mac: Option<String>,
    #[serde(default)]
    pub ips: Option<Vec<String>>,
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
    #[serde(default)]
    pub bandwidth: Option<Map<String, Value>>,
}

/// A published port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    #[serde(default)]
    pub protocol: Option<String>,
    #[serde(default, rename = "hostIP")]
    pub host_ip: Option<String>,
}

/// A container's interface, in GC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Attachment {
    #[serde(rename = "containerID")]
    pub container: String,
    pub ifname: String,
}

/// Reads a list that is stated: `null` is an empty one.
fn list<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Option::deserialize(value).map(|list| Some(list.unwrap_or_default()))
}

/// DNS settings of a result or a configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Dns {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Config {
    /// Of GC: what is still there, if it is stated.
    pub(super) fn valid(&self) -> Option<&[Attachment]> {
        self.valid.as_deref().or(self.attachments.as_deref())
    }

    /// Reads it.
    pub(super) fn read(input: &[u8]) -> Result<Config, Failure> {
        serde_json::from_slice(input)
            .map_err(|error| Failure::new(DECODING, format!("standard input: {error}")))
    }

    /// Refuses keys that mean nothing here, as a misspelt one would be silent else. Those with a
    /// slash belong to runtimes.
    pub(super) fn check_keys(&self) -> Result<(), Failure> {
        let is_known =
            |key: &str| IGNORED.contains(&key) || key == "cniVersion" || key.contains('/');
        match self.rest.iter().find(|(key, _)| !is_known(key)) {
            None => Ok(()),
            Some((key, value)) => {
                let known = "network, vlan, socket, kind, ipam and dns";
                let details = format!("{key} = {value}; take it out: trama has {known}");
                Err(Failure::new(UNSUPPORTED, details))
            }
        }
    }

    /// The network at the daemon.
    pub(super) fn network(&self) -> Result<String, Failure> {
        let network = self.network.clone().unwrap_or_else(|| self.name.clone());
        match network.is_empty() {
            true => Err(Failure::new(CONFIG, "there is no \"network\"; give the name of one")),
            false => Ok(network),
        }
    }

    /// What the runtime wants.
    pub(super) fn runtime(&self) -> RuntimeConfig {
        self.runtime_config.clone().unwrap_or_default()
    }

    /// The program that chooses addresses, if it is not the daemon.
    pub(super) fn foreign_ipam(&self) -> Option<&str> {
        let kind = self.ipam.as_ref()?.kind.as_str();
        (!kind.is_empty() && kind != "trama").then_some(kind)
    }

    /// Whether the daemon chooses addresses.
    pub(super) fn leases(&self) -> bool {
        self.ipam.as_ref().is_some_and(|ipam| ipam.kind == "trama")
    }
}

/// The version of the specification that an input uses; one that is not spoken is an error.
pub(super) fn version(input: &[u8]) -> Result<&'static str, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        #[serde(default)]
        cni_version: Option<String>,
    }
    let read: Versioned = serde_json::from_slice(input)
        .map_err(|error| Failure::new(DECODING, format!("standard input: {error}")))?;
    let stated = read.cni_version.unwrap_or_else(|| OLDEST_OF_ALL.to_owned());
    VERSIONS.into_iter().find(|known| **known == stated).ok_or_else(|| {
        let known = VERSIONS.join(", ");
        Failure::new(VERSION, format!("cniVersion is {stated:?}; use one of {known}"))
    })
}

/// Reads an address that may have a prefix length.
pub(super) fn plain_address(text: &str) -> Option<std::net::IpAddr> {
    let with_length = text.parse::<IpNet>().map(|address| address.addr());
    with_length.ok().or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        Config::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_configuration_has_defaults() {
        let config = read(r#"{"cniVersion":"1.0.0","name":"lab","type":"trama"}"#);
        assert_eq!(config.network(), Ok("lab".to_owned()));
        assert_eq!((config.kind, config.leases(), config.foreign_ipam()), (Kind::Tap, false, None));
        let config = read(r#"{"network":"n","kind":"vhost-user","ipam":{"type":"trama"}}"#);
        assert_eq!((config.network(), config.kind), (Ok("n".to_owned()), Kind::VhostUser));
        assert!(config.leases() && config.valid().is_none());
        let config = read(r#"{"ipam":{},"runtimeConfig":null,"cni.dev/attachments":[]}"#);
        assert_eq!((config.foreign_ipam(), config.valid()), (None, Some(&[][..])));
    }

    #[test]
    fn unknown_keys_are_refused_but_not_those_of_runtimes() {
        assert_eq!(read(r#"{"cniVersion":"1.1.0","x.io/y":1,"args":{}}"#).check_keys(), Ok(()));
        let failure = read(r#"{"vlna":10}"#).check_keys().unwrap_err();
        assert_eq!(failure.code, UNSUPPORTED);
        assert!(failure.details.starts_with("vlna = 10; "), "{failure:?}");
    }

    #[test]
    fn versions_are_looked_up() {
        for known in VERSIONS {
            let input = format!("{{\"cniVersion\":\"{known}\"}}");
            assert_eq!(version(input.as_bytes()), Ok(known));
        }
        assert_eq!(version(b"{}").unwrap_err().code, VERSION);
        assert_eq!(version(br#"{"cniVersion":"0.3.1"}"#).unwrap_err().code, VERSION);
        assert_eq!(version(b"[").unwrap_err().code, DECODING);
    }
}

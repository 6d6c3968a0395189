//! Results, in the form of each version of the specification (section 5).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::Dns;
use super::failure::{CONFIG, DECODING, Failure};

/// What ADD returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Success {
    /// The interface, or the socket.
    pub interface: Interface,
    pub addresses: Addresses,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Interface {
    pub name: String,
    pub mac: Option<String>,
    /// In bytes.
    pub mtu: u16,
    /// The path of its namespace.
    pub sandbox: String,
    /// The path of its vhost-user socket.
    pub socket: Option<String>,
}

/// What an IPAM plug-in returns.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct Addresses {
    #[serde(default)]
    pub ips: Vec<Ip>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub dns: Dns,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Ip {
    pub address: IpNet,
    #[serde(default)]
    pub gateway: Option<std::net::IpAddr>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Route {
    pub dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<std::net::IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// What trama does not set: `mtu`, `advmss`, `table`, `scope`.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Route {
    /// That of the interface.
    pub(super) fn of(route: &trama_tap::Route) -> Route {
        let trama_tap::Route { destination, gateway, priority } = *route;
        Route { dst: destination, gw: gateway, priority, rest: Map::new() }
    }

    /// What the interface is given. Without a next hop, it leads by the gateway of an address.
    pub(super) fn to_set(&self, ips: &[Ip]) -> Result<trama_tap::Route, Failure> {
        if let Some((key, value)) = self.rest.iter().next() {
            let details = format!("the route to {} has {key} = {value}; take it out", self.dst);
            return Err(Failure::new(CONFIG, format!("{details}: trama sets gw and priority")));
        }
        let is_v4 = self.dst.addr().is_ipv4();
        let of_version = |ip: &&Ip| ip.address.addr().is_ipv4() == is_v4;
        let gateway = || ips.iter().filter(of_version).find_map(|ip| ip.gateway);
        let (destination, priority) = (self.dst, self.priority);
        Ok(trama_tap::Route { destination, gateway: self.gw.or_else(gateway), priority })
    }
}

impl Addresses {
    /// Reads what an IPAM plug-in has returned.
    pub(super) fn read(output: &[u8], program: &str) -> Result<Addresses, Failure> {
        serde_json::from_slice(output)
            .map_err(|error| Failure::new(DECODING, format!("the answer of {program}: {error}")))
    }
}

impl Success {
    /// The result of this version, behind that of the plug-ins before.
    pub(super) fn json(&self, version: &str, previous: Option<&Value>) -> Value {
        let mut result = match previous {
            Some(Value::Object(previous)) => previous.clone(),
            _ => Map::new(),
        };
        result.insert("cniVersion".into(), version.into());
        let index = append(&mut result, "interfaces", [self.interface.json(version)]);
        append(&mut result, "ips", self.addresses.ips.iter().map(|ip| ip.json(version, index)));
        append(&mut result, "routes", self.addresses.routes.iter().map(|route| json!(route)));
        let dns = result.entry("dns").or_insert_with(|| json!({}));
        if dns.as_object().is_none_or(Map::is_empty) {
            *dns = json!(self.addresses.dns);
        }
        Value::Object(result)
    }
}

/// Adds to a list of a result; returns how many there were before.
fn append(
    result: &mut Map<String, Value>,
    key: &str,
    more: impl IntoIterator<Item = Value>,
) -> usize {
    let mut items = match result.remove(key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let before = items.len();
    items.extend(more);
    result.insert(key.to_owned(), items.into());
    before
}

impl Interface {
    fn json(&self, version: &str) -> Value {
        let mut interface = json!({"name": self.name, "sandbox": self.sandbox});
        if let Some(mac) = &self.mac {
            interface["mac"] = json!(mac);
        }
        if version == super::config::NEWEST {
            interface["mtu"] = json!(self.mtu);
            if let Some(socket) = &self.socket {
                interface["socketPath"] = json!(socket);
            }
        }
        interface
    }
}

impl Ip {
    fn json(&self, version: &str, interface: usize) -> Value {
        let mut ip = json!({"address": self.address, "interface": interface});
        if let Some(gateway) = self.gateway {
            ip["gateway"] = json!(gateway);
        }
        if version == "0.4.0" {
            ip["version"] = json!(if self.address.addr().is_ipv4() { "4" } else { "6" });
        }
        ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn success() -> Success {
        Success {
            interface: Interface {
                name: "eth0".into(),
                mac: Some("52:54:00:00:00:07".into()),
                mtu: 1400,
                sandbox: "/run/netns/a".into(),
                socket: Some("/run/trama/a.sock".into()),
            },
            addresses: Addresses::read(
                br#"{"ips":[{"version":"4","address":"10.1.0.7/24","gateway":"10.1.0.1"}],
                    "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.1.0.1"]}}"#,
                "p",
            )
            .unwrap(),
        }
    }

    #[test]
    fn each_version_has_its_form() {
        let dns = json!({"nameservers": ["10.1.0.1"]});
        let routes = json!([{"dst": "0.0.0.0/0"}]);
        let ip = json!({"address": "10.1.0.7/24", "gateway": "10.1.0.1", "interface": 0});
        let interface =
            json!({"name": "eth0", "mac": "52:54:00:00:00:07", "sandbox": "/run/netns/a"});
        assert_eq!(
            success().json("1.0.0", None),
            json!({"cniVersion": "1.0.0", "interfaces": [interface], "ips": [ip],
                   "routes": routes, "dns": dns})
        );
        let old = success().json("0.4.0", None);
        assert_eq!((&old["ips"][0]["version"], &old["cniVersion"]), (&json!("4"), &json!("0.4.0")));
        let new = success().json("1.1.0", None);
        assert_eq!(new["interfaces"][0]["mtu"], json!(1400));
        assert_eq!(new["interfaces"][0]["socketPath"], json!("/run/trama/a.sock"));
    }

    #[test]
    fn what_other_plugins_have_returned_stays() {
        let previous = json!({
            "cniVersion": "1.0.0", "interfaces": [{"name": "a"}, {"name": "b"}],
            "ips": [{"address": "10.9.0.2/24", "interface": 1}], "dns": {"domain": "example"},
            "other": 1
        });
        let merged = success().json("1.1.0", Some(&previous));
        assert_eq!(merged["interfaces"].as_array().map(Vec::len), Some(3));
        assert_eq!(merged["ips"][0], previous["ips"][0]);
        assert_eq!(merged["ips"][1]["interface"], json!(2));
        assert_eq!((&merged["dns"], &merged["other"]), (&previous["dns"], &json!(1)));
        assert!(success().json("1.1.0", Some(&json!({"ips": null})))["ips"].is_array());
    }

    #[test]
    fn routes_lead_by_the_gateway_of_their_version() {
        let success = success();
        let ips = &success.addresses.ips;
        let route = success.addresses.routes[0].to_set(ips).unwrap();
        assert_eq!(route, trama_tap::Route::default_by([10, 1, 0, 1].into()));
        let six: Route = serde_json::from_str(r#"{"dst":"fd00::/8"}"#).unwrap();
        assert_eq!(six.to_set(ips).unwrap().gateway, None);
        let table: Route = serde_json::from_str(r#"{"dst":"fd00::/8","table":7}"#).unwrap();
        assert!(table.to_set(ips).unwrap_err().details.contains("table = 7"));
    }
}

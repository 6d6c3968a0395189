//! The values of a configuration as the keys of its file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use toml_edit::{Array, InlineTable, Value};
use trama_nat::Discovery;

use super::model::{DaemonConfig, Interface, Network, Port, Promiscuous, Role, Spin};
use super::rule::Rule;
use super::units::format_duration;

/// One key of a table and its value.
#[derive(Clone)]
pub struct Field {
    /// The key as it is spelled in the file.
    pub key: &'static str,
    /// Its value; `None` = the key is not there.
    pub value: Option<Value>,
    /// Whether leaving the key out means the same.
    pub is_default: bool,
}

impl Field {
    fn new(key: &'static str, value: impl Into<Value>, is_default: bool) -> Self {
        Self { key, value: Some(value.into()), is_default }
    }

    fn optional(key: &'static str, value: Option<impl Into<Value>>) -> Self {
        Self { key, value: value.map(Into::into), is_default: false }
    }

    /// A key that is not there.
    pub fn absent(key: &'static str) -> Self {
        Self { key, value: None, is_default: false }
    }
}

/// The keys of `[daemon]`.
pub fn daemon_fields(daemon: &DaemonConfig) -> Vec<Field> {
    let default = DaemonConfig::at(daemon.folders.clone());
    let spin = match daemon.spin {
        Spin::Always => "always".to_owned(),
        Spin::For(time) => format_duration(time),
    };
    vec![
        Field::new("control", path(&daemon.control), daemon.control == default.control),
        Field::optional("group", daemon.group.as_deref()),
        Field::optional("socket-group", daemon.socket_group.as_deref()),
        Field::optional("socket-mode", daemon.socket_mode.map(|mode| mode.to_string())),
        Field::new("state", path(&daemon.state), daemon.state == default.state),
        Field::optional("metrics", daemon.metrics.map(|address| address.to_string())),
        Field::new("workers", number(daemon.workers), daemon.workers == default.workers),
        Field::new("spin", spin, daemon.spin == default.spin),
    ]
}

/// The keys of a `[[network]]`.
pub fn network_fields(network: &Network) -> Vec<Field> {
    let default = Network::new(String::new());
    let size = network.mac_table_size;
    let aging = network.mac_aging;
    vec![
        Field::new("name", network.name.as_str(), false),
        Field::new("mode", network.mode.name(), false),
        Field::optional("subnet", one_or_list(&network.subnet)),
        Field::optional("uplink", network.uplink.as_deref()),
        Field::new("mtu", i64::from(network.mtu), network.mtu == default.mtu),
        Field::new("mac-table-size", number(size), size == default.mac_table_size),
        Field::new("mac-aging", format_duration(aging), aging == default.mac_aging),
        map_field("hosts", &network.hosts),
        Field::optional("tftp", network.tftp.as_deref().map(path)),
        Field::optional("dhcp", super::dhcp_file::value(&network.dhcp)),
        Field::optional("forward", rules(&network.forward)),
        Field::optional("loopback", rules(&network.loopback)),
        Field::optional("reflect", names(&network.reflect)),
        map_field("external-ids", &network.external_ids),
    ]
}

/// The keys of a `[[port]]`.
pub fn port_fields(port: &Port) -> Vec<Field> {
    let mut fields = vec![
        Field::new("name", port.name.as_str(), false),
        Field::optional("network", port.network.as_deref()),
    ];
    match &port.interface {
        Interface::VhostUser(device) => {
            let role = match device.role {
                Role::Server => "server",
                Role::Client => "client",
            };
            fields.push(Field::new("type", "vhost-user", false));
            let stated = (!device.path.as_os_str().is_empty()).then(|| path(&device.path));
            fields.push(Field::optional("path", stated));
            fields.push(Field::new("role", role, device.role == Role::Server));
            fields.push(Field::new("queues", i64::from(device.queues), device.queues == 1));
            let mode = port.socket.mode.map(|mode| mode.to_string());
            fields.push(Field::optional("socket-owner", port.socket.owner.as_deref()));
            fields.push(Field::optional("socket-group", port.socket.group.as_deref()));
            fields.push(Field::optional("socket-mode", mode));
        }
        Interface::Tap(device) => {
            fields.push(Field::new("type", "tap", false));
            fields.push(Field::new("ifname", device.ifname.as_str(), false));
            fields.push(Field::optional("netns", device.netns.as_deref()));
            fields.push(Field::optional("address", one_or_list(&device.address)));
        }
        // No table stands for it.
        Interface::Uplink(_) => {}
    }
    let trunks = &port.vlan.trunks;
    let list = Array::from_iter(trunks.iter().map(|vlan| i64::from(*vlan)));
    fields.extend([
        Field::optional("tag", port.vlan.tag.map(i64::from)),
        Field::optional("trunks", (!trunks.is_empty()).then_some(list)),
        Field::optional("vlan-mode", port.vlan.mode.map(|mode| mode.name())),
        Field::new("cable", port.cable, port.cable),
        Field::new("promiscuous", port.promiscuous.name(), port.promiscuous == Promiscuous::Deny),
        Field::optional("mac", port.mac.map(|mac| mac.to_string())),
        Field::new("spoof", if port.spoof { "allow" } else { "deny" }, port.spoof),
        Field::optional("forward", rules(&port.forward)),
        map_field("external-ids", &port.external_ids),
    ]);
    fields
}

/// Addresses with their prefix lengths: none, one as a string, several as a list.
fn one_or_list(addresses: &[(IpAddr, u8)]) -> Option<Value> {
    let mut texts = addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}"));
    match addresses.len() {
        0 => None,
        1 => texts.next().map(Value::from),
        _ => Some(Value::Array(Array::from_iter(texts))),
    }
}

fn rules(rules: &[Rule]) -> Option<Value> {
    let texts = rules.iter().map(ToString::to_string);
    (!rules.is_empty()).then(|| Value::Array(Array::from_iter(texts)))
}

fn names(protocols: &[Discovery]) -> Option<Value> {
    let names = protocols.iter().map(|protocol| protocol.name());
    (!protocols.is_empty()).then(|| Value::Array(Array::from_iter(names)))
}

fn map_field(key: &'static str, map: &BTreeMap<String, impl ToString>) -> Field {
    let table: InlineTable =
        map.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
    Field::optional(key, (!map.is_empty()).then_some(table))
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn path(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

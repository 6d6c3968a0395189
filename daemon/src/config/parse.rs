//! Text to [`Config`], or everything that is wrong with it.
//!
//! Three passes: the TOML parser finds what is not TOML; the tables are read key by key, where
//! stand-ins take the place of what cannot be read; [`validate`](super::validate) looks at the
//! whole. Faults of one pass do not hide those of the next, with one exception: text that is
//! not TOML is not read further, as guesses about what was meant would only mislead.

use std::collections::BTreeMap;
use std::net::IpAddr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use trama_frame::MacAddr;
use trama_nat::Discovery;
use trama_vhost_net_backend::access::parse_mode;

use super::Diagnostic;
use super::folders::Folders;
use super::model::{
    Config, DaemonConfig, Interface, Mode, Network, Port, Promiscuous, Role, Spin, Tap, VhostUser,
    Vlan, VlanMode,
};
use super::reader::{Reader, Report, type_name};
use super::rule::Rule;
use super::socket::{SocketAccess, SocketMode};
use super::units::parse_duration;
use super::validate::{Place, Problem, table_path, validate};

const DAEMON_KEYS: [&str; 8] =
    ["control", "group", "socket-group", "socket-mode", "state", "metrics", "workers", "spin"];
const NETWORK_KEYS: [&str; 14] = [
    "name",
    "mode",
    "subnet",
    "uplink",
    "mtu",
    "mac-table-size",
    "mac-aging",
    "hosts",
    "tftp",
    "dhcp",
    "forward",
    "loopback",
    "reflect",
    "external-ids",
];
const PORT_KEYS: [&str; 12] = [
    "name",
    "network",
    "type",
    "cable",
    "promiscuous",
    "mac",
    "spoof",
    "tag",
    "trunks",
    "vlan-mode",
    "forward",
    "external-ids",
];
const VHOST_KEYS: [&str; 6] =
    ["path", "role", "queues", "socket-owner", "socket-group", "socket-mode"];
const TAP_KEYS: [&str; 3] = ["ifname", "netns", "address"];

/// Reads the configuration of the system's daemon; `file` is the name that diagnostics bear.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn parse(text: &str, file: &str) -> Result<Config, Vec<Diagnostic>> {
    parse_at(text, file, &Folders::system())
}

/// As [`parse`], for a daemon with these folders.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn parse_at(text: &str, file: &str, folders: &Folders) -> Result<Config, Vec<Diagnostic>> {
    parse_on(text, file, folders, |_| Vec::new())
}

/// As [`parse_at`], with further problems that `look` finds in a configuration, such as its host's.
///
/// # Errors
/// Everything that is wrong with the text, in its order.
pub fn parse_on(
    text: &str,
    file: &str,
    folders: &Folders,
    look: impl FnOnce(&Config) -> Vec<Problem>,
) -> Result<Config, Vec<Diagnostic>> {
    let mut report = Report::new(text, file);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let (message, remedy) = syntax_fault(error.message());
        report.add(offset, "", message, remedy);
    }
    if !report.is_clean() {
        return Err(report.finish());
    }
    let config = read_document(document.get_ref(), folders, &mut report);
    report.add_problems(validate(&config));
    report.add_problems(look(&config));
    if report.is_clean() { Ok(config) } else { Err(report.finish()) }
}

fn syntax_fault(message: &str) -> (String, String) {
    match message {
        "duplicate key" => ("this key is there twice".into(), "keep one of the two".into()),
        other => (format!("not TOML: {other}"), "see https://toml.io for its rules".into()),
    }
}

fn read_document<'d>(
    document: &'d DeTable<'d>,
    folders: &Folders,
    report: &mut Report<'_>,
) -> Config {
    let daemon = DaemonConfig::at(folders.clone());
    let mut config = Config { daemon, ..Config::default() };
    for (key, value) in document {
        let offset = key.span().start;
        match key.get_ref().as_ref() {
            "daemon" => {
                if let DeValue::Table(table) = value.get_ref() {
                    let start = value.span().start;
                    let path = table_path(Place::Daemon, "");
                    let mut reader = Reader::new(report, table, start, Place::Daemon, path);
                    config.daemon = read_daemon(&mut reader, config.daemon);
                } else {
                    let message = format!("is {}, not a table", type_name(value.get_ref()));
                    report.add(offset, "daemon", message, "write [daemon] and its keys below");
                }
            }
            "network" => {
                for (index, table, start) in tables(value, offset, "network", report) {
                    let place = Place::Network(index);
                    let path = table_path(place, name_of(table));
                    let mut reader = Reader::new(report, table, start, place, path);
                    config.networks.push(read_network(&mut reader, index));
                }
            }
            "port" => {
                for (index, table, start) in tables(value, offset, "port", report) {
                    let place = Place::Port(index);
                    let path = table_path(place, name_of(table));
                    let mut reader = Reader::new(report, table, start, place, path);
                    config.ports.push(read_port(&mut reader));
                }
            }
            other => {
                let known = ["daemon", "network", "port"];
                let remedy = match super::nearest(other, &known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "remove it; known here: [daemon], [[network]], [[port]]".to_owned(),
                };
                report.add(offset, other, "unknown key", remedy);
            }
        }
    }
    config
}

/// The tables of an array of tables with their numbers and offsets; what is none is noted.
fn tables<'d>(
    value: &'d Spanned<DeValue<'d>>,
    offset: usize,
    key: &str,
    report: &mut Report<'_>,
) -> Vec<(usize, &'d DeTable<'d>, usize)> {
    let DeValue::Array(items) = value.get_ref() else {
        let message = format!("is {}, not a list of tables", type_name(value.get_ref()));
        report.add(offset, key, message, format!("write [[{key}]] with two brackets"));
        return Vec::new();
    };
    let mut tables = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::Table(table) => tables.push((tables.len(), table, item.span().start)),
            other => {
                let message = format!("is {}, not a table", type_name(other));
                let remedy = format!("write [[{key}]] and its keys below");
                report.add(item.span().start, key, message, remedy);
            }
        }
    }
    tables
}

/// The name of a network or port, empty if it cannot be told.
fn name_of<'d>(table: &'d DeTable<'d>) -> &'d str {
    table.get("name").and_then(|name| name.get_ref().as_str()).unwrap_or_default()
}

fn read_daemon(reader: &mut Reader<'_, '_, '_>, default: DaemonConfig) -> DaemonConfig {
    reader.refuse_unknown(&DAEMON_KEYS, |_| None);
    let spin = reader.string("spin").and_then(|text| {
        let spin = match text.as_str() {
            "always" => Some(Spin::Always),
            "never" => Some(Spin::For(std::time::Duration::ZERO)),
            time => parse_duration(time).map(Spin::For),
        };
        reader.converted("spin", spin, || {
            let remedy = r#"use "20us", "0us" for never, or "always""#;
            (format!("{text:?} is not a time"), remedy.to_owned())
        })
    });
    let metrics = reader.string("metrics").and_then(|text| {
        reader.converted("metrics", text.parse().ok(), || {
            let remedy = r#"write "127.0.0.1:9477" or "[::1]:9477""#;
            (format!("{text:?} is not an address and port"), remedy.to_owned())
        })
    });
    DaemonConfig {
        folders: default.folders,
        group: reader.text_or_number("group"),
        socket_group: reader.text_or_number("socket-group"),
        socket_mode: read_socket_mode(reader),
        control: reader.string("control").map_or(default.control, Into::into),
        state: reader.string("state").map_or(default.state, Into::into),
        metrics,
        workers: reader.integer("workers").unwrap_or(default.workers),
        spin: spin.unwrap_or(default.spin),
    }
}

fn read_socket_mode(reader: &mut Reader<'_, '_, '_>) -> Option<SocketMode> {
    let text = reader.string("socket-mode")?;
    reader.converted("socket-mode", parse_mode(&text).ok().map(SocketMode), || {
        (format!("{text:?} is not a socket's mode"), r#"use "0600" to "0666""#.to_owned())
    })
}

fn read_network(reader: &mut Reader<'_, '_, '_>, index: usize) -> Network {
    reader.refuse_unknown(&NETWORK_KEYS, |_| None);
    let default = Network::new(String::new());
    Network {
        name: reader.string("name").unwrap_or_default(),
        mode: read_mode(reader),
        subnet: read_addresses(reader, "subnet"),
        uplink: reader.string("uplink"),
        mtu: reader.size("mtu").unwrap_or(default.mtu),
        mac_table_size: reader.size("mac-table-size").unwrap_or(default.mac_table_size),
        mac_aging: reader.duration("mac-aging").unwrap_or(default.mac_aging),
        hosts: read_hosts(reader),
        tftp: reader.string("tftp").map(Into::into),
        dhcp: super::dhcp_file::read(reader, index),
        forward: read_rules(reader, "forward"),
        loopback: read_rules(reader, "loopback"),
        reflect: read_reflect(reader),
        external_ids: reader.map("external-ids").unwrap_or_default().into_iter().collect(),
    }
}

fn read_mode(reader: &mut Reader<'_, '_, '_>) -> Mode {
    if !reader.has("mode") {
        return Mode::Internal;
    }
    let modes = Mode::ALL.map(|mode| (mode.name(), mode));
    let mode = reader.word("mode", &modes);
    if mode.is_none() {
        // Which mode they belong to is not known.
        ["subnet", "uplink", "hosts", "tftp", "dhcp", "forward", "loopback", "reflect"]
            .iter()
            .for_each(|key| reader.mark_broken(key));
    }
    mode.unwrap_or(Mode::Internal)
}

fn read_port(reader: &mut Reader<'_, '_, '_>) -> Port {
    let name = reader.string("name").unwrap_or_default();
    let kind = read_kind(reader);
    refuse_unknown_port_keys(reader, kind);
    let modes = VlanMode::ALL.map(|mode| (mode.name(), mode));
    let promiscuous = Promiscuous::ALL.map(|word| (word.name(), word));
    let (interface, socket) = match kind {
        Some(Kind::Tap) => (Interface::Tap(read_tap(reader, &name)), SocketAccess::default()),
        Some(Kind::VhostUser) => {
            (Interface::VhostUser(read_vhost_user(reader)), read_socket_access(reader))
        }
        None => (Interface::VhostUser(stand_in(reader)), SocketAccess::default()),
    };
    Port {
        socket,
        network: reader.string("network"),
        vlan: Vlan {
            tag: reader.integer("tag"),
            trunks: reader.integers("trunks").unwrap_or_default(),
            mode: reader.word("vlan-mode", &modes),
        },
        cable: reader.boolean("cable").unwrap_or(true),
        promiscuous: reader.word("promiscuous", &promiscuous).unwrap_or(Promiscuous::Deny),
        mac: read_mac(reader),
        spoof: reader.word("spoof", &[("allow", true), ("deny", false)]).unwrap_or(true),
        forward: read_rules(reader, "forward"),
        external_ids: reader.map("external-ids").unwrap_or_default().into_iter().collect(),
        ..Port::new(name, interface)
    }
}

fn read_mac(reader: &mut Reader<'_, '_, '_>) -> Option<MacAddr> {
    let text = reader.string("mac")?;
    reader.converted("mac", text.parse().ok(), || {
        (format!("{text:?} is not a MAC address"), "write it as 52:54:00:12:34:56".to_owned())
    })
}

/// What plugs into a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    VhostUser,
    Tap,
}

fn read_kind(reader: &mut Reader<'_, '_, '_>) -> Option<Kind> {
    let words = [("vhost-user", Kind::VhostUser), ("tap", Kind::Tap)];
    if !reader.has("type") {
        return reader.converted("type", None, || {
            ("is missing".to_owned(), r#"add type = "vhost-user" or "tap""#.to_owned())
        });
    }
    reader.word("type", &words)
}

fn refuse_unknown_port_keys(reader: &mut Reader<'_, '_, '_>, kind: Option<Kind>) {
    let (own, foreign, other): (&[&str], &[&str], _) = match kind {
        Some(Kind::VhostUser) => (&VHOST_KEYS, &TAP_KEYS, "tap"),
        Some(Kind::Tap) => (&TAP_KEYS, &VHOST_KEYS, "vhost-user"),
        None => (&[], &[], ""),
    };
    let mut known: Vec<&str> = PORT_KEYS.iter().chain(own).copied().collect();
    if kind.is_none() {
        known.extend(VHOST_KEYS.iter().chain(&TAP_KEYS));
    }
    reader.refuse_unknown(&known, |key| {
        if foreign.contains(&key) {
            let message = format!("belongs to ports of type {other:?}");
            Some((message, format!("remove it, or set type = {other:?}")))
        } else {
            None
        }
    });
}

/// The type could not be told: validation must not judge this.
fn stand_in(reader: &mut Reader<'_, '_, '_>) -> VhostUser {
    VHOST_KEYS.iter().for_each(|key| reader.mark_broken(key));
    VhostUser { path: Default::default(), role: Role::Server, queues: 1 }
}

fn read_socket_access(reader: &mut Reader<'_, '_, '_>) -> SocketAccess {
    SocketAccess {
        owner: reader.text_or_number("socket-owner"),
        group: reader.text_or_number("socket-group"),
        mode: read_socket_mode(reader),
    }
}

fn read_vhost_user(reader: &mut Reader<'_, '_, '_>) -> VhostUser {
    let roles = [("server", Role::Server), ("client", Role::Client)];
    VhostUser {
        path: reader.string("path").unwrap_or_default().into(),
        role: reader.word("role", &roles).unwrap_or(Role::Server),
        queues: reader.integer("queues").unwrap_or(1),
    }
}

fn read_tap(reader: &mut Reader<'_, '_, '_>, name: &str) -> Tap {
    Tap {
        ifname: reader.string("ifname").unwrap_or_else(|| name.to_owned()),
        netns: reader.string("netns"),
        address: read_addresses(reader, "address"),
    }
}

/// One rule, or a list of such.
fn read_reflect(reader: &mut Reader<'_, '_, '_>) -> Vec<Discovery> {
    let mut protocols = Vec::new();
    for (offset, text) in reader.strings("reflect").unwrap_or_default() {
        match Discovery::ALL.into_iter().find(|known| known.name() == text) {
            Some(known) if protocols.contains(&known) => {
                reader.fault("reflect", offset, format!("{text:?} is there twice"), "remove one");
            }
            Some(known) => protocols.push(known),
            None => {
                let remedy = r#"use "mdns", "ssdp", or both"#;
                reader.fault("reflect", offset, format!("{text:?} is not known"), remedy);
            }
        }
    }
    protocols
}

fn read_rules(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match Rule::parse(&text) {
            Ok(rule) => rules.push(rule),
            Err((message, remedy)) => reader.fault(key, offset, message, remedy),
        }
    }
    rules
}

/// A table of names and their addresses.
fn read_hosts(reader: &mut Reader<'_, '_, '_>) -> BTreeMap<String, IpAddr> {
    let mut hosts = BTreeMap::new();
    for (name, text) in reader.map("hosts").unwrap_or_default() {
        let address = reader.converted("hosts", text.parse().ok(), || {
            let remedy = r#"write it as in hosts = { web = "10.1.0.7" }"#;
            (format!("{text:?} of {name} is not an address"), remedy.to_owned())
        });
        hosts.extend(address.map(|address| (name, address)));
    }
    hosts
}

/// One address with its prefix length, or a list of such.
fn read_addresses(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Vec<(IpAddr, u8)> {
    let mut addresses = Vec::new();
    for (offset, text) in reader.strings(key).unwrap_or_default() {
        match parse_address(&text) {
            Ok(pair) => addresses.push(pair),
            Err((message, remedy)) => reader.fault(key, offset, message, remedy),
        }
    }
    addresses
}

/// An address, or a subnet, with its prefix length: `10.1.0.1/24`.
pub(crate) fn parse_address(text: &str) -> Result<(IpAddr, u8), (String, &'static str)> {
    let Some((address, prefix)) = text.split_once('/') else {
        let remedy = "add its length, as in 10.1.0.1/24";
        return Err(match text.parse::<IpAddr>() {
            Ok(_) => (format!("{text:?} has no prefix"), remedy),
            Err(_) => (format!("{text:?} is not an address"), "write it as in 10.1.0.1/24"),
        });
    };
    match (address.parse(), prefix.parse()) {
        (Ok(address), Ok(prefix)) => Ok((address, prefix)),
        _ => Err((format!("{text:?} is not an address"), "write it as in 10.1.0.1/24")),
    }
}

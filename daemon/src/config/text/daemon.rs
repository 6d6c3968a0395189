//! The keys of `[daemon]`, read and written.

use toml_edit::Array;

use super::field::{Field, map_field, number, path};
use super::reader::Reader;
use super::socket;
use super::units::format_bytes;
use crate::Fault;
use crate::config::model::{DaemonConfig, Sandbox};

const KEYS: [&str; 16] = [
    "control",
    "group",
    "socket-group",
    "socket-mode",
    "state",
    "metrics",
    "web",
    "web-write",
    "web-hosts",
    "workers",
    "spin",
    "sandbox",
    "capture",
    "capture-ring",
    "events",
    "openvswitch",
];

const SANDBOXES: [Sandbox; 3] = [Sandbox::Enforce, Sandbox::Log, Sandbox::Off];

/// Reads the table; `default` has the values of keys that are absent.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>, default: DaemonConfig) -> DaemonConfig {
    reader.refuse_unknown(&KEYS, |_| None);
    let spin = reader.string("spin").and_then(|text| {
        reader.converted("spin", text.parse().ok(), || {
            let remedy = r#"use "20us", "0us" for never, or "always""#;
            Fault::new(format!("{text:?} is not a time"), remedy)
        })
    });
    let metrics = reader.string("metrics").and_then(|text| {
        reader.converted("metrics", text.parse().ok(), || {
            let remedy = r#"write "127.0.0.1:9477" or "[::1]:9477""#;
            Fault::new(format!("{text:?} is not an address and port"), remedy)
        })
    });
    let web = reader.string("web").and_then(|text| {
        reader.converted("web", text.parse().ok(), || {
            let remedy = r#"write "127.0.0.1:9478", "[::1]:9478" or "unix:/run/trama/web.sock""#;
            Fault::new(format!("{text:?} is not an address and port"), remedy)
        })
    });
    let hosts = reader.strings("web-hosts").unwrap_or_default();
    let sandbox = reader.word("sandbox", &SANDBOXES.map(|mode| (mode.name(), mode)));
    DaemonConfig {
        folders: default.folders,
        group: reader.text_or_number("group"),
        socket_group: reader.text_or_number("socket-group"),
        socket_mode: socket::read_mode(reader),
        control: reader.string("control").map_or(default.control, Into::into),
        state: reader.string("state").map_or(default.state, Into::into),
        metrics,
        web,
        web_write: reader.boolean("web-write").unwrap_or(default.web_write),
        web_hosts: hosts.into_iter().map(|(_, name)| name).collect(),
        workers: reader.integer("workers").unwrap_or(default.workers),
        spin: spin.unwrap_or(default.spin),
        sandbox: sandbox.unwrap_or(default.sandbox),
        capture: reader.boolean("capture").unwrap_or(default.capture),
        capture_ring: reader.size("capture-ring"),
        events: reader.integer("events").unwrap_or(default.events),
        openvswitch: reader.map("openvswitch").unwrap_or_default().into_iter().collect(),
    }
}

/// The keys of `[daemon]`.
pub(super) fn fields(daemon: &DaemonConfig) -> Vec<Field> {
    let default = DaemonConfig::at(daemon.folders.clone());
    vec![
        Field::new("control", path(&daemon.control), daemon.control == default.control),
        Field::optional("group", daemon.group.as_deref()),
        Field::optional("socket-group", daemon.socket_group.as_deref()),
        Field::optional("socket-mode", daemon.socket_mode.map(|mode| mode.to_string())),
        Field::new("state", path(&daemon.state), daemon.state == default.state),
        Field::optional("metrics", daemon.metrics.map(|address| address.to_string())),
        Field::optional("web", daemon.web.as_ref().map(ToString::to_string)),
        Field::new("web-write", daemon.web_write, daemon.web_write == default.web_write),
        Field::new("web-hosts", Array::from_iter(&daemon.web_hosts), daemon.web_hosts.is_empty()),
        Field::new("workers", number(daemon.workers), daemon.workers == default.workers),
        Field::new("spin", daemon.spin.to_string(), daemon.spin == default.spin),
        Field::new("sandbox", daemon.sandbox.name(), daemon.sandbox == default.sandbox),
        Field::new("capture", daemon.capture, daemon.capture == default.capture),
        Field::optional("capture-ring", daemon.capture_ring.map(|it| format_bytes(it as u64))),
        Field::new("events", number(daemon.events), daemon.events == default.events),
        map_field("openvswitch", &daemon.openvswitch),
    ]
}

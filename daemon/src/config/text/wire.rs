//! The keys of `[[port]]` for byte streams and datagrams.

use std::net::SocketAddr;

use super::field::{Field, path};
use super::reader::Reader;
use crate::Fault;
use crate::config::model::wire::{Dgram, Place, Stream};
use crate::config::model::{Port, Role};

pub(super) const STREAM_KEYS: [&str; 7] =
    ["path", "address", "role", "connections", "socket-owner", "socket-group", "socket-mode"];

pub(super) const DGRAM_KEYS: [&str; 7] =
    ["path", "peer", "local", "remote", "socket-owner", "socket-group", "socket-mode"];

pub(super) fn read_stream(reader: &mut Reader<'_, '_, '_>) -> Stream {
    let roles = Role::ALL.map(|role| (role.name(), role));
    if reader.has("path") && reader.has("address") {
        refuse(reader, "address", "there is a path as well", "remove one of them");
    }
    let place = match read_address(reader, "address") {
        Some(address) => Place::Address(address),
        None => Place::Path(reader.string("path").unwrap_or_default().into()),
    };
    Stream {
        place,
        role: reader.word("role", &roles).unwrap_or(Role::Server),
        connections: reader.integer("connections").unwrap_or(1),
    }
}

pub(super) fn read_dgram(reader: &mut Reader<'_, '_, '_>) -> Dgram {
    for (key, other) in [("local", "remote"), ("remote", "local")] {
        if !reader.has(key) {
            continue;
        }
        if let Some(of_unix) = ["path", "peer"].into_iter().find(|key| reader.has(key)) {
            let message = format!("is of UDP, and {of_unix} of a Unix socket");
            refuse(reader, key, message, "remove one of them");
        } else if !reader.has(other) {
            let remedy = format!("add {other} = \"ADDRESS:PORT\"");
            refuse(reader, key, format!("needs {other} as well"), remedy);
        }
    }
    match (read_address(reader, "local"), read_address(reader, "remote")) {
        (Some(local), Some(remote)) => Dgram::Udp { local, remote },
        _ => Dgram::Unix {
            path: reader.string("path").unwrap_or_default().into(),
            peer: reader.string("peer").map(Into::into),
        },
    }
}

fn refuse(
    reader: &mut Reader<'_, '_, '_>,
    key: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) {
    reader.converted::<()>(key, None, || Fault::new(message, remedy));
}

fn read_address(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> Option<SocketAddr> {
    let text = reader.string(key)?;
    reader.converted(key, text.parse().ok(), || {
        let message = format!("{text:?} is not an address with a port");
        Fault::new(message, "write it as 127.0.0.1:5555 or [::1]:5555")
    })
}

pub(super) fn stream_fields(port: &Port, device: &Stream) -> Vec<Field> {
    let (stated, address) = match &device.place {
        Place::Path(it) => ((!it.as_os_str().is_empty()).then(|| path(it)), None),
        Place::Address(address) => (None, Some(address.to_string())),
    };
    let connections = i64::from(device.connections);
    let mut fields = vec![
        Field::new("type", "stream", false),
        Field::optional("path", stated),
        Field::optional("address", address),
        Field::new("role", device.role.name(), device.role == Role::Server),
        Field::new("connections", connections, connections == 1),
    ];
    fields.extend(access_fields(port));
    fields
}

pub(super) fn dgram_fields(port: &Port, device: &Dgram) -> Vec<Field> {
    let mut fields = vec![Field::new("type", "dgram", false)];
    let (unix, udp) = match device {
        Dgram::Unix { path: it, peer } => {
            let stated = (!it.as_os_str().is_empty()).then(|| path(it));
            ([stated, peer.as_deref().map(path)], [None, None])
        }
        Dgram::Udp { local, remote } => {
            ([None, None], [local, remote].map(|it| Some(it.to_string())))
        }
    };
    let values = ["path", "peer", "local", "remote"].into_iter().zip(unix.into_iter().chain(udp));
    fields.extend(values.map(|(key, value)| Field::optional(key, value)));
    fields.extend(access_fields(port));
    fields
}

/// The keys of a port's socket.
pub(super) fn access_fields(port: &Port) -> [Field; 3] {
    let mode = port.socket.mode.map(|mode| mode.to_string());
    [
        Field::optional("socket-owner", port.socket.owner.as_deref()),
        Field::optional("socket-group", port.socket.group.as_deref()),
        Field::optional("socket-mode", mode),
    ]
}

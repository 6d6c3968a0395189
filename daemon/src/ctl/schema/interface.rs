//! The table Interface: the device on each port of the configuration, and its state.

use trama_api::value::{Atom, Pairs, Value};

use super::column::{
    Column, OPTIONS, STRING, STRING_OR_NONE, STRINGS, UUID, external_ids, fixed, free,
    set_external_ids, uuid_of, words,
};
use crate::ctl::draft::Draft;
use crate::drop_kinds::{Kind as DropKind, dropped};
use crate::status::{PortStatus, SocketStatus};
use crate::value_type::{Kind, Shape, Type, string_map};

const NUMBER_OR_NONE: Type = Type::new(Kind::Integer(i64::MIN, i64::MAX), Shape::Optional);
const UP_DOWN: Type = Type::new(Kind::Enum(&["down", "up"]), Shape::Optional);
const COUNTS: Type = Type::new(Kind::Integer(i64::MIN, i64::MAX), Shape::Map);

/// The columns.
pub(super) static COLUMNS: [Column; 13] = [
    fixed("_uuid", UUID, |_, name| uuid_of("Interface", name)),
    fixed("admin_state", UP_DOWN, |view, name| {
        let port = view.snapshot.status.port(name).and_then(|_| view.draft.port(name));
        Value::optional(port.map(|port| up_down(port.cable)))
    }),
    fixed("error", STRING_OR_NONE, |view, name| {
        let port = view.snapshot.status.port(name);
        let trouble = port.and_then(|port| port.trouble());
        Value::optional(trouble.map(Atom::string))
    }),
    free("external_ids", STRINGS, external_ids, set_external_ids),
    fixed("link_state", UP_DOWN, |view, name| {
        Value::optional(view.snapshot.status.port(name).map(|port| up_down(port.link)))
    }),
    fixed("mac_in_use", STRING_OR_NONE, |view, name| {
        let port = view.snapshot.status.port(name);
        Value::optional(port.and_then(|port| port.mac.clone()).map(Atom::string))
    }),
    fixed("mtu", NUMBER_OR_NONE, |view, name| {
        let network = view.draft.port(name).and_then(|port| port.network.as_deref());
        let network = network.and_then(|network| view.draft.network(network));
        Value::optional(network.map(|network| u64::from(network.mtu).into()))
    }),
    fixed("name", STRING, |_, name| Value::string(name)),
    fixed("ofport", NUMBER_OR_NONE, |view, name| {
        Value::optional(view.snapshot.numbers.get(name).map(|number| u64::from(*number).into()))
    }),
    free(
        OPTIONS,
        STRINGS,
        |view, name| Value::strings(view.draft.interface(name).1),
        |draft, name, value| {
            draft.set_options(name, string_map(value));
            Ok(())
        },
    ),
    fixed("statistics", COUNTS, |view, name| {
        view.snapshot.status.port(name).map_or(Value::Map(Pairs::default()), statistics)
    }),
    fixed("status", STRINGS, |view, name| {
        view.snapshot.status.port(name).map_or(Value::Map(Pairs::default()), session)
    }),
    free(
        "type",
        STRING,
        |view, name| Value::string(view.draft.interface(name).0),
        |draft, name, value| {
            draft.set_kind(name, words(&value).next().unwrap_or_default());
            Ok(())
        },
    ),
];

fn up_down(up: bool) -> Atom {
    Atom::string(if up { "up" } else { "down" })
}

/// The interfaces whose sockets have this file name.
pub(super) fn by_socket(draft: &Draft, file: &str) -> Vec<String> {
    let has_it = |name: &String| {
        let path = draft.socket_file(name);
        path.is_some_and(|path| path.file_name().is_some_and(|it| it == file))
    };
    let names = draft.ports().iter().map(|port| port.name.clone());
    names.filter(has_it).collect()
}

/// The `statistics` column, with the keys of Open vSwitch where it has them.
fn statistics(port: &PortStatus) -> Value {
    let counts = &port.counters;
    // Of fifty reasons most have dropped nothing.
    let drops: Vec<_> = counts.drops.iter().copied().filter(|(_, count)| *count > 0).collect();
    let mut all = vec![
        ("rx_errors", dropped(&drops, DropKind::FromPortFaulty)),
        ("rx_dropped", dropped(&drops, DropKind::FromPort)),
        ("tx_errors", dropped(&drops, DropKind::ToPortFaulty)),
        ("tx_dropped", dropped(&drops, DropKind::ToPort)),
        ("rx_packets", counts.rx_frames),
        ("rx_bytes", counts.rx_bytes),
        ("tx_packets", counts.tx_frames),
        ("tx_bytes", counts.tx_bytes),
        ("dropped", counts.dropped()),
    ];
    all.extend(&counts.others);
    // Names alone are sorted faster than pairs of atoms.
    all.sort_unstable_by_key(|(name, _)| *name);
    Value::counts(all)
}

/// The state of a stream or datagram port's socket.
fn socket(socket: &SocketStatus) -> Value {
    let pairs = [
        ("state", Some(socket.state.to_owned())),
        ("location", Some(socket.location.clone())),
        ("connects", socket.connects.map(|connects| connects.to_string())),
        ("peer", socket.peer.clone()),
        ("last_error", socket.last_error.clone()),
    ];
    Value::strings(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

/// The `status` column: the state of a vhost-user session or of a socket.
fn session(port: &PortStatus) -> Value {
    if let Some(status) = &port.socket {
        return socket(status);
    }
    let Some(vhost) = &port.vhost else { return Value::Map(Pairs::default()) };
    let mut pairs = vec![
        ("state", vhost.state.to_owned()),
        ("path", vhost.path.display().to_string()),
        ("connects", vhost.connects.to_string()),
        ("features", format!("{:#x}", vhost.features)),
        ("queue_pairs", vhost.queue_pairs.to_string()),
    ];
    if vhost.memory_mapped != 0 {
        pairs.push(("memory_mapped", vhost.memory_mapped.to_string()));
        pairs.push(("memory_populated", vhost.memory_populated.to_string()));
    }
    if let Some(peer) = &vhost.peer {
        pairs.push(("peer", peer.clone()));
    }
    if !vhost.waiting.is_empty() {
        pairs.push(("waiting", vhost.waiting.len().to_string()));
        pairs.push(("waiting_peers", vhost.waiting.join(", ")));
    }
    if let Some(error) = &vhost.last_error {
        pairs.push(("last_error", error.clone()));
    }
    Value::strings(pairs)
}

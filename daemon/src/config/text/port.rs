//! The keys of a `[[port]]`, read and written.

use std::collections::BTreeMap;

use toml_edit::Array;
use trama_frame::MacAddr;

use super::field::{Field, map_field, path};
use super::reader::Reader;
use super::units::format_bytes;
use super::{address, rule, socket, tunnel, wire};
use crate::Fault;
use crate::config::model::socket::SocketAccess;
use crate::config::model::{
    Attached, AttachedKind, Interface, LoopMode, MemoryLimits, Port, Promiscuous, Role, STORM,
    Spoof, StormLimits, System, Tap, VhostUser, Vlan, VlanModeName,
};
use crate::config::rules::port::too_long_prefix;

const KEYS: [&str; 20] = [
    "name",
    "network",
    "type",
    "cable",
    "promiscuous",
    "mac",
    "addresses",
    "names",
    "spoof",
    "storm-broadcast",
    "storm-multicast",
    "storm-unknown",
    "loop",
    "tag",
    "trunks",
    "vlan-mode",
    "forward",
    "external-ids",
    "openvswitch",
    "openvswitch-interface",
];

const VHOST_KEYS: [&str; 8] = [
    "path",
    "role",
    "queues",
    "socket-owner",
    "socket-group",
    "socket-mode",
    "memory-max",
    "memory-populate",
];

const TAP_KEYS: [&str; 3] = ["ifname", "netns", "address"];

const SYSTEM_KEYS: [&str; 3] = ["ifname", "netns", "confirm-uplink"];

/// Reads the table.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>) -> Port {
    let name = reader.string("name").unwrap_or_default();
    let kind = read_kind(reader);
    refuse_unknown(reader, kind);
    let modes = VlanModeName::ALL.map(|mode| (mode.name(), mode));
    let promiscuous = Promiscuous::ALL.map(|word| (word.name(), word));
    let spoof = Spoof::ALL.map(|word| (word.name(), word));
    let loop_modes = LoopMode::ALL.map(|word| (word.name(), word));
    let (interface, socket) = match kind {
        Some(Kind::Tap) => (Interface::Tap(read_tap(reader, &name)), SocketAccess::default()),
        Some(Kind::System) => {
            (Interface::System(read_system(reader, &name)), SocketAccess::default())
        }
        Some(Kind::Stream) => {
            (Interface::Stream(wire::read_stream(reader)), read_socket_access(reader))
        }
        Some(Kind::Dgram) => {
            (Interface::Dgram(wire::read_dgram(reader)), read_socket_access(reader))
        }
        Some(Kind::Vxlan) => (Interface::Vxlan(tunnel::read(reader)), SocketAccess::default()),
        Some(Kind::VhostUser) => {
            (Interface::VhostUser(read_vhost_user(reader)), read_socket_access(reader))
        }
        None => (Interface::VhostUser(placeholder(reader)), SocketAccess::default()),
    };
    let is_vhost = kind == Some(Kind::VhostUser);
    Port {
        socket,
        memory: if is_vhost { read_memory(reader) } else { MemoryLimits::default() },
        network: reader.string("network"),
        vlan: Vlan {
            tag: reader.integer("tag"),
            trunks: reader.integers("trunks").unwrap_or_default(),
            mode: reader.word("vlan-mode", &modes),
        },
        cable: reader.boolean("cable").unwrap_or(true),
        promiscuous: reader.word("promiscuous", &promiscuous).unwrap_or(Promiscuous::Deny),
        mac: read_mac(reader),
        addresses: address::read_plain(reader, "addresses"),
        names: reader.strings("names").unwrap_or_default().into_iter().map(|it| it.1).collect(),
        spoof: reader.word("spoof", &spoof).unwrap_or_default(),
        storm: StormLimits {
            broadcast: reader.integer("storm-broadcast").unwrap_or(STORM.broadcast),
            multicast: reader.integer("storm-multicast").unwrap_or(STORM.multicast),
            unknown: reader.integer("storm-unknown").unwrap_or(STORM.unknown),
        },
        loop_mode: reader.word("loop", &loop_modes).unwrap_or_default(),
        forward: rule::read(reader, "forward"),
        external_ids: read_map(reader, "external-ids"),
        openvswitch: read_map(reader, "openvswitch"),
        openvswitch_interface: read_map(reader, "openvswitch-interface"),
        ..Port::new(name, interface)
    }
}

fn read_map(reader: &mut Reader<'_, '_, '_>, key: &'static str) -> BTreeMap<String, String> {
    reader.map(key).unwrap_or_default().into_iter().collect()
}

fn read_mac(reader: &mut Reader<'_, '_, '_>) -> Option<MacAddr> {
    let text = reader.string("mac")?;
    reader.converted("mac", text.parse().ok(), || {
        Fault::new(format!("{text:?} is not a MAC address"), "write it as 52:54:00:12:34:56")
    })
}

/// The type of a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    VhostUser,
    Tap,
    System,
    Stream,
    Dgram,
    Vxlan,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::VhostUser, Kind::Tap, Kind::System, Kind::Stream, Kind::Dgram, Kind::Vxlan];

    fn name(self) -> &'static str {
        match self {
            Kind::VhostUser => "vhost-user",
            Kind::Tap => "tap",
            Kind::System => "system",
            Kind::Stream => "stream",
            Kind::Dgram => "dgram",
            Kind::Vxlan => "vxlan",
        }
    }

    /// The keys of such ports alone.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::VhostUser => &VHOST_KEYS,
            Kind::Tap => &TAP_KEYS,
            Kind::System => &SYSTEM_KEYS,
            Kind::Stream => &wire::STREAM_KEYS,
            Kind::Dgram => &wire::DGRAM_KEYS,
            Kind::Vxlan => &tunnel::KEYS,
        }
    }
}

/// The names of types, quoted.
fn quoted_names(kinds: impl IntoIterator<Item = Kind>) -> String {
    let names = kinds.into_iter().map(|kind| format!("{:?}", kind.name()));
    names.collect::<Vec<_>>().join(" or ")
}

fn read_kind(reader: &mut Reader<'_, '_, '_>) -> Option<Kind> {
    if !reader.has("type") {
        return reader.converted("type", None, || {
            Fault::new("is missing", format!("add type = {}", quoted_names(Kind::ALL)))
        });
    }
    reader.word("type", &Kind::ALL.map(|kind| (kind.name(), kind)))
}

fn refuse_unknown(reader: &mut Reader<'_, '_, '_>, kind: Option<Kind>) {
    let own = Kind::ALL.into_iter().filter(|it| kind.is_none_or(|kind| kind == *it));
    let own = own.flat_map(Kind::keys);
    let known: Vec<&str> = KEYS.iter().chain(own).copied().collect();
    reader.refuse_unknown(&known, |key| {
        let owners = quoted_names(Kind::ALL.into_iter().filter(|kind| kind.keys().contains(&key)));
        let message = format!("belongs to ports of type {owners}");
        let fault = Fault::new(message, format!("remove it, or set type = {owners}"));
        (!owners.is_empty()).then_some(fault)
    });
}

/// The device of a port whose type cannot be read; validation ignores it.
fn placeholder(reader: &mut Reader<'_, '_, '_>) -> VhostUser {
    VHOST_KEYS.iter().for_each(|key| reader.mark_broken(key));
    VhostUser { path: Default::default(), role: Role::Server, queues: 1 }
}

fn read_socket_access(reader: &mut Reader<'_, '_, '_>) -> SocketAccess {
    SocketAccess {
        owner: reader.text_or_number("socket-owner"),
        group: reader.text_or_number("socket-group"),
        mode: socket::read_mode(reader),
    }
}

fn read_memory(reader: &mut Reader<'_, '_, '_>) -> MemoryLimits {
    MemoryLimits { max: reader.size("memory-max"), populate: reader.size("memory-populate") }
}

fn read_vhost_user(reader: &mut Reader<'_, '_, '_>) -> VhostUser {
    let roles = Role::ALL.map(|role| (role.name(), role));
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
        address: address::read(reader, "address", too_long_prefix),
    }
}

fn read_system(reader: &mut Reader<'_, '_, '_>, name: &str) -> System {
    System {
        ifname: reader.string("ifname").unwrap_or_else(|| name.to_owned()),
        netns: reader.string("netns"),
        confirm_uplink: reader.boolean("confirm-uplink").unwrap_or(false),
    }
}

/// The keys of a `[[port]]`.
pub(super) fn fields(port: &Port) -> Vec<Field> {
    let mut fields = vec![
        Field::new("name", port.name.as_str(), false),
        Field::optional("network", port.network.as_deref()),
    ];
    match &port.interface {
        Interface::VhostUser(device) => {
            fields.push(Field::new("type", port.interface.type_name(), false));
            let stated = (!device.path.as_os_str().is_empty()).then(|| path(&device.path));
            fields.push(Field::optional("path", stated));
            fields.push(Field::new("role", device.role.name(), device.role == Role::Server));
            fields.push(Field::new("queues", i64::from(device.queues), device.queues == 1));
            fields.extend(wire::access_fields(port));
            let memory =
                [("memory-max", port.memory.max), ("memory-populate", port.memory.populate)];
            fields.extend(memory.map(|(key, size)| Field::optional(key, size.map(format_bytes))));
        }
        Interface::Tap(device) => {
            fields.push(Field::new("type", "tap", false));
            fields.push(Field::new("ifname", device.ifname.as_str(), false));
            fields.push(Field::optional("netns", device.netns.as_deref()));
            fields.push(Field::optional("address", address::list(&device.address)));
        }
        Interface::Stream(device) => fields.extend(wire::stream_fields(port, device)),
        Interface::Dgram(device) => fields.extend(wire::dgram_fields(port, device)),
        Interface::Vxlan(device) => fields.extend(tunnel::fields(device)),
        Interface::System(device) => {
            fields.push(Field::new("type", "system", false));
            fields.push(Field::new("ifname", device.ifname.as_str(), device.ifname == port.name));
            fields.push(Field::optional("netns", device.netns.as_deref()));
            let confirmed = device.confirm_uplink;
            fields.push(Field::new("confirm-uplink", confirmed, !confirmed));
        }
        // As another port of its type, for the next switch, which knows of its descriptor.
        Interface::Attached(Attached { kind, place, .. }) => {
            fields.push(Field::new("type", kind.name(), false));
            let ifname = (*kind == AttachedKind::Tap).then_some(place.as_str());
            fields.push(Field::optional("ifname", ifname));
        }
        // An uplink has no table.
        Interface::Uplink(_) => {}
    }
    let storm = |key, limit: u32, default| Field::new(key, i64::from(limit), limit == default);
    let trunks = &port.vlan.trunks;
    let list = Array::from_iter(trunks.iter().map(|vlan| i64::from(*vlan)));
    fields.extend([
        Field::optional("tag", port.vlan.tag.map(i64::from)),
        Field::optional("trunks", (!trunks.is_empty()).then_some(list)),
        Field::optional("vlan-mode", port.vlan.mode.map(|mode| mode.name())),
        Field::new("cable", port.cable, port.cable),
        Field::new("promiscuous", port.promiscuous.name(), port.promiscuous == Promiscuous::Deny),
        Field::optional("mac", port.mac.map(|mac| mac.to_string())),
        Field::optional("addresses", address::list(&port.addresses)),
        Field::optional("names", address::list(&port.names)),
        Field::new("spoof", port.spoof.name(), port.spoof == Spoof::Allow),
        storm("storm-broadcast", port.storm.broadcast, STORM.broadcast),
        storm("storm-multicast", port.storm.multicast, STORM.multicast),
        storm("storm-unknown", port.storm.unknown, STORM.unknown),
        Field::new("loop", port.loop_mode.name(), port.loop_mode == LoopMode::default()),
        Field::optional("forward", rule::value(&port.forward)),
        map_field("external-ids", &port.external_ids),
        map_field("openvswitch", &port.openvswitch),
        map_field("openvswitch-interface", &port.openvswitch_interface),
    ]);
    fields
}

//! The tables Bridge, Port and Interface: their columns, what each holds, how it is read and set.
//!
//! A bridge is a network of the configuration. A port and its interface are two views of one
//! port of the configuration, with the same name. Columns that Open vSwitch has too bear its
//! names and mean the same; the others are `network`, `cable`, `promiscuous` and
//! `spoof` of Port, `mode`, `mtu`, `subnet`
//! and `uplink` of Bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trama_nat::Discovery;

use super::draft::Draft;
use super::identity;
use super::types::{Kind, Shape, Type, string_map};
use super::value::{Atom, Value};
use super::{Snapshot, live};
use crate::config::model::rule::Rule;
use crate::config::model::{Mode, Network, Port, Promiscuous, VlanMode};
use crate::config::text;

/// What a column is read from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The configuration under edit.
    pub draft: &'a Draft,
    /// What ran when the transaction began.
    pub snapshot: &'a Snapshot,
}

type Read = fn(View<'_>, &str) -> Value;
type Write = fn(&mut Draft, &str, Value) -> Result<(), String>;

/// One column.
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub of: Type,
    /// Reads it from the record of this name.
    pub read: Read,
    /// Sets it; `None` = read-only.
    pub write: Option<Write>,
}

/// One table.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// `_uuid` first, then in alphabetical order.
    pub columns: &'static [Column],
    /// The names of its records, sorted.
    pub records: fn(&Draft) -> Vec<String>,
}

/// All tables.
pub static TABLES: [Table; 3] = [
    Table { name: "Bridge", columns: &BRIDGE, records: bridge_names },
    Table { name: "Port", columns: &PORT, records: port_names },
    Table { name: "Interface", columns: &INTERFACE, records: port_names },
];

const VLAN_MODES: [(&str, VlanMode); 4] = [
    ("access", VlanMode::Access),
    ("native-tagged", VlanMode::NativeTagged),
    ("native-untagged", VlanMode::NativeUntagged),
    ("trunk", VlanMode::Trunk),
];

const STRING: Type = Type::new(Kind::String, Shape::One);
const STRING_OR_NONE: Type = Type::new(Kind::String, Shape::Optional);
const NUMBER_OR_NONE: Type = Type::new(Kind::Integer(0, i64::MAX), Shape::Optional);
const UP_DOWN: Type = Type::new(Kind::Enum(&["down", "up"]), Shape::Optional);
const STRINGS: Type = Type::new(Kind::String, Shape::Map);
const COUNTS: Type = Type::new(Kind::Integer(i64::MIN, i64::MAX), Shape::Map);
const UUID: Type = Type::new(Kind::Uuid, Shape::One);
const UUIDS: Type = Type::new(Kind::Uuid, Shape::Set);
const BOOL: Type = Type::new(Kind::Bool, Shape::One);
const MTU: Type = Type::new(Kind::Integer(68, 65521), Shape::One);
const MODE: Type =
    Type::new(Kind::Enum(&["bridged", "host-only", "internal", "nat", "nat-network"]), Shape::One);
const STRING_SET: Type = Type::new(Kind::String, Shape::Set);
const PROMISCUOUS: Type = Type::new(Kind::Enum(&["allow-all", "allow-vms", "deny"]), Shape::One);
const REFLECT: Type = Type::new(Kind::Enum(&["mdns", "ssdp"]), Shape::Set);
const SPOOF: Type = Type::new(Kind::Enum(&["allow", "deny"]), Shape::One);
const TAG: Type = Type::new(Kind::Integer(0, 4095), Shape::Optional);
const TRUNKS: Type = Type::new(Kind::Integer(0, 4095), Shape::Set);
const VLAN_MODE: Type = Type::new(
    Kind::Enum(&["access", "native-tagged", "native-untagged", "trunk"]),
    Shape::Optional,
);

const fn fixed(name: &'static str, of: Type, read: Read) -> Column {
    Column { name, of, read, write: None }
}

const fn free(name: &'static str, of: Type, read: Read, write: Write) -> Column {
    Column { name, of, read, write: Some(write) }
}

static BRIDGE: [Column; 12] = [
    fixed("_uuid", UUID, |_, name| uuid_of("Bridge", name)),
    free(
        "external_ids",
        STRINGS,
        |view, name| on_network(view, name, |network| Value::strings(&network.external_ids)),
        |draft, name, value| edit_network(draft, name, |it| it.external_ids = string_map(value)),
    ),
    free(
        "forward",
        STRING_SET,
        |view, name| on_network(view, name, |network| rules_of(&network.forward)),
        |draft, name, value| {
            let rules = rules(&value)?;
            edit_network(draft, name, |network| network.forward = rules)
        },
    ),
    free(
        "loopback",
        STRING_SET,
        |view, name| on_network(view, name, |network| rules_of(&network.loopback)),
        |draft, name, value| {
            let rules = rules(&value)?;
            edit_network(draft, name, |network| network.loopback = rules)
        },
    ),
    free(
        "mode",
        MODE,
        |view, name| on_network(view, name, |network| Value::string(network.mode.name())),
        |draft, name, value| {
            let word = words(&value).next();
            let mode = Mode::ALL.into_iter().find(|mode| Some(mode.name()) == word.as_deref());
            edit_network(draft, name, |network| network.mode = mode.unwrap_or(network.mode))
        },
    ),
    free(
        "mtu",
        MTU,
        |view, name| on_network(view, name, |network| Value::One(u64::from(network.mtu).into())),
        |draft, name, value| {
            let mtu = integers(&value).next().unwrap_or_default();
            edit_network(draft, name, |network| network.mtu = mtu)
        },
    ),
    fixed("name", STRING, |_, name| Value::string(name)),
    free(
        "other_config",
        STRINGS,
        |view, name| on_network(view, name, |network| Value::strings(&other_config(network))),
        set_other_config,
    ),
    fixed("ports", UUIDS, |view, name| {
        let ports = view.draft.ports_of(name);
        Value::Set(ports.into_iter().map(|port| Atom::Uuid(identity::of("Port", port))).collect())
    }),
    free(
        "reflect",
        REFLECT,
        |view, name| {
            on_network(view, name, |network| {
                let names = network.reflect.iter().map(|protocol| protocol.name().to_owned());
                Value::Set(names.map(Atom::String).collect())
            })
        },
        |draft, name, value| {
            let wanted: Vec<String> = words(&value).collect();
            let is_wanted = |it: &Discovery| wanted.iter().any(|name| name == it.name());
            let reflect = Discovery::ALL.into_iter().filter(is_wanted).collect();
            edit_network(draft, name, |network| network.reflect = reflect)
        },
    ),
    free(
        "subnet",
        STRING_SET,
        |view, name| {
            on_network(view, name, |network| {
                let subnets = network.subnets();
                let texts = subnets.iter().map(|(ip, prefix)| format!("{ip}/{prefix}"));
                Value::Set(texts.map(Atom::String).collect())
            })
        },
        |draft, name, value| {
            let subnet = words(&value).map(|text| text::parse_address(&text).map_err(|_| text));
            let subnet: Result<Vec<_>, String> = subnet.collect();
            let subnet = subnet.map_err(|text| {
                format!("{text:?} is not a subnet; write it as 192.168.56.0/24 or fd00:56::/64")
            })?;
            edit_network(draft, name, |network| network.subnet = subnet)
        },
    ),
    free(
        "uplink",
        STRING_OR_NONE,
        |view, name| {
            on_network(view, name, |network| {
                Value::optional(network.uplink.clone().map(Atom::String))
            })
        },
        |draft, name, value| {
            let uplink = words(&value).next();
            edit_network(draft, name, |network| network.uplink = uplink)
        },
    ),
];

static PORT: [Column; 13] = [
    fixed("_uuid", UUID, |_, name| uuid_of("Port", name)),
    free(
        "cable",
        BOOL,
        |view, name| Value::One(Atom::Bool(view.draft.port(name).is_some_and(|port| port.cable))),
        |draft, name, value| {
            let cable = value.atoms().contains(&Atom::Bool(true));
            edit_port(draft, name, |port| port.cable = cable)
        },
    ),
    free("external_ids", STRINGS, external_ids, set_external_ids),
    free(
        "forward",
        STRING_SET,
        |view, name| view.draft.port(name).map_or(Value::NOTHING, |port| rules_of(&port.forward)),
        |draft, name, value| {
            let rules = rules(&value)?;
            edit_port(draft, name, |port| port.forward = rules)
        },
    ),
    fixed("interfaces", UUIDS, |_, name| {
        Value::Set(BTreeSet::from([Atom::Uuid(identity::of("Interface", name))]))
    }),
    free(
        "mac",
        STRING_OR_NONE,
        |view, name| {
            let mac = view.draft.port(name).and_then(|port| port.mac);
            Value::optional(mac.map(|mac| Atom::String(mac.to_string())))
        },
        |draft, name, value| {
            let mac = words(&value).next().map(|text| text.parse().map_err(|_| text));
            let mac = mac.transpose().map_err(|text| {
                format!("\"{text}\" is not a MAC address; write it as \"52:54:00:12:34:56\"")
            })?;
            edit_port(draft, name, |port| port.mac = mac)
        },
    ),
    fixed("name", STRING, |_, name| Value::string(name)),
    free(
        "network",
        STRING_OR_NONE,
        |view, name| {
            let network = view.draft.port(name).and_then(|port| port.network.clone());
            Value::optional(network.map(Atom::String))
        },
        |draft, name, value| {
            let network = words(&value).next();
            if let Some(network) = &network
                && draft.network(network).is_none()
            {
                return Err(no_bridge(network));
            }
            edit_port(draft, name, |port| port.network = network)
        },
    ),
    free(
        "promiscuous",
        PROMISCUOUS,
        |view, name| {
            let port = view.draft.port(name);
            Value::string(port.map_or("", |port| port.promiscuous.name()))
        },
        |draft, name, value| {
            let word = words(&value).next();
            let known = Promiscuous::ALL.into_iter().find(|it| Some(it.name()) == word.as_deref());
            edit_port(draft, name, |port| port.promiscuous = known.unwrap_or(port.promiscuous))
        },
    ),
    free(
        "spoof",
        SPOOF,
        |view, name| {
            let is_allowed = view.draft.port(name).is_none_or(|port| port.spoof);
            Value::string(if is_allowed { "allow" } else { "deny" })
        },
        |draft, name, value| {
            let is_allowed = words(&value).next().as_deref() == Some("allow");
            edit_port(draft, name, |port| port.spoof = is_allowed)
        },
    ),
    free(
        "tag",
        TAG,
        |view, name| {
            let tag = view.draft.port(name).and_then(|port| port.vlan.tag);
            Value::optional(tag.map(|tag| u64::from(tag).into()))
        },
        |draft, name, value| edit_port(draft, name, |port| port.vlan.tag = integers(&value).next()),
    ),
    free(
        "trunks",
        TRUNKS,
        |view, name| {
            let trunks = view.draft.port(name).map(|port| port.vlan.trunks.clone());
            let trunks = trunks.unwrap_or_default().into_iter();
            Value::Set(trunks.map(|vlan| u64::from(vlan).into()).collect())
        },
        |draft, name, value| {
            edit_port(draft, name, |port| port.vlan.trunks = integers(&value).collect())
        },
    ),
    free(
        "vlan_mode",
        VLAN_MODE,
        |view, name| {
            let mode = view.draft.port(name).and_then(|port| port.vlan.mode);
            let word = VLAN_MODES.iter().find(|(_, known)| Some(*known) == mode);
            Value::optional(word.map(|(word, _)| Atom::String((*word).to_owned())))
        },
        |draft, name, value| {
            let word = words(&value).next();
            let mode = VLAN_MODES.iter().find(|(known, _)| Some(*known) == word.as_deref());
            edit_port(draft, name, |port| port.vlan.mode = mode.map(|(_, mode)| *mode))
        },
    ),
];

static INTERFACE: [Column; 13] = [
    fixed("_uuid", UUID, |_, name| uuid_of("Interface", name)),
    fixed("admin_state", UP_DOWN, |view, name| {
        let port = view.snapshot.status.port(name).and_then(|_| view.draft.port(name));
        Value::optional(port.map(|port| up_down(port.cable)))
    }),
    fixed("error", STRING_OR_NONE, |view, name| {
        let port = view.snapshot.status.port(name);
        Value::optional(port.and_then(|port| port.not_running.clone()).map(Atom::String))
    }),
    free("external_ids", STRINGS, external_ids, set_external_ids),
    fixed("link_state", UP_DOWN, |view, name| {
        Value::optional(view.snapshot.status.port(name).map(|port| up_down(port.link)))
    }),
    fixed("mac_in_use", STRING_OR_NONE, |view, name| {
        let port = view.snapshot.status.port(name);
        Value::optional(port.and_then(|port| port.mac.clone()).map(Atom::String))
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
        "options",
        STRINGS,
        |view, name| Value::strings(&view.draft.interface(name).1),
        |draft, name, value| {
            draft.set_options(name, string_map(value));
            Ok(())
        },
    ),
    fixed("statistics", COUNTS, |view, name| {
        view.snapshot.status.port(name).map_or(Value::Map(BTreeMap::new()), live::statistics)
    }),
    fixed("status", STRINGS, |view, name| {
        view.snapshot.status.port(name).map_or(Value::Map(BTreeMap::new()), live::session)
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

/// The message for a bridge that is not there.
pub fn no_bridge(name: &str) -> String {
    format!("no bridge named {name}")
}

fn bridge_names(draft: &Draft) -> Vec<String> {
    let mut names: Vec<_> = draft.networks().iter().map(|network| network.name.clone()).collect();
    names.sort_unstable();
    names
}

fn port_names(draft: &Draft) -> Vec<String> {
    let mut names: Vec<_> = draft.ports().iter().map(|port| port.name.clone()).collect();
    names.sort_unstable();
    names
}

fn uuid_of(table: &str, name: &str) -> Value {
    Value::One(Atom::Uuid(identity::of(table, name)))
}

fn up_down(up: bool) -> Atom {
    Atom::String(if up { "up" } else { "down" }.to_owned())
}

fn words(value: &Value) -> impl Iterator<Item = String> + use<> {
    value.atoms().into_iter().map(|atom| atom.bare())
}

/// The integers of a value; its column's range has been checked.
fn integers(value: &Value) -> impl Iterator<Item = u16> + use<> {
    value.atoms().into_iter().filter_map(|atom| match atom {
        Atom::Integer(number) => number.try_into().ok(),
        _ => None,
    })
}

fn rules_of(rules: &[Rule]) -> Value {
    Value::Set(rules.iter().map(|rule| Atom::String(rule.to_string())).collect())
}

fn rules(value: &Value) -> Result<Vec<Rule>, String> {
    let rules = words(value).map(|text| text::parse_rule(&text));
    rules.collect::<Result<_, _>>().map_err(|(message, remedy)| format!("{message}; {remedy}"))
}

fn on_network(view: View<'_>, name: &str, read: impl Fn(&Network) -> Value) -> Value {
    view.draft.network(name).map_or(Value::NOTHING, read)
}

fn edit_network(
    draft: &mut Draft,
    name: &str,
    edit: impl FnOnce(&mut Network),
) -> Result<(), String> {
    draft.network_mut(name).map(edit).ok_or_else(|| no_bridge(name))
}

fn edit_port(draft: &mut Draft, name: &str, edit: impl FnOnce(&mut Port)) -> Result<(), String> {
    draft.port_mut(name).map(edit).ok_or_else(|| format!("no port named {name}"))
}

fn external_ids(view: View<'_>, name: &str) -> Value {
    Value::strings(&view.draft.port(name).map(|port| port.external_ids.clone()).unwrap_or_default())
}

fn set_external_ids(draft: &mut Draft, name: &str, value: Value) -> Result<(), String> {
    edit_port(draft, name, |port| port.external_ids = string_map(value))
}

const TABLE_SIZE: &str = "mac-table-size";
const AGING: &str = "mac-aging-time";

/// The settings that differ from the default, under the names of Open vSwitch.
fn other_config(network: &Network) -> BTreeMap<String, String> {
    let default = Network::new(String::new());
    let mut map = BTreeMap::new();
    if network.mac_table_size != default.mac_table_size {
        map.insert(TABLE_SIZE.to_owned(), network.mac_table_size.to_string());
    }
    if network.mac_aging != default.mac_aging {
        let whole = network.mac_aging.subsec_nanos() == 0;
        let seconds = network.mac_aging.as_secs().to_string();
        let text = if whole { seconds } else { text::units::format_duration(network.mac_aging) };
        map.insert(AGING.to_owned(), text);
    }
    map
}

fn set_other_config(draft: &mut Draft, name: &str, value: Value) -> Result<(), String> {
    let mut map = string_map(value);
    let Network { mut mac_table_size, mut mac_aging, .. } = Network::new(String::new());
    if let Some(text) = map.remove(TABLE_SIZE) {
        mac_table_size = text.parse().map_err(|_| {
            format!("other_config:{TABLE_SIZE}=\"{text}\" is not a whole number of addresses")
        })?;
    }
    if let Some(text) = map.remove(AGING) {
        let seconds = text.parse().ok().map(Duration::from_secs);
        mac_aging = seconds
            .or_else(|| text::units::parse_duration(&text))
            .ok_or_else(|| format!("other_config:{AGING}=\"{text}\" is not a number of seconds"))?;
    }
    if let Some(key) = map.keys().next() {
        return Err(format!("Bridge has no other_config:{key}; it knows {AGING}, {TABLE_SIZE}"));
    }
    edit_network(draft, name, |network| {
        network.mac_table_size = mac_table_size;
        network.mac_aging = mac_aging;
    })
}

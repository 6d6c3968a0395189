//! The table Port: VLANs, access and attachment of the ports of the configuration.

use std::collections::BTreeSet;

use trama_api::value::{Atom, Value};
use trama_api::values;

use super::column::{
    BOOL, Column, STRING, STRING_OR_NONE, STRING_SET, STRINGS, UUID, UUIDS, edit_port,
    external_ids, fixed, free, integers, rules, rules_of, set_external_ids, uuid_of, words,
};
use crate::config::model::{LoopMode, Port, Promiscuous, Spoof, VlanModeName};
use crate::config::text::parse_plain;
use crate::ctl::draft::Draft;
use crate::ctl::identity;
use crate::value_type::{Kind, Shape, Type};

const PROMISCUOUS: Type = Type::new(Kind::Enum(values::PROMISCUOUS), Shape::One);
const SPOOF: Type = Type::new(Kind::Enum(values::SPOOF), Shape::One);
const TAG: Type = Type::new(Kind::Integer(0, 4095), Shape::Optional);
const TRUNKS: Type = Type::new(Kind::Integer(0, 4095), Shape::Set);
const LOOP: Type = Type::new(Kind::Enum(values::LOOP), Shape::One);
const LIMIT: Type = Type::new(Kind::Integer(0, u32::MAX as i64), Shape::One);
const VLAN_MODE: Type = Type::new(Kind::Enum(values::VLAN_MODE), Shape::Optional);

/// The column of a storm limit.
macro_rules! storm {
    ($column:literal, $limit:ident) => {
        free(
            $column,
            LIMIT,
            |view, name| {
                let limit = view.draft.port(name).map_or(0, |port| port.storm.$limit);
                Value::One(u64::from(limit).into())
            },
            |draft, name, value| {
                let limit = integers(&value).next();
                edit_port(draft, name, |port| {
                    port.storm.$limit = limit.unwrap_or(port.storm.$limit);
                })
            },
        )
    };
}

/// The columns.
pub(super) static COLUMNS: [Column; 20] = [
    fixed("_uuid", UUID, |_, name| uuid_of("Port", name)),
    free(
        "addresses",
        STRING_SET,
        |view, name| {
            let port = view.draft.port(name);
            texts(port.map_or(&[][..], |port| &port.addresses))
        },
        |draft, name, value| {
            let addresses = words(&value).map(|text| parse_plain(&text));
            let addresses = addresses.collect::<Result<_, _>>()?;
            edit_port(draft, name, |port| port.addresses = addresses)
        },
    ),
    free(
        "cable",
        BOOL,
        |view, name| Value::One(Atom::Bool(view.draft.port(name).is_some_and(|port| port.cable))),
        |draft, name, value| {
            let cable = value.atoms().contains(&Atom::Bool(true));
            edit_port(draft, name, |port| port.cable = cable)
        },
    ),
    free(
        "ephemeral",
        BOOL,
        |view, name| Value::One(Atom::Bool(view.draft.port(name).is_some_and(Port::is_ephemeral))),
        |draft, name, value| {
            let ephemeral = value.atoms().contains(&Atom::Bool(true));
            edit_port(draft, name, |port| port.ephemeral = ephemeral)
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
        Value::Set(BTreeSet::from([Atom::uuid(identity::of("Interface", name))]))
    }),
    free(
        "loop",
        LOOP,
        |view, name| {
            let mode = view.draft.port(name).map(|port| port.loop_mode);
            Value::string(mode.unwrap_or_default().name())
        },
        |draft, name, value| {
            let word = words(&value).next();
            let known = LoopMode::ALL.into_iter().find(|it| Some(it.name()) == word.as_deref());
            edit_port(draft, name, |port| port.loop_mode = known.unwrap_or(port.loop_mode))
        },
    ),
    free(
        "mac",
        STRING_OR_NONE,
        |view, name| {
            let mac = view.draft.port(name).and_then(|port| port.mac);
            Value::optional(mac.map(|mac| Atom::string(mac.to_string())))
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
        "names",
        STRING_SET,
        |view, name| texts(view.draft.port(name).map_or(&[][..], |port| &port.names)),
        |draft, name, value| edit_port(draft, name, |port| port.names = words(&value).collect()),
    ),
    free(
        "network",
        STRING_OR_NONE,
        |view, name| {
            let network = view.draft.port(name).and_then(|port| port.network.clone());
            Value::optional(network.map(Atom::string))
        },
        |draft, name, value| {
            let network = words(&value).next();
            if let Some(network) = &network
                && draft.network(network).is_none()
            {
                return Err(draft.no_bridge(network));
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
            let spoof = view.draft.port(name).map(|port| port.spoof);
            Value::string(spoof.unwrap_or_default().name())
        },
        |draft, name, value| {
            let word = words(&value).next();
            let known = Spoof::ALL.into_iter().find(|it| Some(it.name()) == word.as_deref());
            edit_port(draft, name, |port| port.spoof = known.unwrap_or(port.spoof))
        },
    ),
    storm!("storm_broadcast", broadcast),
    storm!("storm_multicast", multicast),
    storm!("storm_unknown", unknown),
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
            Value::optional(mode.map(|mode| Atom::string(mode.to_string())))
        },
        |draft, name, value| {
            let word = words(&value).next();
            let mode = VlanModeName::ALL.into_iter().find(|it| Some(it.name()) == word.as_deref());
            edit_port(draft, name, |port| port.vlan.mode = mode)
        },
    ),
];

/// A set of texts.
fn texts(items: &[impl ToString]) -> Value {
    Value::Set(items.iter().map(|item| Atom::string(item.to_string())).collect())
}

/// The names of the records, sorted.
pub(super) fn records(draft: &Draft) -> Vec<String> {
    let mut names: Vec<_> = draft.ports().iter().map(|port| port.name.clone()).collect();
    names.sort_unstable();
    names
}

//! The table Bridge: the networks of the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use trama_api::value::{Atom, Value};
use trama_api::values;
use trama_gateway::Discovery;

use super::column::{
    Column, STRING, STRING_OR_NONE, STRING_SET, STRINGS, UUID, UUIDS, fixed, free, integers, rules,
    rules_of, uuid_of, words,
};
use super::mirror;
use crate::config::derived::running::is_part_of;
use crate::config::model::{Mode, Network};
use crate::config::openvswitch::BRIDGE_CONFIG as KEPT_CONFIG;
use crate::config::text::{self, AddressError};
use crate::config::unusable_length;
use crate::ctl::context::View;
use crate::ctl::draft::Draft;
use crate::ctl::failure::Failure;
use crate::ctl::identity;
use crate::value_type::{Kind, Shape, Type, string_map};

const MTU: Type = Type::new(Kind::Integer(68, 65521), Shape::One);
const MODE: Type = Type::new(Kind::Enum(values::MODE), Shape::One);
const REFLECT: Type = Type::new(Kind::Enum(values::REFLECT), Shape::Set);

/// The columns.
pub(super) static COLUMNS: [Column; 14] = [
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
    free("mirrors", UUIDS, mirror::of_network, mirror::set_of_network),
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
    fixed("status", STRINGS, exports),
    free(
        "other_config",
        STRINGS,
        |view, name| on_network(view, name, |network| Value::strings(other_config(network))),
        set_other_config,
    ),
    fixed("ports", UUIDS, |view, name| {
        let ports = view.draft.ports_of(name);
        Value::Set(ports.into_iter().map(|port| Atom::uuid(identity::of("Port", port))).collect())
    }),
    free(
        "reflect",
        REFLECT,
        |view, name| {
            on_network(view, name, |network| {
                let names = network.reflect.iter().map(|protocol| protocol.name().to_owned());
                Value::Set(names.map(Atom::string).collect())
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
                let texts = subnets.iter().map(ToString::to_string);
                Value::Set(texts.map(Atom::string).collect())
            })
        },
        |draft, name, value| {
            let subnet: Result<Vec<_>, Failure> =
                words(&value).map(|text| parse_subnet(name, &text)).collect();
            let subnet = subnet?;
            edit_network(draft, name, |network| network.subnet = subnet)
        },
    ),
    free(
        "uplink",
        STRING_OR_NONE,
        |view, name| {
            on_network(view, name, |network| {
                Value::optional(network.uplink.clone().map(Atom::string))
            })
        },
        |draft, name, value| {
            let uplink = words(&value).next();
            edit_network(draft, name, |network| network.uplink = uplink)
        },
    ),
];

/// The names of the records, sorted.
pub(super) fn records(draft: &Draft) -> Vec<String> {
    let mut names: Vec<_> = draft.networks().iter().map(|network| network.name.clone()).collect();
    names.sort_unstable();
    names
}

fn on_network(view: View<'_>, name: &str, read: impl Fn(&Network) -> Value) -> Value {
    view.draft.network(name).map_or(Value::NOTHING, read)
}

fn parse_subnet(network: &str, text: &str) -> Result<IpNet, Failure> {
    let subnet = text::parse_address(text).map_err(|error| match error {
        AddressError::TooLong(address, length) => {
            format!("network.{network}.subnet: {}", unusable_length(address, length))
        }
        AddressError::Malformed(_) => {
            format!("{text:?} is not a subnet; write it as 192.168.56.0/24 or fd00:56::/64")
        }
    });
    Ok(subnet?)
}

/// How exports go: for each protocol, the faults of its collectors.
fn exports(view: View<'_>, name: &str) -> Value {
    let statuses = view.snapshot.status.exports.iter();
    let own = statuses.filter(|((network, _), _)| is_part_of(network, name));
    Value::strings(own.map(|((_, protocol), faults)| {
        let text = if faults.is_empty() { "sends".to_owned() } else { faults.join(", ") };
        (protocol.name(), text)
    }))
}

fn edit_network(
    draft: &mut Draft,
    name: &str,
    edit: impl FnOnce(&mut Network),
) -> Result<(), Failure> {
    draft.network_mut(name).map(edit).ok_or_else(|| draft.no_bridge(name))
}

const TABLE_SIZE: &str = "mac-table-size";
const AGING: &str = "mac-aging-time";
const LOG_DNS: &str = "log-dns";

/// The settings that differ from their defaults, under the names of Open vSwitch, and what is kept
/// beside them.
fn other_config(network: &Network) -> BTreeMap<String, String> {
    let default = Network::new(String::new());
    let mut map = string_map(KEPT_CONFIG.read(&network.openvswitch));
    map.retain(|key, _| ![TABLE_SIZE, AGING, LOG_DNS].contains(&key.as_str()));
    if network.mac_table_size != default.mac_table_size {
        map.insert(TABLE_SIZE.to_owned(), network.mac_table_size.to_string());
    }
    if network.mac_aging != default.mac_aging {
        let whole = network.mac_aging.subsec_nanos() == 0;
        let seconds = network.mac_aging.as_secs().to_string();
        let text = if whole { seconds } else { text::units::format_duration(network.mac_aging) };
        map.insert(AGING.to_owned(), text);
    }
    if network.log_dns {
        map.insert(LOG_DNS.to_owned(), "true".to_owned());
    }
    map
}

fn set_other_config(draft: &mut Draft, name: &str, value: Value) -> Result<(), Failure> {
    let mut map = string_map(value);
    let Network { mut mac_table_size, mut mac_aging, mut log_dns, .. } =
        Network::new(String::new());
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
    if let Some(text) = map.remove(LOG_DNS) {
        log_dns = text
            .parse()
            .map_err(|_| format!("other_config:{LOG_DNS}=\"{text}\" is neither true nor false"))?;
    }
    let rest = Value::strings(&map);
    if let Some(fault) = KEPT_CONFIG.refusal(&rest) {
        return Err(fault.into());
    }
    edit_network(draft, name, |network| {
        network.mac_table_size = mac_table_size;
        network.mac_aging = mac_aging;
        network.log_dns = log_dns;
        KEPT_CONFIG.write(&mut network.openvswitch, &rest);
    })
}

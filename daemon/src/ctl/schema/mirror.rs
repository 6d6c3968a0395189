//! The table Mirror.

use std::collections::{BTreeSet, HashMap};

use trama_api::value::{Atom, Value};

use super::column::{BOOL, Column, STRING, STRINGS, UUID, UUIDS, fixed, free, integers, words};
use crate::config::model::Mirror;
use crate::ctl::context::View;
use crate::ctl::draft::Draft;
use crate::ctl::failure::Failure;
use crate::ctl::identity;
use crate::value_type::{Kind, Shape, Type, string_map};

const PORT: Type = Type::new(Kind::Uuid, Shape::Optional);
const VLAN: Type = Type::new(Kind::Integer(1, 4095), Shape::Optional);
const VLANS: Type = Type::new(Kind::Integer(0, 4095), Shape::Set);
const SNAPLEN: Type = Type::new(Kind::Integer(14, 65_535), Shape::Optional);
const COUNTS: Type = Type::new(Kind::Integer(0, i64::MAX), Shape::Map);

/// The columns. A record's name is its UUID.
pub(super) static COLUMNS: [Column; 12] = [
    fixed("_uuid", UUID, |_, uuid| Value::One(Atom::uuid(uuid.to_owned()))),
    free(
        "external_ids",
        STRINGS,
        |view, uuid| of(view, uuid, |mirror| Value::strings(&mirror.external_ids)),
        |draft, uuid, value| edit(draft, uuid, |it| it.external_ids = string_map(value)),
    ),
    free(
        "filter",
        STRING,
        |view, uuid| of(view, uuid, |mirror| Value::string(&mirror.filter)),
        |draft, uuid, value| {
            edit(draft, uuid, |it| it.filter = words(&value).next().unwrap_or_default())
        },
    ),
    free(
        "name",
        STRING,
        |view, uuid| of(view, uuid, |mirror| Value::string(&mirror.name)),
        |draft, uuid, value| {
            // Its UUID stays.
            let name = words(&value).next().unwrap_or_default();
            edit(draft, uuid, |it| {
                it.uuid = Some(uuid.to_owned());
                it.name = name;
            })
        },
    ),
    free(
        "output_port",
        PORT,
        |view, uuid| {
            of(view, uuid, |it| Value::optional(ports(&it.output_port).into_iter().next()))
        },
        |draft, uuid, value| {
            let port = ports_named(draft, &value)?.into_iter().next();
            edit(draft, uuid, |it| it.output_port = port)
        },
    ),
    free(
        "output_vlan",
        VLAN,
        |view, uuid| of(view, uuid, |it| Value::optional(it.output_vlan.map(number))),
        |draft, uuid, value| edit(draft, uuid, |it| it.output_vlan = integers(&value).next()),
    ),
    free(
        "select_all",
        BOOL,
        |view, uuid| of(view, uuid, |mirror| Value::One(Atom::Bool(mirror.select_all))),
        |draft, uuid, value| {
            edit(draft, uuid, |it| it.select_all = value == Value::One(Atom::Bool(true)))
        },
    ),
    free(
        "select_dst_port",
        UUIDS,
        |view, uuid| of(view, uuid, |mirror| Value::Set(ports(&mirror.select_dst_port))),
        |draft, uuid, value| {
            let ports = ports_named(draft, &value)?;
            edit(draft, uuid, |it| it.select_dst_port = ports.into_iter().collect())
        },
    ),
    free(
        "select_src_port",
        UUIDS,
        |view, uuid| of(view, uuid, |mirror| Value::Set(ports(&mirror.select_src_port))),
        |draft, uuid, value| {
            let ports = ports_named(draft, &value)?;
            edit(draft, uuid, |it| it.select_src_port = ports.into_iter().collect())
        },
    ),
    free(
        "select_vlan",
        VLANS,
        |view, uuid| {
            of(view, uuid, |it| Value::Set(it.select_vlan.iter().copied().map(number).collect()))
        },
        |draft, uuid, value| edit(draft, uuid, |it| it.select_vlan = integers(&value).collect()),
    ),
    free(
        "snaplen",
        SNAPLEN,
        |view, uuid| {
            of(view, uuid, |it| {
                Value::optional(Some(it.snaplen).filter(|len| *len != 0).map(number))
            })
        },
        |draft, uuid, value| {
            edit(draft, uuid, |it| it.snaplen = integers(&value).next().unwrap_or_default())
        },
    ),
    fixed("statistics", COUNTS, |view, uuid| {
        of(view, uuid, |mirror| {
            let all = view.snapshot.status.mirrors.iter();
            let Some(counted) = all.into_iter().find(|it| it.name == mirror.name) else {
                return Value::Map(Default::default());
            };
            let counts = counted.counters;
            Value::counts([
                ("tx_bytes", counts.bytes),
                ("tx_lost", counts.lost),
                ("tx_packets", counts.frames),
            ])
        })
    }),
];

/// The UUIDs of all mirrors, sorted.
pub(super) fn records(draft: &Draft) -> Vec<String> {
    let mut uuids: Vec<String> = draft.mirrors().iter().map(identity::of_mirror).collect();
    uuids.sort_unstable();
    uuids
}

/// The mirrors of this name.
pub(super) fn by_name(draft: &Draft, name: &str) -> Vec<String> {
    let named = draft.mirrors().iter().filter(|mirror| mirror.name == name);
    named.map(identity::of_mirror).collect()
}

/// The mirrors of a network.
pub(super) fn of_network(view: View<'_>, network: &str) -> Value {
    let all = view.draft.mirrors().iter();
    let on = all.filter(|mirror| mirror.network.as_deref() == Some(network));
    Value::Set(on.map(|mirror| Atom::uuid(identity::of_mirror(mirror))).collect())
}

/// Sets the mirrors of a network. Those that no network has are gone at the end; those that are not
/// there are awaited.
pub(super) fn set_of_network(
    draft: &mut Draft,
    network: &str,
    value: Value,
) -> Result<(), Failure> {
    let mut wanted: BTreeSet<String> = words(&value).collect();
    for uuid in records(draft) {
        let is_wanted = wanted.remove(&uuid);
        edit(draft, &uuid, |mirror| {
            if is_wanted {
                mirror.network = Some(network.to_owned());
            } else if mirror.network.as_deref() == Some(network) {
                mirror.network = None;
            }
        })?;
    }
    wanted.into_iter().for_each(|uuid| draft.await_mirror(uuid, network));
    Ok(())
}

fn of(view: View<'_>, uuid: &str, read: impl FnOnce(&Mirror) -> Value) -> Value {
    view.draft.mirror(uuid).map_or(Value::NOTHING, read)
}

fn edit(draft: &mut Draft, uuid: &str, edit: impl FnOnce(&mut Mirror)) -> Result<(), Failure> {
    let mirror = draft.mirror_mut(uuid).map(edit);
    mirror.ok_or_else(|| format!("there is no mirror {uuid}").into())
}

fn number(number: u16) -> Atom {
    u64::from(number).into()
}

fn ports<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeSet<Atom> {
    names.into_iter().map(|name| Atom::uuid(identity::of("Port", name))).collect()
}

/// The names of the ports with these UUIDs.
fn ports_named(draft: &Draft, uuids: &Value) -> Result<Vec<String>, Failure> {
    let names = draft.ports().iter().map(|port| &port.name);
    let known: HashMap<String, &String> =
        names.map(|name| (identity::of("Port", name), name)).collect();
    let named = words(uuids).map(|uuid| {
        let name = known.get(&uuid).map(|name| (*name).clone());
        name.ok_or_else(|| {
            format!("there is no Port {uuid}; name one before its use: --id=@p get Port NAME")
                .into()
        })
    });
    named.collect()
}

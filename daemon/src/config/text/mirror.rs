//! The keys of a `[[mirror]]`, read and written.

use toml_edit::Array;

use super::field::{Field, map_field};
use super::reader::Reader;
use crate::config::model::Mirror;

const KEYS: [&str; 12] = [
    "name",
    "uuid",
    "network",
    "select-all",
    "select-src-port",
    "select-dst-port",
    "select-vlan",
    "output-port",
    "output-vlan",
    "snaplen",
    "filter",
    "external-ids",
];

/// Reads the table.
pub(super) fn read(reader: &mut Reader<'_, '_, '_>) -> Mirror {
    reader.refuse_unknown(&KEYS, |_| None);
    let mut ports = |key| {
        let names = reader.strings(key).unwrap_or_default();
        names.into_iter().map(|(_, name)| name).collect()
    };
    let (select_src_port, select_dst_port) = (ports("select-src-port"), ports("select-dst-port"));
    Mirror {
        name: reader.string("name").unwrap_or_default(),
        uuid: reader.string("uuid"),
        network: reader.string("network"),
        select_all: reader.boolean("select-all").unwrap_or_default(),
        select_src_port,
        select_dst_port,
        select_vlan: reader.integers("select-vlan").unwrap_or_default().into_iter().collect(),
        output_port: reader.string("output-port"),
        output_vlan: reader.integer("output-vlan"),
        snaplen: reader.integer("snaplen").unwrap_or_default(),
        filter: reader.string("filter").unwrap_or_default(),
        external_ids: reader.map("external-ids").unwrap_or_default().into_iter().collect(),
    }
}

/// The keys of a `[[mirror]]`.
pub(super) fn fields(mirror: &Mirror) -> Vec<Field> {
    let list = |list: Array| (!list.is_empty()).then_some(list);
    let names = |names: &std::collections::BTreeSet<String>| list(names.iter().collect());
    let vlans = mirror.select_vlan.iter().map(|vlan| i64::from(*vlan)).collect();
    vec![
        Field::new("name", mirror.name.as_str(), false),
        Field::optional("uuid", mirror.uuid.as_deref()),
        Field::optional("network", mirror.network.as_deref()),
        Field::new("select-all", mirror.select_all, !mirror.select_all),
        Field::optional("select-src-port", names(&mirror.select_src_port)),
        Field::optional("select-dst-port", names(&mirror.select_dst_port)),
        Field::optional("select-vlan", list(vlans)),
        Field::optional("output-port", mirror.output_port.as_deref()),
        Field::optional("output-vlan", mirror.output_vlan.map(i64::from)),
        Field::new("snaplen", i64::from(mirror.snaplen), mirror.snaplen == 0),
        Field::new("filter", mirror.filter.as_str(), mirror.filter.is_empty()),
        map_field("external-ids", &mirror.external_ids),
    ]
}

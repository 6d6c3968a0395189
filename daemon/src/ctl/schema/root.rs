//! The table Open_vSwitch: one record, `.`, with what concerns the switch as a whole.

use trama_api::tables::ROOT;
use trama_api::value::{Atom, Value};

use super::bridge;
use super::column::{Column, STRING_OR_NONE, STRING_SET, UUID, UUIDS, fixed, uuid_of};
use crate::ctl::draft::Draft;
use crate::ctl::identity;

/// The columns.
pub(super) static COLUMNS: [Column; 5] = [
    fixed("_uuid", UUID, |_, _| uuid_of("Open_vSwitch", ROOT)),
    fixed("bridges", UUIDS, |view, _| {
        let names = bridge::records(view.draft).into_iter();
        Value::Set(names.map(|name| Atom::uuid(identity::of("Bridge", &name))).collect())
    }),
    fixed("datapath_types", STRING_SET, |_, _| text_set(&["netdev", "system"])),
    fixed("iface_types", STRING_SET, |_, _| {
        text_set(&[
            "dgram",
            "dpdkvhostuser",
            "dpdkvhostuserclient",
            "internal",
            "stream",
            "system",
            "tap",
            "vhost-user",
            "vxlan",
        ])
    }),
    fixed("ovs_version", STRING_OR_NONE, |_, _| {
        Value::string(concat!("trama ", env!("CARGO_PKG_VERSION")))
    }),
];

/// The names of the records.
pub(super) fn records(_: &Draft) -> Vec<String> {
    vec![ROOT.to_owned()]
}

fn text_set(words: &[&str]) -> Value {
    Value::Set(words.iter().map(|word| Atom::string(*word)).collect())
}

//! The tables: what each column holds, how it is read and set.
//!
//! A bridge is a network of the configuration. A port and its interface are two views of one port
//! of the configuration, with the same name. Columns that Open vSwitch also has keep its names and
//! meaning. The others are `forward`, `loopback`, `mode`, `mtu`, `reflect`, `subnet` and `uplink`
//! of Bridge, `filter` of Mirror, and `cable`, `forward`, `loop`, `network`, `promiscuous`, `spoof`
//! and the storm limits of Port. Columns of Open vSwitch that trama does not act on are kept:
//! [`crate::config::openvswitch`].

mod bridge;
pub(super) mod column;
mod interface;
mod mirror;
mod port;
mod root;

use std::sync::LazyLock;

use column::{Records, Table, UUID, fixed};
use trama_api::tables;
use trama_api::value::{Atom, Value};

use super::draft::Place;
use crate::config::model::openvswitch::RecordTable;
use crate::config::{columns_of, openvswitch};

/// The records of Port and Interface.
const PORTS: Records = Records::Named(port::records, |draft, name| draft.port(name).is_some());

/// The networks.
pub(super) static BRIDGE: LazyLock<Table> = LazyLock::new(|| {
    let kept = (Place::Bridge, openvswitch::BRIDGE.as_slice());
    let records = Records::Named(bridge::records, |draft, name| draft.network(name).is_some());
    Table::new("Bridge", &bridge::COLUMNS, kept, records)
});

/// The ports, as places on networks.
pub(super) static PORT: LazyLock<Table> = LazyLock::new(|| {
    let kept = (Place::Port, openvswitch::PORT.as_slice());
    Table::new("Port", &port::COLUMNS, kept, PORTS)
});

/// The ports, as devices.
pub(super) static INTERFACE: LazyLock<Table> = LazyLock::new(|| {
    let kept = (Place::Interface, openvswitch::INTERFACE.as_slice());
    Table::new("Interface", &interface::COLUMNS, kept, PORTS).known_by(interface::by_socket)
});

static ROOT: LazyLock<Table> = LazyLock::new(|| {
    let kept = (Place::Root, openvswitch::ROOT.as_slice());
    let records = Records::Named(root::records, |_, name| name == tables::ROOT);
    Table::new("Open_vSwitch", &root::COLUMNS, kept, records)
});

static MIRROR: LazyLock<Table> = LazyLock::new(|| {
    let records = Records::Mirrors(mirror::records);
    Table::new("Mirror", &mirror::COLUMNS, (Place::Mirror, &[]), records).known_by(mirror::by_name)
});

static OF_THEIR_OWN: LazyLock<[Table; 8]> = LazyLock::new(|| RecordTable::ALL.map(record_table));

/// All tables.
pub(super) static TABLES: LazyLock<Vec<&Table>> = LazyLock::new(|| {
    let main = [&*BRIDGE, &*PORT, &*INTERFACE, &*ROOT, &*MIRROR];
    main.into_iter().chain(OF_THEIR_OWN.iter()).collect()
});

/// A table of records of their own: all of its columns are kept.
fn record_table(table: RecordTable) -> Table {
    let uuid = fixed("_uuid", UUID, |_, name| Value::One(Atom::uuid(name.to_owned())));
    let kept = (Place::Record, columns_of(table));
    Table::new(table.name(), &[uuid], kept, Records::OfTheirOwn(table)).known_by(match table {
        RecordTable::Qos => |draft, port| {
            let qos = draft.port(port).and_then(|port| port.openvswitch.get("qos"));
            qos.cloned().into_iter().collect()
        },
        RecordTable::Sflow => |draft, bridge| draft.referred_by(bridge, "sflow"),
        RecordTable::Ipfix => |draft, bridge| draft.referred_by(bridge, "ipfix"),
        RecordTable::Manager => {
            |draft, target| draft.records_with(RecordTable::Manager, "target", target)
        }
        _ => |_, _| Vec::new(),
    })
}

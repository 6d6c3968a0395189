//! The tables: what each column holds, how it is read and set.
//!
//! A bridge is a network of the configuration. A port and its interface are two views of one port
//! of the configuration, with the same name. Columns that Open vSwitch also has keep its names and
//! meaning. The others are `forward`, `loopback`, `mode`, `mtu`, `reflect`, `subnet` and `uplink`
//! of Bridge, and `cable`, `forward`, `loop`, `network`, `promiscuous`, `spoof` and
//! the storm limits of Port. Columns of Open vSwitch that trama does not act on are kept:
//! [`crate::config::openvswitch`].

mod bridge;
pub(super) mod column;
mod interface;
mod port;
mod root;

use std::sync::LazyLock;

use column::Table;

use super::draft::Place;
use crate::config::openvswitch;

/// All tables.
pub(super) static TABLES: LazyLock<[Table; 4]> = LazyLock::new(|| {
    let bridge = (Place::Bridge, openvswitch::BRIDGE.as_slice());
    let port = (Place::Port, openvswitch::PORT.as_slice());
    let interface = (Place::Interface, openvswitch::INTERFACE.as_slice());
    let root = (Place::Root, openvswitch::ROOT.as_slice());
    [
        Table::new("Bridge", &bridge::COLUMNS, bridge, bridge::records),
        Table::new("Port", &port::COLUMNS, port, port::records),
        Table::new("Interface", &interface::COLUMNS, interface, port::records),
        Table::new("Open_vSwitch", &root::COLUMNS, root, root::records),
    ]
});

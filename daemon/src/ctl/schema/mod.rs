//! The tables Bridge, Port and Interface: what each column holds, how it is read and set.
//!
//! A bridge is a network of the configuration. A port and its interface are two views of one port
//! of the configuration, with the same name. Columns that Open vSwitch also has keep its names and
//! meaning. The others are `forward`, `loopback`, `mode`, `mtu`, `reflect`, `subnet` and `uplink`
//! of Bridge, and `cable`, `forward`, `loop`, `network`, `promiscuous`, `spoof` and
//! the storm limits of Port.

mod bridge;
pub(super) mod column;
mod interface;
mod port;

use column::Table;

/// All tables.
pub(super) static TABLES: [Table; 3] = [
    Table { name: "Bridge", columns: &bridge::COLUMNS, records: bridge::records },
    Table { name: "Port", columns: &port::COLUMNS, records: port::records },
    Table { name: "Interface", columns: &interface::COLUMNS, records: port::records },
];

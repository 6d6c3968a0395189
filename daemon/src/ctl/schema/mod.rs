//! The tables Bridge, Port and Interface: their columns, what each holds, how it is read and set.
//!
//! A bridge is a network of the configuration. A port and its interface are two views of one
//! port of the configuration, with the same name. Columns that Open vSwitch has too bear its
//! names and mean the same; the others are `network`, `cable`, `promiscuous` and
//! `spoof` of Port, `mode`, `mtu`, `subnet`
//! and `uplink` of Bridge.

mod bridge;
pub mod column;
mod interface;
mod port;

use column::Table;

/// All tables.
pub static TABLES: [Table; 3] = [
    Table { name: "Bridge", columns: &bridge::COLUMNS, records: bridge::records },
    Table { name: "Port", columns: &port::COLUMNS, records: port::records },
    Table { name: "Interface", columns: &interface::COLUMNS, records: port::records },
];

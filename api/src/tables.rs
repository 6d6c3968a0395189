//! The tables of records.

/// The only record of `Open_vSwitch`.
pub const ROOT: &str = ".";

/// The names of all tables, sorted.
pub const TABLES: [&str; 13] = [
    "Bridge",
    "Controller",
    "Flow_Table",
    "IPFIX",
    "Interface",
    "Manager",
    "Mirror",
    "NetFlow",
    "Open_vSwitch",
    "Port",
    "QoS",
    "Queue",
    "sFlow",
];

/// The table of this name, in upper or lower case.
pub fn find(name: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|table| table.eq_ignore_ascii_case(name))
}

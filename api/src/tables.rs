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

/// Whether no command writes this column of a table.
pub fn is_read_only(table: &str, column: &str) -> bool {
    let columns: &[&str] = match table {
        "Bridge" => &["name", "ports", "status"],
        "Interface" => &[
            "admin_state",
            "error",
            "link_state",
            "mac_in_use",
            "mtu",
            "name",
            "ofport",
            "statistics",
            "status",
        ],
        "Mirror" => &["statistics"],
        "Open_vSwitch" => &["bridges", "datapath_types", "iface_types", "ovs_version"],
        "Port" => &["interfaces", "name"],
        _ => &[],
    };
    column == "_uuid" || columns.contains(&column)
}

/// The table of this name, in upper or lower case.
pub fn find(name: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|table| table.eq_ignore_ascii_case(name))
}

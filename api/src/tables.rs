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

/// The columns of each table that no command writes, besides `_uuid`.
const READ_ONLY: [(&str, &[&str]); 7] = [
    ("Bridge", &["datapath_version", "name", "ports", "rstp_status", "status"]),
    ("Controller", &["is_connected", "role", "status"]),
    (
        "Interface",
        &[
            "admin_state",
            "bfd_status",
            "cfm_fault",
            "cfm_fault_status",
            "cfm_flap_count",
            "cfm_health",
            "cfm_remote_mpids",
            "cfm_remote_opstate",
            "duplex",
            "error",
            "ifindex",
            "lacp_current",
            "link_resets",
            "link_speed",
            "link_state",
            "mac_in_use",
            "mtu",
            "name",
            "ofport",
            "statistics",
            "status",
        ],
    ),
    ("Manager", &["is_connected", "status"]),
    ("Mirror", &["statistics"]),
    (
        "Open_vSwitch",
        &[
            "bridges",
            "cur_cfg",
            "datapath_types",
            "datapaths",
            "dpdk_initialized",
            "dpdk_version",
            "iface_types",
            "next_cfg",
            "ovs_version",
            "statistics",
        ],
    ),
    ("Port", &["interfaces", "name", "rstp_statistics", "rstp_status", "statistics", "status"]),
];

/// Whether no command writes this column of a table.
pub fn is_read_only(table: &str, column: &str) -> bool {
    let of_table = READ_ONLY.iter().filter(|(name, _)| *name == table);
    column == "_uuid" || of_table.flat_map(|(_, columns)| *columns).any(|name| *name == column)
}

/// The table of this name, in upper or lower case.
pub fn find(name: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|table| table.eq_ignore_ascii_case(name))
}

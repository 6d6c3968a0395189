//! Settings of Open vSwitch that trama keeps for the software that set them, and does not act on.

use std::collections::BTreeMap;

/// Values by column, each in Open vSwitch's notation; an absent column has its default.
pub type Kept = BTreeMap<String, String>;

/// A table of Open vSwitch that has records of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTable {
    /// How traffic to a port would be shaped.
    Qos,
    /// A class of it.
    Queue,
    /// An export of flows.
    NetFlow,
    /// A sampled export.
    Sflow,
    /// An export of flows.
    Ipfix,
    /// An OpenFlow controller.
    Controller,
    /// An OVSDB manager.
    Manager,
    /// A table of OpenFlow rules.
    FlowTable,
}

impl RecordTable {
    /// All tables.
    pub const ALL: [RecordTable; 8] = [
        RecordTable::Qos,
        RecordTable::Queue,
        RecordTable::NetFlow,
        RecordTable::Sflow,
        RecordTable::Ipfix,
        RecordTable::Controller,
        RecordTable::Manager,
        RecordTable::FlowTable,
    ];

    /// The tables whose records stay although nothing refers to them. Those of sFlow and IPFIX to
    /// which a bridge refers are its settings. All others end with the transaction.
    pub const LASTING: [RecordTable; 2] = [RecordTable::Qos, RecordTable::Queue];

    /// The name of the table.
    pub fn name(self) -> &'static str {
        match self {
            RecordTable::Qos => "QoS",
            RecordTable::Queue => "Queue",
            RecordTable::NetFlow => "NetFlow",
            RecordTable::Sflow => "sFlow",
            RecordTable::Ipfix => "IPFIX",
            RecordTable::Controller => "Controller",
            RecordTable::Manager => "Manager",
            RecordTable::FlowTable => "Flow_Table",
        }
    }
}

/// A record of such a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its UUID.
    pub name: String,
    /// Its table.
    pub table: RecordTable,
    /// Its columns.
    pub columns: Kept,
}

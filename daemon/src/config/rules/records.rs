//! Tables of Open vSwitch that have records of their own, and what may refer to them.
//!
//! Records of sFlow and IPFIX are the settings of the bridge that refers to them. trama acts on no
//! others. Records of QoS and Queue stay, as in Open vSwitch, where nothing need refer to them; a
//! port may refer to a QoS that does not shape. Records of the other tables exist only as long as
//! something refers to them, which is refused.

use std::collections::HashSet;

use trama_api::value::is_uuid;

use super::check::Check;
use super::openvswitch::{
    BOOL, KEPT, KeptColumn, LIMITS, MAYBE_NUMBER, MAYBE_TEXT, NO_RATES, STRINGS, TEXT, TEXTS,
    empty, kept,
};
use crate::config::model::openvswitch::{Record, RecordTable};
use crate::config::model::{Config, Port};
use crate::value_type::{Kind, Shape, Type};

/// Types of QoS that do not shape.
const NO_SHAPING: [&str; 2] = ["", "linux-noop"];

const fn number(least: i64, most: i64) -> Type {
    Type::new(Kind::Integer(least, most), Shape::Optional)
}

const U32: i64 = u32::MAX as i64;

static QOS: [KeptColumn; 4] = [
    kept("external_ids", STRINGS),
    kept("other_config", STRINGS),
    kept("queues", Type::map(Kind::Integer(0, U32), Kind::Uuid)),
    kept("type", TEXT),
];

static QUEUE: [KeptColumn; 3] =
    [kept("dscp", number(0, 63)), kept("external_ids", STRINGS), kept("other_config", STRINGS)];

static NETFLOW: [KeptColumn; 6] = [
    kept("active_timeout", Type::new(Kind::Integer(-1, i64::MAX), Shape::One)),
    kept("add_id_to_interface", BOOL),
    kept("engine_id", number(0, 255)),
    kept("engine_type", number(0, 255)),
    kept("external_ids", STRINGS),
    kept("targets", TEXTS),
];

static SFLOW: [KeptColumn; 6] = [
    kept("agent", MAYBE_TEXT),
    kept("external_ids", STRINGS),
    kept("header", MAYBE_NUMBER),
    kept("polling", MAYBE_NUMBER),
    kept("sampling", MAYBE_NUMBER),
    kept("targets", TEXTS),
];

static IPFIX: [KeptColumn; 8] = [
    kept("cache_active_timeout", number(0, 4200)),
    kept("cache_max_flows", number(0, U32)),
    kept("external_ids", STRINGS),
    kept("obs_domain_id", number(0, U32)),
    kept("obs_point_id", number(0, U32)),
    kept("other_config", STRINGS),
    kept("sampling", number(1, U32)),
    kept("targets", TEXTS),
];

static CONTROLLER: [KeptColumn; 17] = [
    kept("connection_mode", Type::new(Kind::Enum(&["in-band", "out-of-band"]), Shape::Optional)),
    kept("controller_burst_limit", number(25, i64::MAX)),
    kept("controller_queue_size", number(1, 512)),
    kept("controller_rate_limit", number(100, i64::MAX)),
    kept("enable_async_messages", Type::new(Kind::Bool, Shape::Optional)),
    kept("external_ids", STRINGS),
    kept("inactivity_probe", MAYBE_NUMBER),
    empty("is_connected", BOOL),
    kept("local_gateway", MAYBE_TEXT),
    kept("local_ip", MAYBE_TEXT),
    kept("local_netmask", MAYBE_TEXT),
    kept("max_backoff", number(1000, i64::MAX)),
    kept("other_config", STRINGS),
    empty("role", Type::new(Kind::Enum(&["master", "other", "slave"]), Shape::Optional)),
    empty("status", STRINGS),
    kept("target", TEXT),
    kept("type", Type::new(Kind::Enum(&["primary", "service"]), Shape::Optional)),
];

static MANAGER: [KeptColumn; 8] = [
    kept("connection_mode", Type::new(Kind::Enum(&["in-band", "out-of-band"]), Shape::Optional)),
    kept("external_ids", STRINGS),
    kept("inactivity_probe", MAYBE_NUMBER),
    empty("is_connected", BOOL),
    kept("max_backoff", number(1000, i64::MAX)),
    kept("other_config", STRINGS),
    empty("status", STRINGS),
    kept("target", TEXT),
];

static FLOW_TABLE: [KeptColumn; 6] = [
    kept("external_ids", STRINGS),
    kept("flow_limit", number(0, i64::MAX)),
    kept("groups", TEXTS),
    kept("name", MAYBE_TEXT),
    kept("overflow_policy", Type::new(Kind::Enum(&["evict", "refuse"]), Shape::Optional)),
    kept("prefixes", TEXTS),
];

/// The columns of a table.
pub(crate) fn columns_of(table: RecordTable) -> &'static [KeptColumn] {
    match table {
        RecordTable::Qos => &QOS,
        RecordTable::Queue => &QUEUE,
        RecordTable::NetFlow => &NETFLOW,
        RecordTable::Sflow => &SFLOW,
        RecordTable::Ipfix => &IPFIX,
        RecordTable::Controller => &CONTROLLER,
        RecordTable::Manager => &MANAGER,
        RecordTable::FlowTable => &FLOW_TABLE,
    }
}

impl Check {
    /// A record: its name is a UUID, and the queues that it refers to exist.
    pub(super) fn record<'a>(
        &mut self,
        record: &'a Record,
        config: &Config,
        names: &mut HashSet<&'a str>,
    ) {
        if !is_uuid(&record.name) || record.name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.problem("name", "is not a UUID", "write 32 digits, as uuidgen prints them");
        }
        if !names.insert(&record.name) {
            self.problem("name", "is taken by another record", "give each its own UUID");
        }
        self.kept("columns", &record.columns, columns_of(record.table));
        if record.table == RecordTable::Qos {
            let queues = QOS[2].read(&record.columns).pairs().into_values();
            for queue in
                queues.filter(|queue| find(config, RecordTable::Queue, &queue.bare()).is_none())
            {
                let remedy = "create it, or remove it from queues of QoS";
                self.problem("columns", format!("there is no Queue {queue}"), remedy);
            }
        }
    }

    /// The QoS that a port refers to exists and does not shape.
    pub(super) fn qos_of_port(&mut self, port: &Port, config: &Config) {
        let Some(name) = port.openvswitch.get("qos") else { return };
        let remedy = format!("clear Port {} qos", port.name);
        match find(config, RecordTable::Qos, name) {
            None => self.problem(KEPT, format!("there is no QoS {name}"), remedy),
            Some(qos) => {
                let kind = QOS[3].read(&qos.columns).bare();
                if !NO_SHAPING.contains(&kind.as_str()) {
                    let message = format!("qos of type {kind} is refused: {NO_RATES}");
                    self.problem(KEPT, message, format!("{LIMITS}; or {remedy}"));
                }
            }
        }
    }
}

fn find<'a>(config: &'a Config, table: RecordTable, name: &str) -> Option<&'a Record> {
    config.records.iter().find(|record| record.table == table && record.name == name)
}

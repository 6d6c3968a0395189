//! Columns of Open vSwitch's tables that trama has no settings for.
//!
//! Software sets them beside others, in transactions that would be lost as a whole. What changes
//! nothing that a user can see is taken and kept ([`Takes::All`]). What trama would have to act on,
//! and cannot, is refused with what serves instead ([`Takes::Unless`]). Names and types are those
//! of the schema of Open vSwitch 3.1.

use trama_api::nearest::suggestion;
use trama_api::value::{Atom, Value};

use super::check::Check;
use crate::Fault;
use crate::config::model::openvswitch::Kept;
use crate::config::model::{Config, Network, Port};
use crate::value_type::{Kind, Shape, Type};

/// The key of the kept columns of a table.
pub(super) const KEPT: &str = "openvswitch";

/// A column that is kept or refused.
pub(crate) struct KeptColumn {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub of: Type,
    /// The values that it takes.
    pub takes: Takes,
}

/// The values that a column takes.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// All of its type.
    All,
    /// All of its type for which the function is false, because of what stands next to it.
    Unless(fn(&Value) -> bool, Reason),
    /// None: it is read-only, and empty.
    Nothing,
}

/// Why a value is refused.
#[derive(Clone, Copy)]
pub(crate) struct Reason {
    why: &'static str,
    /// What serves instead.
    instead: &'static str,
}

pub(super) const fn kept(name: &'static str, of: Type) -> KeptColumn {
    KeptColumn { name, of, takes: Takes::All }
}

pub(super) const fn empty(name: &'static str, of: Type) -> KeptColumn {
    KeptColumn { name, of, takes: Takes::Nothing }
}

const fn refused(
    name: &'static str,
    of: Type,
    is_refused: fn(&Value) -> bool,
    why: &'static str,
    instead: &'static str,
) -> KeptColumn {
    KeptColumn { name, of, takes: Takes::Unless(is_refused, Reason { why, instead }) }
}

const ANY: Kind = Kind::Integer(i64::MIN, i64::MAX);
const POSITIVE: Kind = Kind::Integer(0, i64::MAX);
pub(super) const VLAN: Kind = Kind::Integer(0, 4095);
pub(super) const BOOL: Type = Type::new(Kind::Bool, Shape::One);
const MAYBE_BOOL: Type = Type::new(Kind::Bool, Shape::Optional);
pub(super) const TEXT: Type = Type::new(Kind::String, Shape::One);
pub(super) const MAYBE_TEXT: Type = Type::new(Kind::String, Shape::Optional);
pub(super) const TEXTS: Type = Type::new(Kind::String, Shape::Set);
pub(super) const STRINGS: Type = Type::new(Kind::String, Shape::Map);
const COUNTS: Type = Type::new(ANY, Shape::Map);
pub(super) const NUMBER: Type = Type::new(ANY, Shape::One);
const COUNT: Type = Type::new(POSITIVE, Shape::One);
pub(super) const MAYBE_NUMBER: Type = Type::new(ANY, Shape::Optional);
pub(super) const MAYBE_UUID: Type = Type::new(Kind::Uuid, Shape::Optional);
pub(super) const UUIDS: Type = Type::new(Kind::Uuid, Shape::Set);
const UP_DOWN: Type = Type::new(Kind::Enum(&["down", "up"]), Shape::Optional);

const NO_STP: &str = "trama has no spanning tree";
const LOOPS: &str = "it finds loops by probes and blocks their ports: see the column loop of Port";
pub(super) const NO_RATES: &str = "trama does not limit rates";
pub(super) const LIMITS: &str = "limit the guest in its VMM, or a TAP with tc, and flooded frames with \
                      storm_broadcast, storm_multicast and storm_unknown of Port";
const NO_CONTROLLER: &str = "networks have no OpenFlow controllers or flow tables";
const FORWARDING: &str = "frames are forwarded by VLAN and MAC address";

fn is_true(value: &Value) -> bool {
    *value == Value::One(Atom::Bool(true))
}

fn is_set(value: &Value) -> bool {
    !value.is_empty()
}

fn is_not_zero(value: &Value) -> bool {
    *value != Value::One(Atom::Integer(0))
}

fn is_enabled(value: &Value) -> bool {
    value.at("enable").is_some_and(|atom| atom.bare() == "true")
}

/// Columns of Bridge.
pub(crate) static BRIDGE: [KeptColumn; 18] = [
    refused("auto_attach", MAYBE_UUID, is_set, "trama has no auto-attach", "set tags of ports"),
    refused("controller", UUIDS, is_set, NO_CONTROLLER, FORWARDING),
    kept("datapath_id", MAYBE_TEXT),
    kept("datapath_type", TEXT),
    empty("datapath_version", TEXT),
    kept("fail_mode", Type::new(Kind::Enum(&["secure", "standalone"]), Shape::Optional)),
    refused(
        "flood_vlans",
        Type::new(VLAN, Shape::Set),
        is_set,
        "addresses are learnt in every VLAN",
        "tramactl fdb/flush forgets them",
    ),
    refused(
        "flow_tables",
        Type::map(Kind::Integer(0, 254), Kind::Uuid),
        is_set,
        NO_CONTROLLER,
        FORWARDING,
    ),
    kept("ipfix", MAYBE_UUID),
    refused(
        "mcast_snooping_enable",
        BOOL,
        is_true,
        "multicast frames go to every port of their VLAN",
        "limit them with storm_multicast of Port",
    ),
    refused(
        "netflow",
        MAYBE_UUID,
        is_set,
        "trama exports flows by IPFIX, not by NetFlow",
        "create IPFIX with these targets, and set ipfix of Bridge",
    ),
    BRIDGE_CONFIG,
    kept(
        "protocols",
        Type::new(
            Kind::Enum(&[
                "OpenFlow10",
                "OpenFlow11",
                "OpenFlow12",
                "OpenFlow13",
                "OpenFlow14",
                "OpenFlow15",
            ]),
            Shape::Set,
        ),
    ),
    refused("rstp_enable", BOOL, is_true, NO_STP, LOOPS),
    empty("rstp_status", STRINGS),
    kept("sflow", MAYBE_UUID),
    empty("status", STRINGS),
    refused("stp_enable", BOOL, is_true, NO_STP, LOOPS),
];

/// `other_config` of Bridge, beside the keys that networks have settings for.
pub(crate) const BRIDGE_CONFIG: KeptColumn = refused(
    "other_config",
    STRINGS,
    forwards_bpdus,
    "frames to 01:80:c2:00:00:0x, such as BPDUs, do not pass",
    LOOPS,
);

fn forwards_bpdus(value: &Value) -> bool {
    value.at("forward-bpdu").is_some_and(|atom| atom.bare() == "true")
}

/// Columns of Port.
pub(crate) static PORT: [KeptColumn; 15] = [
    kept("bond_active_slave", MAYBE_TEXT),
    kept("bond_downdelay", NUMBER),
    kept("bond_fake_iface", BOOL),
    kept(
        "bond_mode",
        Type::new(Kind::Enum(&["active-backup", "balance-slb", "balance-tcp"]), Shape::Optional),
    ),
    kept("bond_updelay", NUMBER),
    refused(
        "cvlans",
        Type::new(VLAN, Shape::Set),
        is_set,
        "trama adds no second tag to frames",
        "carry the VLANs with trunks",
    ),
    refused(
        "fake_bridge",
        BOOL,
        is_true,
        "there are no fake bridges",
        "give the ports of a VLAN its tag",
    ),
    refused(
        "lacp",
        Type::new(Kind::Enum(&["active", "off", "passive"]), Shape::Optional),
        |value| matches!(value.bare().as_str(), "active" | "passive"),
        "trama speaks no LACP",
        "bond the host's interfaces in the kernel, and use the bond as uplink",
    ),
    refused(
        "other_config",
        STRINGS,
        |value| value.at("priority-tags").is_some_and(|atom| !is_off(atom)),
        "frames without a VLAN leave without a tag",
        "give the port a vlan_mode that suits its guest",
    ),
    refused(
        "protected",
        BOOL,
        is_true,
        "ports are not isolated one by one",
        "use a network of mode nat, or a tag for each port",
    ),
    kept("qos", MAYBE_UUID),
    empty("rstp_statistics", COUNTS),
    empty("rstp_status", STRINGS),
    empty("statistics", COUNTS),
    empty("status", STRINGS),
];

fn is_off(priority_tags: &Atom) -> bool {
    matches!(priority_tags.bare().as_str(), "never" | "false")
}

/// Columns of Interface.
pub(crate) static INTERFACE: [KeptColumn; 24] = [
    refused("bfd", STRINGS, is_enabled, "trama speaks no BFD", "see link_state"),
    empty("bfd_status", STRINGS),
    empty("cfm_fault", MAYBE_BOOL),
    empty("cfm_fault_status", TEXTS),
    empty("cfm_flap_count", MAYBE_NUMBER),
    empty("cfm_health", MAYBE_NUMBER),
    refused("cfm_mpid", MAYBE_NUMBER, is_set, "trama speaks no CFM", "see link_state"),
    empty("cfm_remote_mpids", Type::new(ANY, Shape::Set)),
    empty("cfm_remote_opstate", UP_DOWN),
    empty("duplex", Type::new(Kind::Enum(&["full", "half"]), Shape::Optional)),
    empty("ifindex", MAYBE_NUMBER),
    refused("ingress_policing_burst", COUNT, is_not_zero, NO_RATES, LIMITS),
    refused("ingress_policing_kpkts_burst", COUNT, is_not_zero, NO_RATES, LIMITS),
    refused("ingress_policing_kpkts_rate", COUNT, is_not_zero, NO_RATES, LIMITS),
    refused("ingress_policing_rate", COUNT, is_not_zero, NO_RATES, LIMITS),
    empty("lacp_current", MAYBE_BOOL),
    empty("link_resets", MAYBE_NUMBER),
    empty("link_speed", MAYBE_NUMBER),
    refused("lldp", STRINGS, is_enabled, "trama speaks no LLDP", "run lldpd in the guest"),
    kept("mac", MAYBE_TEXT),
    kept(MTU_REQUEST, Type::new(Kind::Integer(1, i64::MAX), Shape::Optional)),
    kept("ofport_request", Type::new(Kind::Integer(1, 65_279), Shape::Optional)),
    kept("other_config", STRINGS),
    empty("status", STRINGS),
];

/// Columns of Open_vSwitch.
pub(crate) static ROOT: [KeptColumn; 13] = [
    empty("cur_cfg", NUMBER),
    empty("datapaths", Type::map(Kind::String, Kind::Uuid)),
    kept("db_version", MAYBE_TEXT),
    empty("dpdk_initialized", BOOL),
    empty("dpdk_version", MAYBE_TEXT),
    kept("external_ids", STRINGS),
    refused(
        "manager_options",
        UUIDS,
        is_set,
        "there are no OVSDB managers",
        "programs steer the daemon by its control socket, as tramactl does",
    ),
    empty("next_cfg", NUMBER),
    kept("other_config", STRINGS),
    refused("ssl", MAYBE_UUID, is_set, "there is no TLS", "reach another host's socket with ssh"),
    empty("statistics", STRINGS),
    kept("system_type", MAYBE_TEXT),
    kept("system_version", MAYBE_TEXT),
];

impl KeptColumn {
    /// The value that is kept; the default if there is none.
    pub(crate) fn read(&self, kept: &Kept) -> Value {
        let text = kept.get(self.name);
        text.and_then(|text| self.of.parse(text).ok()).unwrap_or_else(|| self.of.default())
    }

    /// Keeps a value; a default one needs no place.
    pub(crate) fn write(&self, kept: &mut Kept, value: &Value) {
        if *value == self.of.default() {
            kept.remove(self.name);
        } else {
            kept.insert(self.name.to_owned(), value.to_string());
        }
    }

    /// Why this value is refused.
    pub(crate) fn refusal(&self, value: &Value) -> Option<Fault> {
        let Takes::Unless(is_refused, Reason { why, instead }) = self.takes else { return None };
        is_refused(value)
            .then(|| Fault::new(format!("{}={value} is refused: {why}", self.name), instead))
    }
}

/// The column by which an MTU is asked for.
pub(crate) const MTU_REQUEST: &str = "mtu_request";

impl Check {
    /// The kept columns of a port and its interface.
    pub(super) fn kept_of_port(&mut self, port: &Port, config: &Config) {
        const KEY: &str = "openvswitch-interface";
        self.kept(KEPT, &port.openvswitch, &PORT);
        self.kept(KEY, &port.openvswitch_interface, &INTERFACE);
        let request = port.openvswitch_interface.get(MTU_REQUEST).and_then(|it| it.parse().ok());
        let network = port.network.as_deref().and_then(|name| config.network(name));
        if let (Some(request), Some(Network { name, mtu, .. })) = (request, network)
            && i64::from(*mtu) < request
        {
            let message = format!("{MTU_REQUEST}={request} is more than the {mtu} of {name}");
            let remedy = format!("set Bridge {name} mtu={request}, or clear {MTU_REQUEST}");
            self.problem(KEY, message, remedy);
        }
    }

    /// The kept columns in a key of a table.
    pub(super) fn kept(&mut self, key: &'static str, kept: &Kept, known: &[KeptColumn]) {
        for (name, text) in kept {
            if let Some(fault) = fault_of(name, text, known) {
                self.fault(key, fault);
            }
        }
    }
}

fn fault_of(name: &str, text: &str, known: &[KeptColumn]) -> Option<Fault> {
    let free = known.iter().filter(|column| !matches!(column.takes, Takes::Nothing));
    let names: Vec<&str> = free.clone().map(|column| column.name).collect();
    let Some(column) = free.clone().find(|column| column.name == name) else {
        let remedy = match suggestion(name, &names) {
            near if near.is_empty() => format!("known here: {}", names.join(", ")),
            near => near.trim_start_matches("; ").to_owned(),
        };
        return Some(Fault::new(format!("there is no column {name:?}"), remedy));
    };
    match column.of.parse(text) {
        Ok(value) => column.refusal(&value),
        Err(fault) => Some(Fault::new(
            format!("{name} = {text:?}: {fault}"),
            "write it as tramactl get prints it",
        )),
    }
}

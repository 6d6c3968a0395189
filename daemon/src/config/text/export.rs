//! `[network.sflow]` and `[network.ipfix]` read from a file and written back.

use std::net::SocketAddr;
use std::time::Duration;

use toml_edit::{InlineTable, Value};

use super::field::put_list;
use super::reader::Reader;
use super::units::format_duration;
use crate::Fault;
use crate::config::model::export::{Ipfix, Sflow};
use crate::config::rules::Place;

const SFLOW_KEYS: [&str; 5] = ["agent", "header", "sampling", "polling", "targets"];
const IPFIX_KEYS: [&str; 6] =
    ["domain", "sampling", "active-timeout", "idle-timeout", "max-flows", "targets"];

/// The key `sflow` of the network with this number.
pub(super) fn read_sflow(reader: &mut Reader<'_, '_, '_>, index: usize) -> Option<Sflow> {
    let mut table = reader.table("sflow", Place::Sflow(index))?;
    table.refuse_unknown(&SFLOW_KEYS, |_| None);
    let default = Sflow::default();
    Some(Sflow {
        agent: table.string("agent"),
        header: table.integer("header").unwrap_or(default.header),
        sampling: table.integer("sampling").unwrap_or(default.sampling),
        polling: seconds(&mut table, "polling").unwrap_or(default.polling),
        targets: targets(&mut table),
    })
}

/// The key `ipfix` of the network with this number.
pub(super) fn read_ipfix(reader: &mut Reader<'_, '_, '_>, index: usize) -> Option<Ipfix> {
    let mut table = reader.table("ipfix", Place::Ipfix(index))?;
    table.refuse_unknown(&IPFIX_KEYS, |_| None);
    let default = Ipfix::default();
    Some(Ipfix {
        domain: table.integer("domain").unwrap_or(default.domain),
        sampling: table.integer("sampling").unwrap_or(default.sampling),
        active_timeout: seconds(&mut table, "active-timeout").unwrap_or(default.active_timeout),
        idle_timeout: seconds(&mut table, "idle-timeout").unwrap_or(default.idle_timeout),
        max_flows: table.integer("max-flows").unwrap_or(default.max_flows),
        targets: targets(&mut table),
    })
}

/// A time: a number is seconds, as in Open vSwitch.
fn seconds(table: &mut Reader<'_, '_, '_>, key: &'static str) -> Option<Duration> {
    if table.is_string(key) {
        return table.duration(key);
    }
    table.integer(key).map(|seconds: u32| Duration::from_secs(seconds.into()))
}

fn targets(table: &mut Reader<'_, '_, '_>) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    for (offset, text) in table.strings("targets").unwrap_or_default() {
        match text.parse() {
            Ok(address) => targets.push(address),
            Err(_) => {
                let message = format!("{text:?} is not an address with a port");
                let remedy = "write a collector as in \"10.0.0.1:6343\" or \"[fd00::1]:4739\"";
                table.fault("targets", offset, Fault::new(message, remedy));
            }
        }
    }
    targets
}

/// The value of the key `sflow`; `None` if the key is absent.
pub(super) fn sflow(setting: Option<&Sflow>) -> Option<Value> {
    let Sflow { agent, header, sampling, polling, targets } = setting?;
    let default = Sflow::default();
    let mut table = InlineTable::new();
    table.extend(agent.as_ref().map(|agent| ("agent", agent.as_str())));
    put_number(&mut table, "header", u32::from(*header), default.header.into());
    put_number(&mut table, "sampling", *sampling, default.sampling);
    put_time(&mut table, "polling", *polling, default.polling);
    put_list(&mut table, "targets", targets.iter().map(SocketAddr::to_string));
    Some(Value::InlineTable(table))
}

/// The same of the key `ipfix`.
pub(super) fn ipfix(setting: Option<&Ipfix>) -> Option<Value> {
    let Ipfix { domain, sampling, active_timeout, idle_timeout, max_flows, targets } = setting?;
    let default = Ipfix::default();
    let mut table = InlineTable::new();
    put_number(&mut table, "domain", *domain, default.domain);
    put_number(&mut table, "sampling", *sampling, default.sampling);
    put_time(&mut table, "active-timeout", *active_timeout, default.active_timeout);
    put_time(&mut table, "idle-timeout", *idle_timeout, default.idle_timeout);
    put_number(&mut table, "max-flows", *max_flows, default.max_flows);
    put_list(&mut table, "targets", targets.iter().map(SocketAddr::to_string));
    Some(Value::InlineTable(table))
}

fn put_number(table: &mut InlineTable, key: &str, number: u32, default: u32) {
    table.extend((number != default).then(|| (key, i64::from(number))));
}

fn put_time(table: &mut InlineTable, key: &str, time: Duration, default: Duration) {
    table.extend((time != default).then(|| (key, format_duration(time))));
}

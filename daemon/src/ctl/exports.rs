//! `[network.sflow]` and `[network.ipfix]` in Open vSwitch's words: a record of sFlow or IPFIX, to
//! which the column of its bridge refers.
//!
//! A draft begins with a record for each of these settings. Commands edit records and references as
//! they edit others; at the end, what a bridge refers to is its setting.

use std::time::Duration;

use trama_api::value::{Atom, Value};

use super::failure::Failure;
use super::identity;
use crate::config::columns_of;
use crate::config::model::export::{Ipfix, Sflow};
use crate::config::model::openvswitch::{Kept, Record, RecordTable};
use crate::config::model::{Config, Network};

/// The column of Bridge that refers to each table.
const SFLOW: (&str, RecordTable) = ("sflow", RecordTable::Sflow);
const IPFIX: (&str, RecordTable) = ("ipfix", RecordTable::Ipfix);
/// The key of `other_config` that Open vSwitch has no column for.
const IDLE: &str = "idle-timeout";

/// Adds the records of settings.
pub(super) fn expose(config: &mut Config) {
    let Config { networks, records, .. } = config;
    for network in networks {
        if let Some(sflow) = &network.sflow {
            let columns = sflow_columns(sflow);
            refer(network, SFLOW, columns, records);
        }
        if let Some(ipfix) = &network.ipfix {
            let columns = ipfix_columns(ipfix);
            refer(network, IPFIX, columns, records);
        }
    }
}

fn refer(
    network: &mut Network,
    (column, table): (&str, RecordTable),
    columns: Kept,
    records: &mut Vec<Record>,
) {
    let uuid = identity::of(table.name(), &network.name);
    network.openvswitch.insert(column.to_owned(), uuid.clone());
    records.push(Record { name: uuid, table, columns });
}

/// Makes settings of the records that bridges refer to.
///
/// # Errors
/// There is no such record, or it has what settings have not.
pub(super) fn take(config: &mut Config) -> Result<(), Failure> {
    let Config { networks, records, .. } = config;
    for network in networks {
        network.sflow = referred(network, SFLOW, records)?.map(sflow).transpose()?;
        network.ipfix = referred(network, IPFIX, records)?.map(ipfix).transpose()?;
    }
    Ok(())
}

fn referred<'r>(
    network: &mut Network,
    (column, table): (&str, RecordTable),
    records: &'r [Record],
) -> Result<Option<&'r Record>, Failure> {
    let Some(uuid) = network.openvswitch.remove(column) else { return Ok(None) };
    let found = records.iter().find(|record| record.table == table && record.name == uuid);
    let missing = || {
        let (bridge, table) = (&network.name, table.name());
        format!(
            "Bridge {bridge}: {column} refers to {uuid}, and there is no such {table}; create it in the same transaction, with --id=@NAME"
        )
    };
    Ok(Some(found.ok_or_else(missing)?))
}

/// Reads the columns of a record, one by one.
struct Columns<'r> {
    record: &'r Record,
    /// Those that were not read.
    left: Kept,
}

impl Columns<'_> {
    fn of(record: &Record) -> Columns<'_> {
        Columns { record, left: record.columns.clone() }
    }

    fn value(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name)?;
        let column = columns_of(self.record.table).iter().find(|column| column.name == name)?;
        Some(column.read(&self.record.columns))
    }

    /// A number, which is refused if the setting has no room for it.
    fn number<T: TryFrom<i64>>(&mut self, name: &str, usual: T) -> Result<T, Failure> {
        let Some(value) = self.value(name) else { return Ok(usual) };
        let number = match value.atoms().into_iter().next() {
            Some(Atom::Integer(number)) => T::try_from(number).ok(),
            _ => Some(usual),
        };
        let table = self.record.table.name();
        Ok(number.ok_or_else(|| format!("{table}: {name}={value} is out of range"))?)
    }

    fn seconds(&mut self, name: &str, usual: Duration) -> Result<Duration, Failure> {
        let seconds: u32 = self.number(name, usual.as_secs() as u32)?;
        Ok(Duration::from_secs(seconds.into()))
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        let value = self.value(name);
        value.iter().flat_map(Value::atoms).map(|atom| atom.bare()).collect()
    }

    fn targets<T: std::str::FromStr>(&mut self) -> Result<Vec<T>, Failure> {
        let table = self.record.table.name();
        let parse = |text: String| {
            let wrong = || {
                format!(
                    "{table}: target {text:?} is not an address with a port; write it as in \
                         targets=\"10.0.0.1:6343\""
                )
            };
            text.parse().map_err(|_| wrong().into())
        };
        self.texts("targets").into_iter().map(parse).collect()
    }

    /// Refuses what was not read.
    fn finish(self) -> Result<(), Failure> {
        let Some((name, value)) = self.left.first_key_value() else { return Ok(()) };
        let table = self.record.table.name();
        Err(format!("{table}: {name}={value} is refused: trama has no such setting; leave it out")
            .into())
    }
}

fn sflow(record: &Record) -> Result<Sflow, Failure> {
    let mut columns = Columns::of(record);
    let usual = Sflow::default();
    let sflow = Sflow {
        agent: columns.texts("agent").into_iter().next(),
        header: columns.number("header", usual.header)?,
        sampling: columns.number("sampling", usual.sampling)?,
        polling: columns.seconds("polling", usual.polling)?,
        targets: columns.targets()?,
    };
    columns.finish().map(|()| sflow)
}

fn ipfix(record: &Record) -> Result<Ipfix, Failure> {
    let mut columns = Columns::of(record);
    let usual = Ipfix::default();
    let config = columns.value("other_config").unwrap_or(Value::NOTHING);
    let mut pairs = config.pairs();
    let idle = pairs.remove(&Atom::string(IDLE)).map(|seconds| seconds.bare());
    let idle = idle.map(|text| {
        text.parse()
            .map_err(|_| format!("IPFIX: other_config:{IDLE}={text} is not a number of seconds"))
    });
    let ipfix = Ipfix {
        domain: columns.number("obs_domain_id", usual.domain)?,
        sampling: columns.number("sampling", usual.sampling)?,
        active_timeout: columns.seconds("cache_active_timeout", usual.active_timeout)?,
        idle_timeout: idle.transpose()?.map_or(usual.idle_timeout, Duration::from_secs),
        max_flows: columns.number("cache_max_flows", usual.max_flows)?,
        targets: columns.targets()?,
    };
    if !pairs.is_empty() {
        columns.left.insert("other_config".to_owned(), Value::Map(pairs.into()).to_string());
    }
    columns.finish().map(|()| ipfix)
}

/// Columns in Open vSwitch's notation; those with their defaults as well, which are not those of
/// Open vSwitch.
fn kept<const N: usize>(columns: [(&str, Option<Value>); N]) -> Kept {
    let columns = columns.into_iter();
    columns.filter_map(|(name, value)| Some((name.to_owned(), value?.to_string()))).collect()
}

fn number(number: impl Into<u64>) -> Option<Value> {
    Some(Value::One(number.into().into()))
}

fn targets(targets: &[std::net::SocketAddr]) -> Option<Value> {
    Some(Value::Set(targets.iter().map(|target| Atom::string(target.to_string())).collect()))
}

fn sflow_columns(sflow: &Sflow) -> Kept {
    kept([
        ("agent", sflow.agent.as_ref().map(Value::string)),
        ("header", number(sflow.header)),
        ("polling", number(sflow.polling.as_secs())),
        ("sampling", number(sflow.sampling)),
        ("targets", targets(&sflow.targets)),
    ])
}

fn ipfix_columns(ipfix: &Ipfix) -> Kept {
    let idle = ipfix.idle_timeout;
    let is_usual = idle == Ipfix::default().idle_timeout;
    let config = (!is_usual).then(|| Value::strings([(IDLE, idle.as_secs().to_string())]));
    kept([
        ("cache_active_timeout", number(ipfix.active_timeout.as_secs())),
        ("cache_max_flows", number(ipfix.max_flows)),
        ("obs_domain_id", number(ipfix.domain)),
        ("other_config", config),
        ("sampling", number(ipfix.sampling)),
        ("targets", targets(&ipfix.targets)),
    ])
}

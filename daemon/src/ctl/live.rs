//! Commands on the running switch: MAC tables, leases, counters, versions.

use trama_api::transaction::{Form, Output};
use trama_api::value::{Atom, Value};
use trama_frame::MacAddr;
use trama_switch::DropReason;

use super::call::Call;
use super::context::{After, Context};
use super::failure::Failure;
use crate::config::derived::running::is_part_of;
use crate::status::{Lease, PortCounts, PortStatus};

pub(super) fn fdb_show(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let bridge = bridge_argument(context, call)?;
    let wanted = |network: &str| bridge.as_deref().is_none_or(|bridge| bridge == network);
    let number = |port: &str| match context.snapshot.numbers.get(port) {
        Some(number) if !call.has("--names") => Atom::from(u64::from(*number)),
        _ => Atom::string(port),
    };
    let rows = context.snapshot.fdb.iter().filter(|row| wanted(&row.network)).map(|row| {
        vec![
            Value::One(number(&row.port)),
            Value::One(u64::from(row.vlan).into()),
            Value::string(&row.mac),
            row.age.map_or(Value::string("static"), |age| Value::One(age.as_secs().into())),
        ]
    });
    Ok(Output::Table {
        headings: ["port", "VLAN", "MAC", "Age"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
        form: Form::Fixed { widths: vec![5, 4, -17, 3] },
    })
}

pub(super) fn fdb_flush(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let bridge = bridge_argument(context, call)?;
    context.after.push(After::FlushFdb(bridge));
    Ok(Output::line("table successfully flushed"))
}

pub(super) fn leases(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let bridge = bridge_argument(context, call)?;
    if let Some(bridge) = &bridge
        && context.draft.network(bridge).is_none_or(|network| network.dhcp().is_none())
    {
        let message = format!("network {bridge} leases no addresses; it has no dhcp");
        return Err(message.into());
    }
    let wanted = |network: &str| bridge.as_deref().is_none_or(|bridge| is_part_of(network, bridge));
    let ports = &context.snapshot.status.ports;
    let port = |mark: u64| ports.iter().find(|port| mark != 0 && u64::from(port.mark) == mark);
    let rows = context.snapshot.leases.iter().filter(|lease| wanted(&lease.network));
    let rows = rows.map(|Lease { network, row }| {
        vec![
            Value::string(network),
            Value::string(row.address.to_string()),
            Value::string(row.state.name()),
            Value::string(MacAddr(row.mac).to_string()),
            Value::optional(row.name.clone().map(Atom::string)),
            Value::optional(port(row.port).map(|port| Atom::string(port.name.clone()))),
            Value::optional(row.left.map(Atom::from)),
        ]
    });
    Ok(Output::Table {
        headings: ["network", "address", "state", "mac", "name", "port", "seconds_left"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
        form: Form::Table,
    })
}

/// The word that asks for what to do about drops, in the place of a port's name.
const WHY: &str = "--why";

pub(super) fn counters(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let ports = &context.snapshot.status.ports;
    let Some(name) = call.args.first() else {
        let mut rows: Vec<_> = ports.iter().collect();
        rows.sort_unstable_by_key(|port| &port.name);
        return Ok(table_of(&rows, Form::Table));
    };
    if name == WHY {
        return Ok(why(ports));
    }
    if context.draft.port(name).is_none() {
        return Err(context.draft.no_port(name));
    }
    let port = ports.iter().find(|port| port.name == *name);
    let port = port.ok_or_else(|| format!("port {name} is not running yet"))?;
    Ok(table_of(&[port], Form::List))
}

fn table_of(ports: &[&PortStatus], form: Form) -> Output {
    let mut headings: Vec<String> =
        ["port", "network", "rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "dropped", "drops"]
            .map(str::to_owned)
            .to_vec();
    // A single port shows every counter.
    let all = form == Form::List;
    if let (true, Some(port)) = (all, ports.first()) {
        headings.push("gateway_drops".to_owned());
        headings.extend(remedies(&port.counters).map(|remedy| remedy.counter));
        headings.extend(port.counters.others.iter().map(|(name, _)| (*name).to_owned()));
    }
    let row = |port: &&PortStatus| {
        let counts = &port.counters;
        let plain = [counts.rx_frames, counts.rx_bytes, counts.tx_frames, counts.tx_bytes];
        let mut cells = vec![
            Value::string(&port.name),
            Value::optional(port.network.clone().map(Atom::string)),
        ];
        cells.extend(plain.into_iter().chain([counts.dropped()]).map(|n| Value::One(n.into())));
        let drops = counts.drops.iter().filter(|(_, count)| *count > 0).copied();
        cells.push(Value::counts(drops));
        if all {
            let refused = counts.gateway_drops.iter();
            let refused = refused.map(|(reason, n)| (Atom::string(reason), Atom::from(*n)));
            cells.push(Value::Map(refused.collect()));
            cells.extend(remedies(counts).map(|remedy| Value::string(remedy.text)));
            cells.extend(counts.others.iter().map(|(_, count)| Value::One((*count).into())));
        }
        cells
    };
    Output::Table { headings, rows: ports.iter().map(row).collect(), form }
}

/// The reasons of all ports' drops, with what to do about each.
fn why(ports: &[PortStatus]) -> Output {
    let mut found: Vec<(&str, Remedy)> = ports
        .iter()
        .flat_map(|port| remedies(&port.counters).map(|remedy| (port.name.as_str(), remedy)))
        .collect();
    found.sort_by(|(a, left), (b, right)| a.cmp(b).then(right.frames.cmp(&left.frames)));
    let row = |(port, remedy): (&str, Remedy)| {
        vec![
            Value::string(port),
            Value::string(remedy.counter),
            Value::One(remedy.frames.into()),
            Value::string(remedy.text),
        ]
    };
    Output::Table {
        headings: ["port", "counter", "frames", "remedy"].map(str::to_owned).to_vec(),
        rows: found.into_iter().map(row).collect(),
        form: Form::Table,
    }
}

/// What to do about drops of a port.
struct Remedy {
    /// Their counter in the manner of `get`: `drops:REASON`, or `gateway_drops:REASON`.
    counter: String,
    frames: u64,
    text: &'static str,
}

/// What to do about each reason that was counted.
fn remedies(counts: &PortCounts) -> impl Iterator<Item = Remedy> + '_ {
    let own = DropReason::ALL.iter().filter_map(|reason| {
        let (name, frames) = (reason.name(), counts.drops_for(reason.name()));
        let remedy =
            || Remedy { counter: format!("drops:{name}"), frames, text: reason.describe() };
        (frames > 0).then(remedy)
    });
    let refused = counts.gateway_drops.iter().filter_map(|(name, frames)| {
        let text = trama_gateway::DropReason::named(name)?.describe();
        Some(Remedy { counter: format!("gateway_drops:{name}"), frames: *frames, text })
    });
    own.chain(refused)
}

pub(super) fn reload(_: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    Err("reload cannot be combined with other commands: it reads the whole configuration file"
        .to_owned()
        .into())
}

pub(super) fn upgrade(_: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    Err("upgrade cannot be combined with other commands: this tramad ends with it"
        .to_owned()
        .into())
}

pub(super) fn version(_: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    Ok(Output::line(concat!("tramad (trama) ", env!("CARGO_PKG_VERSION"))))
}

fn bridge_argument(context: &Context<'_>, call: &Call) -> Result<Option<String>, Failure> {
    match call.args.first() {
        Some(bridge) if context.draft.network(bridge).is_none() => {
            Err(context.draft.no_bridge(bridge))
        }
        bridge => Ok(bridge.cloned()),
    }
}

//! Commands on NAT: forwards, and the flows through gateways.

use trama_api::nearest::suggestion;
use trama_api::transaction::{Form, Output};
use trama_api::value::Value;
use trama_gateway::report::FlowRow;

use super::call::Call;
use super::context::Context;
use super::draft::Draft;
use super::failure::Failure;
use crate::config::derived::running::{is_part_of, written_name};
use crate::config::model::rule::Rule;
use crate::config::model::{Config, Mode, Network};
use crate::config::text::parse_rule;
use crate::forwards::{Line, with_idle};

/// The subcommand that prints forwards.
pub const LIST: &str = "list";
const ADD: &str = "add";
const DEL: &str = "del";

pub(super) fn forward(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let (verb, place, rule) = (call.arg(0), call.arg(1), call.arg(2));
    match (verb, call.args.len()) {
        (ADD, 3) => add(context, place, rule),
        (DEL, 3) => del(context, place, rule),
        (LIST, 1 | 2) => list(context, call.args.get(1).map(String::as_str)),
        _ => {
            let usage = call.command.usage();
            Err(format!("'forward {verb}' does not exist or takes other arguments; usage: {usage}")
                .into())
        }
    }
}

fn add(context: &mut Context<'_>, place: &str, text: &str) -> Result<Output, Failure> {
    let rule = parse_rule(text)?;
    rules_of(context, place)?.push(rule);
    Ok(Output::none())
}

/// Removes the rule of this name, or the one equal to this text.
fn del(context: &mut Context<'_>, place: &str, text: &str) -> Result<Output, Failure> {
    let meant = parse_rule(text).ok();
    let rules = rules_of(context, place)?;
    let is_it = |rule: &Rule| rule.label() == text || meant.as_ref() == Some(rule);
    let index = rules.iter().position(is_it).ok_or_else(|| {
        format!("{place} has no forward {text:?}; list them with: tramactl forward list {place}")
    })?;
    rules.remove(index);
    Ok(Output::none())
}

/// The forwards of a port, or of a network.
fn rules_of<'a>(context: &'a mut Context<'_>, place: &str) -> Result<&'a mut Vec<Rule>, Failure> {
    let draft = &mut context.draft;
    let network = draft.port(place).and_then(|port| port.network.clone());
    let of_port = network.and_then(|name| draft.network(&name)).map(|network| network.mode);
    let is_network = draft.network(place).is_some();
    if !is_network && draft.port(place).is_none() {
        return Err(no_place(draft, place));
    }
    let rules = if of_port == Some(Mode::Nat) || !is_network {
        draft.port_mut(place).map(|port| &mut port.forward)
    } else {
        draft.network_mut(place).map(|network| &mut network.forward)
    };
    rules.ok_or_else(|| format!("no network or port named {place}").into())
}

fn no_place(draft: &Draft, place: &str) -> Failure {
    let Config { networks, ports, .. } = draft.config();
    let networks = networks.iter().map(|network| network.name.as_str());
    let known: Vec<&str> = networks.chain(ports.iter().map(|port| port.name.as_str())).collect();
    format!("no network or port named {place}{}", suggestion(place, &known)).into()
}

fn list(context: &mut Context<'_>, place: Option<&str>) -> Result<Output, Failure> {
    let config = context.draft.config();
    if let Some(place) =
        place.filter(|it| config.network(it).is_none() && config.port(it).is_none())
    {
        return Err(no_place(&context.draft, place));
    }
    let running = with_idle(config);
    let rows = running.iter().flat_map(|network| {
        let status = context.snapshot.forwards.get(&network.name);
        let rules = network.forward.iter().filter(|rule| is_of(config, network, rule, place));
        rules.map(move |rule| row(Line::of(network, rule, status)))
    });
    Ok(Output::Table {
        headings: ["network", "name", "protocol", "host", "guest", "client", "status"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
        form: Form::Table,
    })
}

/// Whether a rule of a network that runs is one of the network or port `place`; `None`: of any.
fn is_of(config: &Config, network: &Network, rule: &Rule, place: Option<&str>) -> bool {
    let Some(place) = place else { return true };
    if is_part_of(&network.name, place) {
        return true;
    }
    let on = config.port(place).filter(|port| port.network.is_some());
    on.is_some_and(|port| {
        let written = config.network(written_name(&network.name));
        let runs = written.filter(|it| port.is_on(&it.name)).map(|it| it.running_name(port));
        runs.as_deref() == Some(&network.name)
            && port.forward.iter().any(|it| it.label() == rule.label())
    })
}

fn row(line: Line) -> Vec<Value> {
    let Line { network, name, protocol, host, guest, client, status, .. } = line;
    let cells = [network.as_str(), &name, protocol, &host, &guest, client, &status];
    cells.map(Value::string).to_vec()
}

pub(super) fn flows(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let bridge = call.args.first();
    if let Some(bridge) = bridge.filter(|it| context.draft.network(written_name(it)).is_none()) {
        return Err(context.draft.no_bridge(bridge));
    }
    let wanted = |network: &str| bridge.is_none_or(|bridge| is_part_of(network, bridge));
    let rows = context.snapshot.flows.iter().filter(|(network, _)| wanted(network));
    let rows = rows.map(|(network, row): &(String, FlowRow)| {
        vec![
            Value::string(network),
            Value::string(&row.protocol),
            Value::string(row.guest.to_string()),
            Value::string(row.remote.map(|remote| remote.to_string()).unwrap_or_default()),
            Value::string(&row.state),
            Value::One(row.sent.into()),
            Value::One(row.received.into()),
            Value::One(row.idle.into()),
        ]
    });
    Ok(Output::Table {
        headings: ["network", "protocol", "guest", "remote", "state", "sent", "received", "idle"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
        form: Form::Table,
    })
}

//! `show`: networks, ports and interfaces as an indented overview.

use trama_api::transaction::Output;
use trama_api::value::{Value, quoted};
use trama_gateway::NatDrop;
use trama_switch::DropReason;

use super::call::Call;
use super::context::{Context, View};
use super::failure::Failure;
use super::identity;
use super::schema::column::Table;
use super::schema::{BRIDGE, INTERFACE, PORT};
use crate::config::derived::running::is_part_of;
use crate::config::model::{Mode, Port};
use crate::confinement;
use crate::status::PortCounts;
use crate::value_type::Shape;

/// Columns of a bridge that are shown if set.
const OF_BRIDGE: [&str; 2] = ["fail_mode", "datapath_type"];
/// Columns of a port that are shown if set.
const OF_PORT: [&str; 4] = ["forward", "tag", "trunks", "vlan_mode"];
/// Columns of an interface that are shown if set.
const OF_INTERFACE: [&str; 3] = ["type", "options", "error"];

pub(super) fn show(context: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    let view = context.view();
    let mut lines = vec![identity::of("Trama", "")];
    for bridge in BRIDGE.records(view.draft) {
        lines.push(format!("    Bridge {}", quoted(&bridge)));
        show_columns(view, &BRIDGE, &OF_BRIDGE, &bridge, "        ", &mut lines);
        show_network_port(view, &bridge, &mut lines);
        for port in view.draft.ports_of(&bridge) {
            show_port(view, port, &mut lines);
        }
    }
    let mut loose: Vec<_> = view.draft.ports().iter().filter(|p| p.network.is_none()).collect();
    loose.sort_unstable_by_key(|port| &port.name);
    if !loose.is_empty() {
        lines.push("    Not attached".to_owned());
    }
    for port in loose {
        show_port(view, &port.name, &mut lines);
    }
    lines.extend(confinement::in_force().map(|text| format!("    sandbox: {}", quoted(text))));
    let missing = confinement::missing();
    lines.extend(missing.iter().map(|text| format!("    not_in_force: {}", quoted(text))));
    lines.push(format!("    trama_version: {}", quoted(env!("CARGO_PKG_VERSION"))));
    Ok(Output::Text { lines })
}

/// The network's settings, where Open vSwitch shows a bridge's local port.
fn show_network_port(view: View<'_>, bridge: &str, lines: &mut Vec<String>) {
    let Some(network) = view.draft.network(bridge) else { return };
    if network.mode != Mode::Internal {
        lines.push(format!("        mode: {}", network.mode.name()));
    }
    for subnet in network.subnets() {
        lines.push(format!("        subnet: \"{subnet}\""));
    }
    for rule in &network.forward {
        lines.push(format!("        forward: {}", quoted(&rule.to_string())));
    }
    for mirror in view.draft.mirrors().iter().filter(|it| it.network.as_deref() == Some(bridge)) {
        lines.push(format!(
            "        mirror: {}",
            quoted(&format!("{} to {}", mirror.name, mirror.output()))
        ));
    }
    if let Some(uplink) = &network.uplink {
        lines.push(format!("        uplink: {}", quoted(uplink)));
    }
    // A network of mode `nat` has a gateway for each port.
    let parts = view.snapshot.status.networks.iter().filter(|part| is_part_of(&part.name, bridge));
    let gateways: Vec<_> = parts.filter_map(|part| part.gateway.as_ref()).collect();
    for gateway in &gateways {
        if let (restarts @ 1.., Some(reason)) = (gateway.restarts, &gateway.last_error) {
            let times = if restarts == 1 { "once" } else { &format!("{restarts} times") };
            let text = format!("replaced {times}: {reason}");
            lines.push(format!("        gateway: {}", quoted(&text)));
        }
    }
    let mut stores = gateways.iter().filter_map(|gateway| gateway.counters.lease_store.as_ref());
    if let Some(trouble) = stores.next() {
        lines.push(format!("        error: {}", quoted(trouble)));
    }
    let port = network.network_port().and_then(|port| view.snapshot.status.port(&port.name));
    if let Some(error) = port.and_then(|port| port.trouble()) {
        lines.push(format!("        error: {}", quoted(error)));
    }
}

fn show_port(view: View<'_>, name: &str, lines: &mut Vec<String>) {
    lines.push(format!("        Port {}", quoted(name)));
    show_columns(view, &PORT, &OF_PORT, name, "            ", lines);
    if view.draft.port(name).is_some_and(|port| !port.cable) {
        lines.push("            cable: false".to_owned());
    }
    if view.draft.port(name).is_some_and(Port::is_ephemeral) {
        lines.push("            ephemeral: true".to_owned());
    }
    let counters = view.snapshot.status.port(name).map(|port| &port.counters);
    for text in counters.into_iter().flat_map(lost_before_a_gateway) {
        lines.push(format!("            lost: {}", quoted(&text)));
    }
    let storms = view.snapshot.status.port(name).map(|port| &port.storms);
    if let Some(storms) = storms.filter(|storms| !storms.is_empty()) {
        lines.push(format!("            storm: {}", quoted(&storms.join(", "))));
    }
    let block = view.snapshot.status.port(name).and_then(|port| port.loop_block.as_ref());
    if let Some(reason) = block {
        lines.push(format!("            loop: {}", quoted(reason)));
    }
    lines.push(format!("            Interface {}", quoted(name)));
    show_columns(view, &INTERFACE, &OF_INTERFACE, name, "                ", lines);
}

/// What the port lost because a gateway belongs to all, and what to do about it.
fn lost_before_a_gateway(counters: &PortCounts) -> Vec<String> {
    let share = DropReason::GatewayShare;
    let flows = NatDrop::NewFlowShare;
    let mut refused = counters.gateway_drops.iter().filter(|(reason, _)| reason == flows.name());
    let lost = [
        (counters.drops_for(share.name()), share.name(), share.describe()),
        (refused.next().map_or(0, |(_, count)| *count), flows.name(), flows.describe()),
    ];
    let lost = lost.into_iter().filter(|(count, ..)| *count > 0);
    lost.map(|(count, name, text)| format!("{count} frames, {name}: {text}")).collect()
}

fn show_columns(
    view: View<'_>,
    table: &'static Table,
    names: &[&str],
    record: &str,
    indent: &str,
    lines: &mut Vec<String>,
) {
    for column in names.iter().filter_map(|name| table.column(name)) {
        let value = column.read(view, record);
        let unset = match column.of.shape {
            Shape::One => value == Value::string(""),
            _ => value.is_empty(),
        };
        if !unset {
            lines.push(format!("{indent}{}: {value}", column.name));
        }
    }
}

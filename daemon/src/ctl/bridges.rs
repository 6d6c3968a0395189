//! Commands on whole networks (bridges) and ports.

use trama_api::transaction::Output;

use super::assign::set_one;
use super::call::Call;
use super::context::Context;
use super::draft::Draft;
use super::failure::Failure;
use super::schema::PORT;
use super::schema::column::edit_port;

/// The exit status of `br-exists` if there is no such bridge.
const NO_SUCH_BRIDGE: u8 = 2;

pub(super) fn add_br(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let name = call.arg(0);
    if call.args.len() > 1 {
        return Err(format!(
            "there are no fake bridges; give the ports of a VLAN its tag instead: add-port {} PORT \
             tag={}",
            call.arg(1),
            if call.args.len() > 2 { call.arg(2) } else { "VLAN" },
        )
        .into());
    }
    if context.draft.network(name).is_some() {
        if call.has("--may-exist") {
            return Ok(Output::none());
        }
        return Err(format!(
            "cannot create a bridge named {name} because a bridge named {name} already exists"
        )
        .into());
    }
    if let Some(port) = context.draft.port(name) {
        let place = place(port.network.as_deref());
        return Err(format!(
            "cannot create a bridge named {name} because a port named {name} already exists {place}"
        )
        .into());
    }
    context.draft.add_network(name);
    Ok(Output::none())
}

pub(super) fn del_br(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let name = call.arg(0);
    if context.draft.network(name).is_none() {
        if call.has("--if-exists") {
            return Ok(Output::none());
        }
        return Err(context.draft.no_bridge(name));
    }
    context.draft.remove_network(name);
    Ok(Output::none())
}

pub(super) fn list_br(context: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    let mut lines: Vec<_> = context.draft.networks().iter().map(|it| it.name.clone()).collect();
    lines.sort_unstable();
    Ok(Output::Text { lines })
}

pub(super) fn br_exists(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    match context.draft.network(call.arg(0)) {
        Some(_) => Ok(Output::none()),
        None => Err(Failure { message: String::new(), exit: NO_SUCH_BRIDGE }),
    }
}

pub(super) fn add_port(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let (bridge, name) = (call.arg(0), call.arg(1));
    if context.draft.network(bridge).is_none() {
        return Err(context.draft.no_bridge(bridge));
    }
    if let Some(port) = context.draft.port(name) {
        let network = port.network.as_deref();
        if !call.has("--may-exist") {
            return Err(format!(
                "cannot create a port named {name} because a port named {name} already exists {}",
                place(network)
            )
            .into());
        }
        // As in Open vSwitch, the settings apply only to a port that is created.
        return match network {
            Some(network) if network == bridge => Ok(Output::none()),
            Some(other) => Err(format!(
                "\"--may-exist add-port {bridge} {name}\" but {name} is actually attached to \
                 bridge {other}"
            )
            .into()),
            None => Err(format!(
                "\"--may-exist add-port {bridge} {name}\" but {name} is not attached; attach it \
                 with: set Port {name} network={bridge}"
            )
            .into()),
        };
    }
    if context.draft.network(name).is_some() {
        return Err(format!(
            "cannot create a port named {name} because a bridge named {name} already exists"
        )
        .into());
    }
    context.draft.add_port(bridge, name);
    for setting in call.args_from(2) {
        set_one(context, &PORT, name, setting)?;
    }
    Ok(Output::none())
}

pub(super) fn del_port(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let (bridge, name) = match call.args.as_slice() {
        [bridge, name] => (Some(bridge), name.as_str()),
        _ => (None, call.arg(0)),
    };
    if let Some(bridge) = bridge
        && context.draft.network(bridge).is_none()
    {
        return Err(context.draft.no_bridge(bridge));
    }
    let Some(port) = context.draft.port(name) else {
        if call.has("--if-exists") {
            return Ok(Output::none());
        }
        return Err(context.draft.no_port(name));
    };
    if let Some(bridge) = bridge
        && port.network.as_ref() != Some(bridge)
    {
        return Err(format!("bridge {bridge} does not have a port {name}").into());
    }
    context.draft.remove_port(name);
    Ok(Output::none())
}

pub(super) fn detach(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let name = call.arg(0);
    match context.draft.port(name) {
        None if call.has("--if-exists") => return Ok(Output::none()),
        None => return Err(context.draft.no_port(name)),
        Some(port) if !port.is_ephemeral() => {
            let message = format!("port {name} is in the configuration file; use del-port {name}");
            return Err(message.into());
        }
        Some(_) => context.draft.remove_port(name),
    }
    Ok(Output::none())
}

pub(super) fn list_ports(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let bridge = call.arg(0);
    if context.draft.network(bridge).is_none() {
        return Err(context.draft.no_bridge(bridge));
    }
    let lines = context.draft.ports_of(bridge).into_iter().map(str::to_owned).collect();
    Ok(Output::Text { lines })
}

pub(super) fn port_to_br(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge_of(context, call.arg(0), Draft::no_port)
}

pub(super) fn iface_to_br(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge_of(context, call.arg(0), Draft::no_interface)
}

pub(super) fn link(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let cable = match call.arg(1) {
        "up" => true,
        "down" => false,
        other => return Err(format!("link is \"up\" or \"down\", not \"{other}\"").into()),
    };
    edit_port(&mut context.draft, call.arg(0), |port| port.cable = cable)?;
    Ok(Output::none())
}

fn bridge_of(
    context: &Context<'_>,
    name: &str,
    missing: fn(&Draft, &str) -> Failure,
) -> Result<Output, Failure> {
    let port = context.draft.port(name).ok_or_else(|| missing(&context.draft, name))?;
    match &port.network {
        Some(network) => Ok(Output::line(network)),
        None => Err(format!("port {name} is not attached to a bridge").into()),
    }
}

fn place(network: Option<&str>) -> String {
    network.map_or("(not attached to a bridge)".into(), |network| format!("on bridge {network}"))
}

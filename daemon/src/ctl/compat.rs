//! Commands of `ovs-vsctl` for what networks do not have: what reads or removes it finds nothing,
//! what sets it is refused with what serves instead. Fail modes are kept.

use trama_api::commands::CommandId;
use trama_api::transaction::Output;
use trama_api::value::Value;

use super::call::Call;
use super::context::Context;
use super::failure::Failure;
use super::schema::{BRIDGE, PORT};

const FAIL_MODE: &str = "fail_mode";
/// The columns of Bridge by which frames are copied or described to others.
const COPIES: [&str; 3] = ["ipfix", "mirrors", "sflow"];
const OTHER_CONFIG: &str = "other_config";

/// Does nothing.
pub(super) fn nothing(_: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    Ok(Output::none())
}

/// Does nothing to a bridge, which must exist.
pub(super) fn nothing_of_bridge(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge(context, call)?;
    Ok(Output::none())
}

pub(super) fn br_to_vlan(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge(context, call)?;
    Ok(Output::line("0"))
}

pub(super) fn br_to_parent(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge(context, call)?;
    Ok(Output::line(call.arg(0)))
}

pub(super) fn br_set_external_id(
    context: &mut Context<'_>,
    call: &Call,
) -> Result<Output, Failure> {
    let [name, key] = [call.arg(0), call.arg(1)];
    bridge(context, call)?;
    let network = context.draft.network_mut(name);
    if let Some(network) = network {
        match call.args.get(2) {
            Some(value) => network.external_ids.insert(key.to_owned(), value.clone()),
            None => network.external_ids.remove(key),
        };
    }
    Ok(Output::none())
}

pub(super) fn br_get_external_id(
    context: &mut Context<'_>,
    call: &Call,
) -> Result<Output, Failure> {
    bridge(context, call)?;
    let ids = context.draft.network(call.arg(0)).map(|network| &network.external_ids);
    let ids = ids.into_iter().flatten();
    let lines = match call.args.get(1) {
        Some(key) => ids.filter(|(it, _)| *it == key).map(|(_, value)| value.clone()).collect(),
        None => ids.map(|(key, value)| format!("{key}={value}")).collect(),
    };
    Ok(Output::Text { lines })
}

pub(super) fn get_fail_mode(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge(context, call)?;
    let network = context.draft.network(call.arg(0));
    let mode = network.and_then(|network| network.openvswitch.get(FAIL_MODE));
    Ok(Output::Text { lines: mode.into_iter().cloned().collect() })
}

pub(super) fn set_fail_mode(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge(context, call)?;
    let mode = call.arg(1);
    if !["secure", "standalone"].contains(&mode) {
        return Err("fail-mode must be \"standalone\" or \"secure\"".to_owned().into());
    }
    if let Some(network) = context.draft.network_mut(call.arg(0)) {
        network.openvswitch.insert(FAIL_MODE.to_owned(), mode.to_owned());
    }
    Ok(Output::none())
}

pub(super) fn del_fail_mode(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    bridge(context, call)?;
    if let Some(network) = context.draft.network_mut(call.arg(0)) {
        network.openvswitch.remove(FAIL_MODE);
    }
    Ok(Output::none())
}

/// Forgets what Open vSwitch forgets: what a controller or manager may have left.
pub(super) fn emer_reset(context: &mut Context<'_>, _: &Call) -> Result<Output, Failure> {
    for name in BRIDGE.records(&context.draft) {
        if let Some(network) = context.draft.network_mut(&name) {
            network.openvswitch.remove(FAIL_MODE);
        }
        for column in COPIES.iter().filter_map(|name| BRIDGE.column(name)) {
            column.write(&mut context.draft, &name, Value::NOTHING)?;
        }
        if let Some(column) = BRIDGE.column(OTHER_CONFIG) {
            let mut pairs = column.read(context.view(), &name).pairs();
            pairs.retain(|key, _| key.bare() == "hwaddr");
            column.write(&mut context.draft, &name, Value::Map(pairs.into()))?;
        }
    }
    for name in PORT.records(&context.draft) {
        if let Some(column) = PORT.column(OTHER_CONFIG) {
            column.write(&mut context.draft, &name, Value::Map(Default::default()))?;
        }
    }
    Ok(Output::none())
}

/// Refuses bonds. There is none whose interface could be removed.
pub(super) fn bond(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    match call.command.id {
        CommandId::AddBond => bridge(context, call)?,
        CommandId::DelBondIface if call.has("--if-exists") => {
            let last = call.args.last().map_or("", String::as_str);
            if context.draft.port(last).is_none() {
                return Ok(Output::none());
            }
        }
        _ => {}
    }
    Err("a port has one interface; bond the host's interfaces in the kernel (ip link add bond0 type \
         bond), and make the bond the uplink of a bridged network"
        .to_owned()
        .into())
}

/// Refuses to set what there is not.
pub(super) fn refused(context: &mut Context<'_>, call: &Call) -> Result<Output, Failure> {
    let text = match call.command.id {
        CommandId::SetManager => {
            "there are no OVSDB managers; programs steer the daemon by its control socket, as \
             tramactl does"
        }
        CommandId::SetSsl => {
            "there is no TLS, as the control socket is local; reach another host's with ssh"
        }
        _ => {
            bridge(context, call)?;
            "networks have no OpenFlow controllers: frames are forwarded by VLAN and MAC address; \
             see the columns of Port for what can be set"
        }
    };
    Err(text.to_owned().into())
}

/// Checks that the bridge of the first argument exists.
fn bridge(context: &Context<'_>, call: &Call) -> Result<(), Failure> {
    match context.draft.network(call.arg(0)) {
        Some(_) => Ok(()),
        None => Err(context.draft.no_bridge(call.arg(0))),
    }
}

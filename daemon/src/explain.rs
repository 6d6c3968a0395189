//! `explain`: what would happen to a frame, asked of the code that switches frames and of the rules
//! that a gateway has. Nothing is sent, learned or counted.

mod frame;
mod running;
mod words;

use trama_api::explain::{Answer, Frame, Request};
use trama_api::nearest::{nearest, suggestion};
use trama_switch::DropReason;

pub(crate) use running::Explained;
use words::{NO_STATION, Subject};

use crate::config::model::{Config, Port};
use crate::state::Daemon;

/// Answers a request.
///
/// # Errors
/// The port does not exist or does not run, or there is no such frame.
pub(crate) fn explain(daemon: &Daemon, request: &Request) -> Result<Answer, String> {
    let (config, status) = (daemon.config(), daemon.status());
    let name = &request.port;
    let port = config.all_ports().find(|port| port.name == *name);
    let port = port.ok_or_else(|| {
        let known: Vec<String> = config.all_ports().map(|it| it.name.clone()).collect();
        no_port(name, known.iter().map(String::as_str))
    })?;
    let port = &*port;
    if let Some(stated) = request.network.as_deref().filter(|it| !port.is_on(it)) {
        return Err(not_on(port, stated, &config));
    }
    let running = status.port(name).filter(|it| it.not_running.is_none()).ok_or_else(|| {
        let reason = status.port(name).and_then(|it| it.not_running.as_deref());
        format!("port {name} does not run: {}", reason.unwrap_or("it is not started yet"))
    })?;
    let own = running.mac.as_deref().and_then(|mac| mac.parse().ok());
    let bytes = match &request.frame {
        Frame::Last { reason } => return last(daemon, name, reason.as_deref()),
        Frame::Bytes(bytes) => bytes.clone(),
        Frame::Described(it) => frame::build(it, port.mac.or(own).unwrap_or(NO_STATION))?,
    };
    let network = port.network.as_deref().and_then(|name| config.network(name));
    let running_on = network.map(|network| network.running_name(port));
    let explained = daemon.explain(name, running_on.as_deref(), &bytes);
    let explained = explained.ok_or_else(|| format!("port {name} does not run"))?;
    let link = running.link;
    Ok(Subject { port, network, link, frame: &bytes, explained: &explained }.answer())
}

/// Says what was dropped last.
fn last(daemon: &Daemon, port: &str, reason: Option<&str>) -> Result<Answer, String> {
    let reason = reason.map(reason_of).transpose()?;
    let last = daemon.last_drop(port, reason).ok_or_else(|| {
        let why = reason.map(|reason| format!(" for {}", reason.name())).unwrap_or_default();
        format!(
            "no frame was dropped at {port}{why} since tramad started; see tramactl counters {port}"
        )
    })?;
    Ok(words::of_last(port, &last))
}

fn reason_of(name: &str) -> Result<DropReason, String> {
    let known: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let reason = DropReason::ALL.iter().find(|reason| reason.name() == name);
    reason.copied().ok_or_else(|| match nearest(name, &known) {
        Some(near) => format!("there is no drop reason {name}; did you mean {near}?"),
        None => format!("there is no drop reason {name}; there are {}", known.join(", ")),
    })
}

/// Why a port is not on the network that the caller has stated.
fn not_on(port: &Port, stated: &str, config: &Config) -> String {
    let known: Vec<&str> = config.networks.iter().map(|it| it.name.as_str()).collect();
    if !known.contains(&stated) {
        return format!("no bridge named {stated}{}", suggestion(stated, &known));
    }
    match &port.network {
        Some(network) => format!("port {} is on {network}, not on {stated}", port.name),
        None => format!("port {} is on no network", port.name),
    }
}

fn no_port<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = nearest(name, &known);
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("there is no port {name}{near}")
}

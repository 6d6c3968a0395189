//! `explain`: what would happen to a frame, asked of the code that switches frames and of the rules
//! that a gateway has. Nothing is sent, learned or counted.

mod frame;
mod running;
mod words;

use trama_api::explain::{Answer, Frame, Request};
use trama_api::nearest::nearest;
use trama_switch::DropReason;

pub(crate) use running::Explained;
use words::{NO_STATION, Subject};

use crate::state::Daemon;

/// Answers a request.
///
/// # Errors
/// The port does not exist or does not run, or there is no such frame.
pub(crate) fn explain(daemon: &Daemon, request: &Request) -> Result<Answer, String> {
    let (config, status) = (daemon.config(), daemon.status());
    let name = &request.port;
    let port =
        config.port(name).ok_or_else(|| no_port(name, config.ports.iter().map(|it| &*it.name)))?;
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

fn no_port<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = nearest(name, &known);
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("there is no port {name}{near}")
}

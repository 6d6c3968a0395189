//! Ports of containers at the daemon: looked up by what their plug-in has noted, and removed.

use std::collections::BTreeMap;

use trama_api::transaction::Output;
use trama_api::value::{Atom, Value};
use trama_client::{Daemon, Failed};

/// Removes a port. It is no error if there is none.
pub(crate) fn remove(daemon: &Daemon, port: &str) -> Result<(), Failed> {
    daemon.run(["--if-exists", "del-port", port]).map(drop)
}

/// A port, with what its plug-in has noted.
#[derive(Debug, PartialEq)]
pub(crate) struct Noted {
    pub name: String,
    pub external_ids: BTreeMap<String, String>,
}

/// The ports whose column `external_ids` has this value.
pub(crate) fn find(daemon: &Daemon, key: &str, value: &str) -> Result<Vec<Noted>, Failed> {
    let condition = crate::names::external_id(key, value);
    let rows = rows(daemon.run(["--columns=name,external_ids", "find", "Port", &condition])?);
    Ok(rows.into_iter().filter_map(noted).collect())
}

/// What is the matter with a port.
#[derive(Debug, PartialEq)]
pub(crate) enum State {
    /// There is none.
    Missing,
    /// Frames cannot pass, and why; empty if the reason is not known.
    Down(String),
    /// It runs.
    Up,
}

/// Looks at a port. A vhost-user port is up once its VMM has connected, so that it only counts
/// whether it could.
pub(crate) fn state(daemon: &Daemon, port: &str) -> Result<State, Failed> {
    let columns = "--columns=type,link_state,error";
    let answer = daemon.run(["--if-exists", columns, "list", "Interface", port])?;
    let Some(row) = rows(answer).into_iter().next() else { return Ok(State::Missing) };
    let mut texts = row.into_iter().map(|value| match value {
        Value::One(Atom::String(text)) => text.to_string(),
        _ => String::new(),
    });
    let mut next = || texts.next().unwrap_or_default();
    let (kind, link, error) = (next(), next(), next());
    let is_up = error.is_empty() && (link == "up" || kind == "vhost-user");
    Ok(if is_up { State::Up } else { State::Down(error) })
}

pub(crate) fn rows(output: Output) -> Vec<Vec<Value>> {
    match output {
        Output::Table { rows, .. } => rows,
        Output::Text { .. } => Vec::new(),
    }
}

fn noted(row: Vec<Value>) -> Option<Noted> {
    let [Value::One(Atom::String(name)), Value::Map(map)] = <[Value; 2]>::try_from(row).ok()?
    else {
        return None;
    };
    let external_ids = map.iter().map(|(key, value)| (key.bare(), value.bare())).collect();
    Some(Noted { name: name.to_string(), external_ids })
}

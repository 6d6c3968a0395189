//! What is stored and does not run, or not as stored, and why.

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::io::Write;

use trama_api::transaction::{Kind, NotRunning};

use super::DataPlane;
use crate::plan::Step;

/// The keys that are in force only if the socket of a port has its owner, group and mode.
const OF_SOCKET: [&str; 3] = ["socket-owner", "socket-group", "socket-mode"];

/// What is wrong with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) part: Part,
    /// Why, and what to do.
    pub(crate) reason: String,
}

/// What of a port a trouble concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It does not run.
    Whole,
    /// It runs with its earlier settings.
    Settings,
    /// It runs, and its socket has its earlier owner, group and mode.
    Socket,
}

impl Part {
    /// Whether a change of these keys is not in force because of it.
    fn concerns(self, keys: &[&str]) -> bool {
        match self {
            Part::Whole | Part::Settings => true,
            Part::Socket => keys.iter().any(|key| OF_SOCKET.contains(key)),
        }
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Whole => "",
            Part::Settings => "its settings are the earlier ones: ",
            Part::Socket => "its socket keeps its owner, group and mode: ",
        })
    }
}

impl DataPlane {
    /// Notes that a port does not run.
    pub(super) fn fail(&mut self, name: &str, reason: impl Display) {
        self.fall_short(name, Part::Whole, reason);
    }

    /// Notes that a port does not run as stored.
    pub(super) fn fall_short(&mut self, name: &str, part: Part, reason: impl Display) {
        let trouble = Trouble { part, reason: format!("{part}{reason}") };
        if self.failed.get(name) != Some(&trouble) {
            let noted = self.report(name, &trouble);
            let verdict = if part == Part::Whole { "down" } else { "fault" };
            self.events.link(name, None, verdict, &trouble.reason);
            match self.is_beside {
                // It is tried again once the other one has ended, which may have its device.
                true => tracing::debug!("{noted}"),
                false => tracing::warn!("{noted}"),
            }
        }
        self.set_failed(name, trouble);
    }

    /// Records why a port does not run, or not as it should.
    pub(super) fn set_failed(&mut self, name: &str, trouble: Trouble) {
        self.failed.insert(name.to_owned(), trouble);
        // Wakes the thread that tries again later; a full buffer has woken it already.
        let _ = (&self.event).write(&[1]);
    }

    /// Returns what steps that were taken have changed and what does not run, or not so.
    pub(crate) fn not_in_force(&self, steps: &[Step], before: &HashSet<String>) -> Vec<NotRunning> {
        let mut found = Vec::new();
        for step in steps {
            let (name, keys): (&str, Option<&[&str]>) = match step {
                Step::AddPort { port } => (&port.name, None),
                Step::SetPort { port, keys } => (&port.name, Some(keys)),
                Step::SetNetwork { network, .. } => (&network.name, None),
                _ => continue,
            };
            let Some(trouble) = self.failed.get(name) else { continue };
            if keys.is_none_or(|keys| trouble.part.concerns(keys)) {
                found.push(self.report(name, trouble));
            }
        }
        // A step may take down what it does not name: a larger MTU the ports whose devices have
        // less.
        let is_new = |(name, _): &(&String, &Trouble)| !before.contains(*name);
        let new =
            self.failed.iter().filter(is_new).map(|(name, trouble)| self.report(name, trouble));
        for trouble in new {
            if !found.contains(&trouble) {
                found.push(trouble);
            }
        }
        // A network may have a step beside that of its own port.
        found.dedup();
        found
    }

    /// Returns the names of what does not run, or not as stored.
    pub(crate) fn in_trouble(&self) -> HashSet<String> {
        self.failed.keys().cloned().collect()
    }

    /// Returns all that does not run, or not as stored.
    pub(crate) fn troubles(&self) -> Vec<NotRunning> {
        self.failed.iter().map(|(name, trouble)| self.report(name, trouble)).collect()
    }

    fn report(&self, name: &str, trouble: &Trouble) -> NotRunning {
        // A network's own port has the name of the network, and no other port has that then.
        let is_network = self.networks.get(name).is_some_and(|it| it.config.has_own_port());
        NotRunning {
            kind: if is_network { Kind::Network } else { Kind::Port },
            name: name.to_owned(),
            runs: trouble.part != Part::Whole,
            reason: trouble.reason.clone(),
        }
    }
}

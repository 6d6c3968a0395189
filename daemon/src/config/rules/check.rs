//! Collects problems.

use super::problem::{Place, Problem, table_path};
use crate::Fault;

/// The problems found so far, and the table that is being checked.
pub(super) struct Check {
    place: Place,
    path: String,
    problems: Vec<Problem>,
}

impl Check {
    /// Begins with the table `[daemon]`.
    pub(super) fn new() -> Check {
        Check { place: Place::Daemon, path: table_path(Place::Daemon, ""), problems: Vec::new() }
    }

    /// Goes on with another table. Returns the one before.
    pub(super) fn enter(&mut self, place: Place, name: &str) -> Place {
        self.path = table_path(place, name);
        std::mem::replace(&mut self.place, place)
    }

    /// The path of that table as shown.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Notes a problem of a key of that table.
    pub(super) fn problem(
        &mut self,
        key: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.fault(key, Fault::new(message, remedy));
    }

    /// Notes a fault of a key of that table.
    pub(super) fn fault(&mut self, key: &'static str, fault: Fault) {
        let path = format!("{}.{key}", self.path);
        self.problems.push(Problem { place: self.place, key, path, fault });
    }

    /// All problems found.
    pub(super) fn finish(self) -> Vec<Problem> {
        self.problems
    }
}

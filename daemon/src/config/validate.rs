//! The rules that a whole configuration must follow, whatever it was read from.

use std::fmt;

use super::model::Config;

/// Which table a problem is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Place {
    /// `[daemon]`.
    Daemon,
    /// `networks[i]`.
    Network(usize),
    /// `ports[i]`.
    Port(usize),
}

/// Something wrong in a [`Config`]. Displayed as `key: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The table.
    pub place: Place,
    /// The key within the table, such as `tag`.
    pub key: &'static str,
    /// The whole path for people, such as `port.vm1.tag`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::write_message(f, &self.path, &self.message, &self.remedy)
    }
}

/// Everything that is wrong in `config`; empty if nothing is.
pub fn validate(config: &Config) -> Vec<Problem> {
    let _ = config;
    Vec::new()
}

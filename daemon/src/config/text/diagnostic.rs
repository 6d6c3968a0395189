//! Mistakes in a configuration file.

use std::fmt;

use crate::config::rules::problem::write_message;

/// A mistake in a configuration file: location, message and remedy.
///
/// Displayed as `file:line:column: key: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// The name of the file, as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key's path, such as `port.vm1.tag`; empty if the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty if the message is enough.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        write_message(f, &self.key, &self.message, &self.remedy)
    }
}

//! Mistakes in a configuration file.

use std::fmt;

use crate::Fault;

/// A mistake in a configuration file: location, message and remedy.
///
/// Displayed as `file:line:column: key: what is wrong; what to do`; without a place if there is no
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The name of the file, as given; empty if there is none.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key's path, such as `port.vm1.tag`; empty if the text is not TOML.
    pub key: String,
    /// What is wrong, and what to do about it.
    pub fault: Fault,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.fault)
    }
}

//! The configuration: its values, how it is read, checked and written back.
//!
//! [`parse`] turns text into [`model::Config`] or into one [`Diagnostic`] for each thing that is
//! wrong; [`validate`] checks values that come from elsewhere by the same rules.

use std::fmt;

#[cfg(test)]
pub(crate) mod arbitrary;
pub mod dhcp;
mod dhcp_file;
mod edit;
#[cfg(test)]
mod edit_tests;
mod fields;
mod file;
pub mod folders;
mod mode;
pub mod model;
pub mod nat;
mod parse;
#[cfg(test)]
mod parse_tests;
mod reader;
pub mod rule;
pub mod socket;
pub mod subnet;
pub mod units;
mod validate;

pub use edit::edit;
pub use file::{create, save};
pub(crate) use parse::parse_address;
pub use parse::{parse, parse_at, parse_on};
pub use validate::{Place, Problem, validate};

/// Something wrong in a configuration file: where, what, and what to do.
///
/// Displayed as `file:line:column: key: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// The file as it was named to us.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key's path, such as `port.vm1.tag`; empty if the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty if the message says it all.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        write_message(f, &self.key, &self.message, &self.remedy)
    }
}

/// The one of `known` that `word` is most likely a misspelling of.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let limit = (word.chars().count() / 3).max(1);
    let closest = known.iter().map(|name| (distance(&word, name), *name)).min()?;
    (closest.0 <= limit).then_some(closest.1)
}

/// Edit distance: insertions, removals, replacements and swaps of neighbours from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let moved = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                match i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    true => moved.min(table[i - 2][j - 2] + 1),
                    false => moved,
                }
            };
        }
    }
    table[a.len()][b.len()]
}

/// `key: message; remedy`, leaving out what is empty.
fn write_message(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    message: &str,
    remedy: &str,
) -> fmt::Result {
    if !key.is_empty() {
        write!(f, "{key}: ")?;
    }
    f.write_str(message)?;
    if !remedy.is_empty() {
        write!(f, "; {remedy}")?;
    }
    Ok(())
}

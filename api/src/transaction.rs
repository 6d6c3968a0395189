//! What `tramactl` sends and what it gets: the types of `POST /v1/transaction`.
//!
//! A transaction is a list of commands, each a list of words. Its answer holds data rather than
//! text wherever there is a table, so that each client renders it as its user likes.

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// The version of this API: part of every path, and of every request.
pub const VERSION: u32 = 1;

/// Commands that happen together or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the API that the client speaks.
    #[serde(default = "current_version")]
    pub version: u32,
    /// Each a command's options, name and arguments.
    pub commands: Vec<Vec<String>>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Leave the configuration file alone.
    #[serde(default)]
    pub no_save: bool,
}

fn current_version() -> u32 {
    VERSION
}

/// The answer to a transaction that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// What each command says, in order.
    pub results: Vec<Output>,
    /// The exit status for `tramactl`: 0, or [`STORED_NOT_RUNNING`].
    pub exit: u8,
    /// Ports that are stored but do not run: name and reason.
    pub not_running: Vec<(String, String)>,
    /// The steps that were taken, or in a dry run would be.
    pub steps: Vec<String>,
}

/// The answer to a transaction that was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong and what to do about it; empty where the exit status says it all.
    pub error: String,
    /// The exit status for `tramactl`.
    pub exit: u8,
}

/// Exit status: the configuration is stored, but some port of it does not run.
pub const STORED_NOT_RUNNING: u8 = 65;

/// What a command says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Output {
    /// Lines as they are.
    Text {
        /// Without line ends.
        lines: Vec<String>,
    },
    /// A table, rendered as the user asks.
    Table {
        /// The columns' names.
        headings: Vec<String>,
        /// One value for each column.
        rows: Vec<Vec<Value>>,
        /// How it looks if the user does not say.
        form: Form,
    },
}

/// How a table looks if the user does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum Form {
    /// One line for each value, a blank line between records.
    List,
    /// One line for each record under underlined headings.
    Table,
    /// One line for each record, in columns of at least these widths as `printf` takes them:
    /// negative = aligned to the left.
    Fixed {
        /// One for each column.
        widths: Vec<i8>,
    },
}

impl Output {
    /// Nothing.
    pub fn none() -> Output {
        Output::Text { lines: Vec::new() }
    }

    /// One line.
    pub fn line(line: impl Into<String>) -> Output {
        Output::Text { lines: vec![line.into()] }
    }
}

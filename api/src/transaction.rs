//! The bodies of `POST /v1/transaction`.
//!
//! A transaction is a list of commands, each a list of words. The answer holds tables as data, so
//! that each client renders them as its user wishes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// The version of the API; part of each path and request.
pub const VERSION: u32 = 1;

/// Commands that are carried out all or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the API that the client uses.
    #[serde(default = "current_version")]
    pub version: u32,
    /// The commands, each with its options, name and arguments.
    pub commands: Vec<Vec<String>>,
    /// Whether to return the steps without taking them.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether to leave the configuration file unchanged.
    #[serde(default)]
    pub no_save: bool,
}

fn current_version() -> u32 {
    VERSION
}

/// The answer to a transaction that was carried out. The cells of its tables are read as `C`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Response<C = Value> {
    /// The output of each command, in order.
    pub results: Vec<Output<C>>,
    /// The exit status for `tramactl`: 0, or [`STORED_NOT_RUNNING`].
    pub exit: u8,
    /// What the transaction changed and does not run, or not as stored.
    pub not_running: Vec<NotRunning>,
    /// The steps taken; in a dry run, those that would be taken.
    pub steps: Vec<String>,
    /// What the user is told although the transaction was carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A port or network that is stored and does not run, or not as stored. Displayed as a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRunning {
    /// Which of the two it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Whether it runs, although not as stored.
    pub runs: bool,
    /// Why it does not run, or what is not in force and why; and what to do.
    pub reason: String,
}

/// What a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A port.
    Port,
    /// A network.
    Network,
}

impl fmt::Display for NotRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotRunning { kind, name, runs, reason } = self;
        match runs {
            true => write!(f, "{kind} {name} runs, but {reason}"),
            false => write!(f, "{kind} {name} is stored but does not run: {reason}"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Port => "port",
            Kind::Network => "network",
        })
    }
}

/// The answer to a transaction that was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong and what to do; empty if the exit status is enough.
    pub error: String,
    /// The exit status for `tramactl`.
    pub exit: u8,
}

/// Exit status: the configuration is stored, but something that the transaction changed does not
/// run, or not as stored.
pub const STORED_NOT_RUNNING: u8 = 65;

/// Exit status of `wait-until` while its conditions do not hold: the client sends the transaction
/// again until they do. It is that of `ovs-vsctl` when its time is over.
pub const NOT_YET: u8 = 142;

/// The output of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    from = "Parts<C>",
    bound(deserialize = "C: Deserialize<'de>")
)]
pub enum Output<C = Value> {
    /// Lines of text.
    Text {
        /// The lines, without line endings.
        lines: Vec<String>,
    },
    /// A table, rendered as the user asks.
    Table {
        /// The columns' names.
        headings: Vec<String>,
        /// One value for each column.
        rows: Vec<Vec<C>>,
        /// The default form.
        form: Form,
    },
}

/// The parts of an [`Output`], of which each kind has its own. Reading them as such needs no copy
/// of a whole table until its kind is known.
#[derive(Deserialize)]
#[serde(bound = "C: Deserialize<'de>")]
struct Parts<C> {
    kind: OutputKind,
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default)]
    headings: Vec<String>,
    #[serde(default)]
    rows: Vec<Vec<C>>,
    form: Option<Form>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OutputKind {
    Text,
    Table,
}

impl<C> From<Parts<C>> for Output<C> {
    fn from(Parts { kind, lines, headings, rows, form }: Parts<C>) -> Output<C> {
        match kind {
            OutputKind::Text => Output::Text { lines },
            OutputKind::Table => {
                Output::Table { headings, rows, form: form.unwrap_or(Form::Table) }
            }
        }
    }
}

/// The default form of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum Form {
    /// One line for each value, a blank line between records.
    List,
    /// One line for each record under underlined headings.
    Table,
    /// One line for each record, in columns of at least these widths, as in `printf`: negative =
    /// left-aligned.
    Fixed {
        /// One for each column.
        widths: Vec<i8>,
    },
}

impl Output {
    /// No output.
    pub fn none() -> Output {
        Output::Text { lines: Vec::new() }
    }

    /// One line.
    pub fn line(line: impl Into<String>) -> Output {
        Output::Text { lines: vec![line.into()] }
    }
}

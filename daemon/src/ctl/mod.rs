//! The commands of `tramactl`, as `ovs-vsctl` users know them, over a draft of the configuration.
//!
//! A transaction is a list of commands. [`parse`] looks each up in the one [`table::COMMANDS`]
//! and checks options and arity; [`run`] lets them edit one `Draft` in order, each
//! seeing what those before it did. Whether the outcome is valid, and what of the running switch
//! changes, is decided afterwards and as a whole. What a command shows of the running switch is
//! what ran when the transaction began ([`Snapshot`]); what it does to it beside the
//! configuration waits until the transaction has succeeded ([`After`]).

mod bridges;
mod call;
mod condition;
mod draft;
pub mod forward;
mod identity;
mod interface;
mod live;
mod records;
mod schema;
mod show;
pub mod table;
mod types;
pub mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use trama_nat::report::FlowRow;

use crate::api::types::Output;
use crate::config::model::Config;
use crate::status::{FdbRow, Lease, Status};

pub use call::{Call, parse};
use draft::Draft;

/// Why a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong and what to do; empty where the exit status says it all.
    pub message: String,
    /// The exit status for `tramactl`.
    pub exit: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure { message, exit: 1 }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What ran when the transaction began.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Ports, networks and counters.
    pub status: Status,
    /// Learnt MAC addresses of all networks; filled in only if a command shows them.
    pub fdb: Vec<FdbRow>,
    /// Leases of the networks that lease addresses; filled in only if a command shows them.
    pub leases: Vec<Lease>,
    /// What gateways say of their forwards, by the networks that run; filled in only if a command
    /// shows them.
    pub forwards: BTreeMap<String, forward::Answer>,
    /// Flows of the networks that run; filled in only if a command shows them.
    pub flows: Vec<(String, FlowRow)>,
    /// The number of each port (`ofport`): unique, and kept as long as the daemon runs.
    pub numbers: BTreeMap<String, u32>,
}

/// What is left to do once a transaction has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Forget the learnt MAC addresses of this network, or of all.
    FlushFdb(Option<String>),
}

/// What a command works on.
struct Context<'a> {
    draft: Draft,
    snapshot: &'a Snapshot,
    after: Vec<After>,
}

/// What a transaction amounts to.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration as edited; not validated yet.
    pub config: Config,
    /// What each command says.
    pub results: Vec<Output>,
    /// What is left to do once `config` is in force.
    pub after: Vec<After>,
}

/// Runs the commands of a transaction in order over `config`.
///
/// # Errors
/// The first command that refuses, or an interface that makes no sense at the end.
pub fn run(calls: &[Call], config: Config, snapshot: &Snapshot) -> Result<Outcome, Failure> {
    let mut context = Context { draft: Draft::new(config), snapshot, after: Vec::new() };
    let mut results = Vec::with_capacity(calls.len());
    for call in calls {
        results.push((call.command.run)(&mut context, call)?);
    }
    Ok(Outcome { config: context.draft.finish()?, results, after: context.after })
}

//! The commands of `tramactl`, as `ovs-vsctl` users know them, on a draft of the configuration.
//!
//! A transaction is a list of commands. [`parse`] looks each up in the table of commands
//! ([`trama_api::commands`]) and checks options and arity; [`run`] lets them edit one `Draft` in
//! order, so that each sees what those before it did. Whether the result is valid, and which steps
//! the running switch needs, is decided afterwards and as a whole. What a command shows of the
//! running switch is what ran when the transaction began ([`Snapshot`]); its effects outside the
//! configuration wait until the transaction has succeeded ([`After`]).
//!
//! Imports point one way: `dispatch` → commands (`bridges`, `records`, `live` …) → `assign`,
//! `condition` → `lookup` → `schema/` (tables and columns) → `draft` →
//! `value_type`. Names that records have within a transaction are in `symbols`.

mod assign;
mod bridges;
mod call;
mod column_ref;
mod compat;
mod condition;
mod context;
mod create;
mod dispatch;
mod draft;
mod exports;
mod failure;
pub mod forward;
mod host_interfaces;
mod identity;
mod interface_options;
mod live;
mod lookup;
mod options_reader;
mod records;
mod schema;
mod show;
mod symbols;
mod tunnel_options;
mod wait;
mod wire_options;

#[cfg(test)]
mod tests;

use trama_api::transaction::Output;

use crate::config::model::Config;

pub use call::{Call, parse};
use context::Context;
pub use context::{After, Snapshot};
use draft::Draft;
pub use failure::Failure;
pub use host_interfaces::HostInterfaces;
use symbols::Symbols;

/// The result of a transaction.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration as edited; not validated yet.
    pub config: Config,
    /// The output of each command.
    pub results: Vec<Output>,
    /// What remains to be done once `config` is in force.
    pub after: Vec<After>,
    /// What the user is told although it is carried out.
    pub warnings: Vec<String>,
}

/// Runs the commands of a transaction in order on `config`.
///
/// # Errors
/// The first command that refuses, or an interface that is incomplete at the end.
pub fn run(calls: &[Call], config: Config, snapshot: &Snapshot) -> Result<Outcome, Failure> {
    let symbols = Symbols::new(snapshot.salt);
    let draft = Draft::new(config, snapshot.host);
    let (after, warnings, created) = (Vec::new(), Vec::new(), Vec::new());
    let mut context = Context { draft, snapshot, symbols, after, warnings, created };
    let mut results = Vec::with_capacity(calls.len());
    for call in calls {
        let result = dispatch::run(&mut context, call);
        results.push(result.map_err(|failure| context.symbols.name_in(failure))?);
    }
    context.symbols.finish()?;
    let Context { draft, symbols, after, mut warnings, created, .. } = context;
    let unused = created.into_iter().filter(|(uuid, _)| !draft.is_referred_to(uuid));
    warnings.extend(unused.map(|(_, warning)| warning));
    let config = draft.finish().map_err(|failure| symbols.name_in(failure))?;
    Ok(Outcome { config, results, after, warnings })
}

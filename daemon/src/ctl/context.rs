//! The input of a command: the draft of the configuration, and what runs.

use std::collections::BTreeMap;

use trama_gateway::report::FlowRow;

use super::draft::Draft;
use super::host_interfaces::HostInterfaces;
use super::symbols::Symbols;
use crate::forwards::ForwardAnswer;
use crate::status::{FdbRow, Lease, Status};

/// What ran when the transaction began.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Ports, networks and counters.
    pub status: Status,
    /// Learned MAC addresses of all networks; empty unless a command shows them.
    pub fdb: Vec<FdbRow>,
    /// Leases of the running networks; empty unless a command shows them.
    pub leases: Vec<Lease>,
    /// Status of forwards by running network; empty unless a command shows it.
    pub(crate) forwards: BTreeMap<String, ForwardAnswer>,
    /// Flows by running network; empty unless a command shows them.
    pub flows: Vec<(String, FlowRow)>,
    /// The number of each port (`ofport`): unique and constant while the daemon runs.
    pub numbers: BTreeMap<String, u32>,
    /// Which interfaces the host has.
    pub host: HostInterfaces,
    /// Distinguishes the UUIDs that this transaction chooses from those of others.
    pub salt: u64,
}

/// What remains to be done once a transaction has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Forget the learned MAC addresses of this network, or of all.
    FlushFdb(Option<String>),
}

/// The state that the commands of a transaction share.
pub(super) struct Context<'a> {
    /// The configuration under edit.
    pub draft: Draft,
    /// What ran when the transaction began.
    pub snapshot: &'a Snapshot,
    /// Names that records have within the transaction.
    pub symbols: Symbols,
    /// What remains to be done once the transaction has succeeded.
    pub after: Vec<After>,
    /// What the user is told although it is carried out.
    pub warnings: Vec<String>,
    /// The same of records that were created, unless something refers to them at the end.
    pub created: Vec<(String, String)>,
}

impl Context<'_> {
    /// The source of column values.
    pub(super) fn view(&self) -> View<'_> {
        View { draft: &self.draft, snapshot: self.snapshot }
    }
}

/// The source of column values.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    /// The configuration under edit.
    pub draft: &'a Draft,
    /// What ran when the transaction began.
    pub snapshot: &'a Snapshot,
}

//! What a command works on: the draft of the configuration, and what ran before.

use std::collections::BTreeMap;

use trama_nat::control::{FlowRow, ForwardStatus};

use super::draft::Draft;
use crate::status::{FdbRow, Lease, Status};

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
    pub forwards: BTreeMap<String, ForwardAnswer>,
    /// Flows of the networks that run; filled in only if a command shows them.
    pub flows: Vec<(String, FlowRow)>,
    /// The number of each port (`ofport`): unique, and kept as long as the daemon runs.
    pub numbers: BTreeMap<String, u32>,
}

/// What a gateway says of its forwards, or why it says nothing.
pub type ForwardAnswer = Result<Vec<ForwardStatus>, String>;

/// What is left to do once a transaction has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Forget the learnt MAC addresses of this network, or of all.
    FlushFdb(Option<String>),
}

/// What a command works on.
pub struct Context<'a> {
    /// The configuration under edit.
    pub draft: Draft,
    /// What ran when the transaction began.
    pub snapshot: &'a Snapshot,
    /// What is left to do once the transaction has succeeded.
    pub after: Vec<After>,
}

impl Context<'_> {
    /// What columns are read from.
    pub fn view(&self) -> View<'_> {
        View { draft: &self.draft, snapshot: self.snapshot }
    }
}

/// What a column is read from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The configuration under edit.
    pub draft: &'a Draft,
    /// What ran when the transaction began.
    pub snapshot: &'a Snapshot,
}

//! What each port has of flows, and whose turn it is.

use std::collections::{HashMap, VecDeque};

use crate::drop_reason::DropReason;
use crate::gateway::PortId;

/// Flows of one port, and those of them that the host has not connected yet.
const FLOWS: usize = 16_384;
const OPENING: usize = 4096;
/// Bytes of one port that may wait before its flows keep only what each needs to go on.
const RICH: usize = 64 << 20;

#[derive(Default)]
struct Account {
    flows: usize,
    opening: usize,
    kept: usize,
    /// Flows that wait for their turn.
    waiting: VecDeque<u32>,
}

/// The accounts of all ports.
#[derive(Default)]
pub(super) struct Ports {
    accounts: HashMap<PortId, Account>,
    /// Ports with flows that wait.
    turns: VecDeque<PortId>,
    queued: usize,
}

impl Ports {
    /// Whether a port may have another flow.
    pub fn admit(&self, port: PortId) -> Result<(), DropReason> {
        match self.accounts.get(&port) {
            Some(account) if account.flows >= FLOWS || account.opening >= OPENING => {
                Err(DropReason::FlowLimit)
            }
            _ => Ok(()),
        }
    }

    /// A flow of the port begins to open.
    pub fn began(&mut self, port: PortId) {
        let account = self.accounts.entry(port).or_default();
        account.flows += 1;
        account.opening += 1;
    }

    /// A flow has opened, or failed to.
    pub fn opened(&mut self, port: PortId) {
        if let Some(account) = self.accounts.get_mut(&port) {
            account.opening -= 1;
        }
    }

    /// A flow is gone.
    pub fn ended(&mut self, port: PortId, was_opening: bool, kept: usize) {
        let Some(account) = self.accounts.get_mut(&port) else { return };
        account.flows -= 1;
        account.opening -= usize::from(was_opening);
        account.kept -= kept;
        if account.flows == 0 && account.waiting.is_empty() {
            self.accounts.remove(&port);
        }
    }

    /// A flow keeps more or less than before.
    pub fn charge(&mut self, port: PortId, before: usize, now: usize) {
        if let Some(account) = self.accounts.get_mut(&port) {
            account.kept = account.kept + now - before;
        }
    }

    /// Whether flows of the port may keep as much as serves them.
    pub fn is_rich(&self, port: PortId) -> bool {
        self.accounts.get(&port).is_none_or(|account| account.kept < RICH)
    }

    /// Gives a flow a turn.
    pub fn queue(&mut self, port: PortId, number: u32) {
        let waiting = &mut self.accounts.entry(port).or_default().waiting;
        if waiting.is_empty() {
            self.turns.push_back(port);
        }
        waiting.push_back(number);
        self.queued += 1;
    }

    /// Flows that wait for their turn.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The flow whose turn it is: ports take turns, and the flows of each.
    pub fn next(&mut self) -> Option<u32> {
        let port = self.turns.pop_front()?;
        let account = self.accounts.get_mut(&port)?;
        let number = account.waiting.pop_front();
        self.queued -= 1;
        if !account.waiting.is_empty() {
            self.turns.push_back(port);
        } else if account.flows == 0 {
            self.accounts.remove(&port);
        }
        number
    }
}

//! What each port has of flows, and whose turn it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::flow::Flow;
use crate::drop_reason::DropReason;
use crate::io::PortId;

/// Flows of one port, as far as three quarters of the process's descriptors suffice for them; and the
/// part of them that the host may not have connected yet.
const FLOWS: usize = 16_384;
const OPENING_PART: usize = 4;
/// Bytes of one port that may wait before its flows keep only what each needs to go on.
const RICH: usize = 64 << 20;

#[derive(Default)]
struct Account {
    flows: usize,
    opening: usize,
    kept: usize,
    /// Flows that wait for their turn.
    waiting: VecDeque<u32>,
    /// Flows that are over and only answer what comes late: since when, and their numbers.
    lingering: BTreeSet<(Duration, u32)>,
}

/// The accounts of all ports.
pub(super) struct Ports {
    /// Flows of one port.
    pub most: usize,
    accounts: HashMap<PortId, Account>,
    /// Ports with flows that wait.
    turns: VecDeque<PortId>,
    queued: usize,
}

impl Default for Ports {
    fn default() -> Ports {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
        let (accounts, turns) = (HashMap::default(), VecDeque::default());
        Ports { most: FLOWS.min(files / 4 * 3), accounts, turns, queued: 0 }
    }
}

impl Ports {
    /// Whether a port may have another flow.
    pub fn admit(&self, port: PortId) -> Result<(), DropReason> {
        match self.accounts.get(&port) {
            _ if self.is_full(port) => Err(DropReason::FlowLimit),
            Some(account) if account.opening >= self.most / OPENING_PART => {
                Err(DropReason::FlowLimit)
            }
            _ => Ok(()),
        }
    }

    /// Whether a port has as many flows as one may have.
    pub fn is_full(&self, port: PortId) -> bool {
        self.accounts.get(&port).is_some_and(|account| account.flows >= self.most)
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

    /// A flow is over, and lingers.
    pub fn lingers(&mut self, port: PortId, since: Duration, number: u32) {
        if let Some(account) = self.accounts.get_mut(&port) {
            account.lingering.insert((since, number));
        }
    }

    /// The flow of the port that has lingered for longest.
    pub fn oldest_lingering(&self, port: PortId) -> Option<u32> {
        self.accounts.get(&port)?.lingering.first().map(|(_, number)| *number)
    }

    /// A flow is gone.
    pub fn ended(&mut self, number: u32, flow: &Flow) {
        let Some(account) = self.accounts.get_mut(&flow.port) else { return };
        account.flows -= 1;
        account.opening -= usize::from(flow.syn.is_some());
        account.kept -= flow.kept;
        if let Some(since) = flow.lingers {
            account.lingering.remove(&(since, number));
        }
        if account.flows == 0 && account.waiting.is_empty() {
            self.accounts.remove(&flow.port);
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

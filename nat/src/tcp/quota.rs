//! What each switch port has of flows and buffers, and the order of turns.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::flow::Flow;
use crate::drop_reason::DropReason;
use crate::io::PortMark;

/// Flows of one port, at most three quarters of the process's descriptors; and the part of them
/// that may be half-open.
const MAX_FLOWS: usize = 16_384;
const HALF_OPEN_PART: usize = 4;
/// Buffered bytes of one port above which its flows only buffer what they need to go on.
const BUFFERED_PER_PORT: usize = 64 << 20;

#[derive(Default)]
struct Usage {
    flows: usize,
    half_open: usize,
    buffered: usize,
    /// Flows queued for a turn.
    waiting: VecDeque<u32>,
    /// Flows in TIME-WAIT: since when, and their numbers.
    time_wait: BTreeSet<(Duration, u32)>,
}

/// The usage of all ports.
pub(super) struct Quotas {
    /// Flows that one port may have.
    pub max_flows: usize,
    usages: HashMap<PortMark, Usage>,
    /// Ports with queued flows.
    turns: VecDeque<PortMark>,
    queued: usize,
}

impl Default for Quotas {
    fn default() -> Quotas {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
        let (usages, turns) = (HashMap::default(), VecDeque::default());
        Quotas { max_flows: MAX_FLOWS.min(files / 4 * 3), usages, turns, queued: 0 }
    }
}

impl Quotas {
    /// Checks whether a port may have another flow.
    pub(super) fn admit(&self, port: PortMark) -> Result<(), DropReason> {
        match self.usages.get(&port) {
            _ if self.is_full(port) => Err(DropReason::FlowLimit),
            Some(usage) if usage.half_open >= self.max_flows / HALF_OPEN_PART => {
                Err(DropReason::FlowLimit)
            }
            _ => Ok(()),
        }
    }

    /// Whether a port has as many flows as it may.
    pub(super) fn is_full(&self, port: PortMark) -> bool {
        self.usages.get(&port).is_some_and(|usage| usage.flows >= self.max_flows)
    }

    /// Counts a new flow, which is half-open.
    pub(super) fn flow_added(&mut self, port: PortMark) {
        let usage = self.usages.entry(port).or_default();
        usage.flows += 1;
        usage.half_open += 1;
    }

    /// A flow is established, or failed.
    pub(super) fn flow_opened(&mut self, port: PortMark) {
        if let Some(usage) = self.usages.get_mut(&port) {
            usage.half_open -= 1;
        }
    }

    /// A flow has entered TIME-WAIT.
    pub(super) fn enter_time_wait(&mut self, port: PortMark, since: Duration, number: u32) {
        if let Some(usage) = self.usages.get_mut(&port) {
            usage.time_wait.insert((since, number));
        }
    }

    /// The flow of the port that has been in TIME-WAIT for longest.
    pub(super) fn oldest_time_wait(&self, port: PortMark) -> Option<u32> {
        self.usages.get(&port)?.time_wait.first().map(|(_, number)| *number)
    }

    /// Removes a flow from the port's usage.
    pub(super) fn flow_removed(&mut self, number: u32, flow: &Flow) {
        let Some(usage) = self.usages.get_mut(&flow.port) else { return };
        usage.flows -= 1;
        usage.half_open -= usize::from(flow.syn.is_some());
        usage.buffered -= flow.buffered;
        if let Some(since) = flow.time_wait_since {
            usage.time_wait.remove(&(since, number));
        }
        if usage.flows == 0 && usage.waiting.is_empty() {
            self.usages.remove(&flow.port);
        }
    }

    /// Updates the buffered bytes of a flow.
    pub(super) fn charge(&mut self, port: PortMark, before: usize, now: usize) {
        if let Some(usage) = self.usages.get_mut(&port) {
            usage.buffered = usage.buffered + now - before;
        }
    }

    /// Whether the port is below its limit of buffered bytes.
    pub(super) fn may_buffer_more(&self, port: PortMark) -> bool {
        self.usages.get(&port).is_none_or(|usage| usage.buffered < BUFFERED_PER_PORT)
    }

    /// Queues a flow for a turn.
    pub(super) fn enqueue(&mut self, port: PortMark, number: u32) {
        let waiting = &mut self.usages.entry(port).or_default().waiting;
        if waiting.is_empty() {
            self.turns.push_back(port);
        }
        waiting.push_back(number);
        self.queued += 1;
    }

    /// The number of queued flows.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// The next flow to serve: round robin over ports, and over the flows of each.
    pub(super) fn next_turn(&mut self) -> Option<u32> {
        let port = self.turns.pop_front()?;
        let usage = self.usages.get_mut(&port)?;
        let number = usage.waiting.pop_front();
        self.queued -= 1;
        if !usage.waiting.is_empty() {
            self.turns.push_back(port);
        } else if usage.flows == 0 {
            self.usages.remove(&port);
        }
        number
    }
}

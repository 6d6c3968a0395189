//! What a network has seen of loops since control last asked.
//!
//! The worker counts moves of addresses, and recognises probes that come back; both only among
//! flooded frames, without which no loop can last. Control decides what to suspect, when probes are
//! sent, and which port is blocked: `daemon/src/loops.rs`.

use trama_frame::VlanId;

use crate::time::Time;
use crate::types::{NetworkId, PortId};

/// Most reports of a network between two questions; the next probes bring the others.
const MAX_REPORTS: usize = 16;

/// A sign of a loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoopReport {
    /// Addresses move between two ports more than 50 times a second.
    Moves {
        /// Their network.
        network: NetworkId,
        /// The VLAN of the addresses.
        vlan: VlanId,
        /// The ports.
        ports: [PortId; 2],
    },
    /// A probe came back.
    Returned {
        /// The network.
        network: NetworkId,
        /// The VLAN in which the probe was sent.
        vlan: VlanId,
        /// The port at which it left.
        sent: PortId,
        /// The port at which it came in.
        received: PortId,
    },
}

/// The reports of a network.
pub(crate) struct LoopReports {
    reports: Vec<LoopReport>,
    /// Until when probes may come back.
    pub expects_until: Option<Time>,
}

impl LoopReports {
    pub(crate) fn new() -> LoopReports {
        LoopReports { reports: Vec::with_capacity(MAX_REPORTS), expects_until: None }
    }

    /// Returns whether probes may come back.
    #[inline]
    pub(crate) fn expects_probes(&self, now: Time) -> bool {
        self.expects_until.is_some_and(|until| now <= until)
    }

    /// Adds a report; returns whether it is new and there was room.
    pub(crate) fn add(&mut self, report: LoopReport) -> bool {
        let is_new = !self.reports.contains(&report) && self.reports.len() < MAX_REPORTS;
        if is_new {
            self.reports.push(report);
        }
        is_new
    }

    /// Returns the reports since the last call.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = LoopReport> {
        self.reports.drain(..)
    }
}

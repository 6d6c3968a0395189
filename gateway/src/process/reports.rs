//! What a gateway process tells the daemon unasked: warnings, its status, events.

use std::time::Duration;

use super::Process;
use crate::control::Report;
use crate::drop_reason::Counters;
use crate::lease_store::LeaseStore;
use crate::report::Status;

/// Shortest time between two status reports.
const REPORT: Duration = Duration::from_secs(1);
/// Shortest time between two reports of events: a system call and a wake-up for each event would
/// cost more than the event.
const EVENTS: Duration = Duration::from_millis(20);

/// What the daemon was last told.
pub(super) struct Reported {
    counters: Counters,
    leases: usize,
    flows: [usize; 3],
    lease_store: Option<String>,
}

impl Process {
    /// Sends warnings to the daemon's log.
    pub(super) fn send_warnings(&mut self) {
        let store = self.store.as_mut().map(LeaseStore::take_warnings).unwrap_or_default();
        let warnings = self.gateway.take_warnings().into_iter().chain(store);
        for warning in warnings.chain(self.nat.take_warnings()) {
            self.daemon.warn(warning);
        }
    }

    /// Sends a status report if something has changed and it is time.
    pub(super) fn send_status(&mut self) {
        if !self.has_news() || self.now() < self.report_at {
            return;
        }
        let nat = self.nat.status(self.gateway.config().nat());
        let lease_store = self.store.as_ref().and_then(LeaseStore::failure).map(str::to_owned);
        self.reported = Some(Reported {
            counters: self.gateway.counters().clone(),
            leases: self.gateway.bound_leases(),
            flows: self.nat.census(),
            lease_store: lease_store.clone(),
        });
        let status = Status { nat, lease_store, ..self.gateway.status() };
        self.daemon.send(&Report::Status(Box::new(status)));
        self.report_at = self.now() + REPORT;
    }

    /// Whether there are events, and a daemon that takes them now.
    pub(super) fn can_send_events(&self) -> bool {
        self.gateway.has_events() && self.daemon.is_free()
    }

    /// Sends the events if it is time. Without a daemon they wait for the next one.
    pub(super) fn send_events(&mut self) {
        if !self.can_send_events() || self.now() < self.events_at {
            return;
        }
        let (events, lost) = self.gateway.take_events();
        self.daemon.send(&Report::Events { events, lost });
        self.events_at = self.now() + EVENTS;
    }

    /// Whether the status has changed since the last report to this daemon; checked in every turn.
    pub(super) fn has_news(&self) -> bool {
        if !self.daemon.is_there() {
            return false;
        }
        let Some(Reported { counters, leases, flows, lease_store }) = &self.reported else {
            return true;
        };
        self.gateway.counters() != counters
            || self.gateway.bound_leases() != *leases
            || self.nat.census() != *flows
            || self.store.as_ref().and_then(LeaseStore::failure) != lease_store.as_deref()
    }
}

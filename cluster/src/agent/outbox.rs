//! Which rows to compare, and the transaction that is under way.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Agent;
use super::io::Outcome;
use crate::Time;
use crate::key::{Key, Scope};
use crate::store::{Answer, Entry, Operation, Request, Revision, Txn};

/// Operations of a transaction; the host row is compared besides.
const BATCH: usize = Txn::MAX_OPERATIONS - 1;
/// How long a difference waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// How long the agent waits after the store could not write.
const RETRY: Duration = Duration::from_secs(1);
/// Rows a second in the long run.
const RATE: u64 = 100;
/// Rows a second on return, until all are compared.
const RATE_ON_RETURN: u64 = 500;
/// Credit of a row; a millisecond gives as much as the rate.
const ROW: u64 = 1000;

#[derive(Default, Debug)]
pub(super) struct Outbox {
    /// Rows that may differ from what is wanted. Ports come before stations, as keys are ordered.
    touched: BTreeSet<Key>,
    flight: Option<Txn>,
    /// Number of the last transaction.
    last: u64,
    due: Option<Time>,
    is_returning: bool,
    credit: u64,
    filled: Time,
}

impl Outbox {
    /// Returns the number of a new transaction.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// No answer arrives any more, and nothing is written.
    pub(super) fn stop(&mut self) {
        self.touched.clear();
        self.flight = None;
    }

    pub(super) fn open(&mut self, due: Time) {
        self.due = Some(due);
        self.is_returning = true;
    }

    fn fill(&mut self, now: Time) {
        let rate = if self.is_returning { RATE_ON_RETURN } else { RATE };
        let more = now.since(self.filled).saturating_mul(rate);
        self.credit = self.credit.saturating_add(more).min(BATCH as u64 * ROW);
        self.filled = now;
    }

    /// When the next transaction may begin.
    fn next_due(&mut self, now: Time) -> Time {
        let wait = if self.touched.len() >= BATCH { Duration::ZERO } else { GATHER };
        *self.due.get_or_insert(now + wait)
    }
}

impl Agent {
    /// Compares a row with what is wanted, soon. Without the store there is nothing to do: all rows
    /// are compared on return.
    pub(super) fn touch(&mut self, key: Key) {
        if self.session.is_open() {
            self.outbox.touched.insert(key);
        }
    }

    pub(super) fn send(&mut self, now: Time, out: &mut Outcome) {
        if !self.session.is_open() || self.outbox.flight.is_some() {
            return;
        }
        if self.outbox.touched.is_empty() {
            self.outbox.is_returning = false;
            return;
        }
        if self.outbox.next_due(now) > now {
            return;
        }
        self.outbox.due = None;
        self.outbox.fill(now);
        let most = (self.outbox.credit / ROW) as usize;
        if most == 0 {
            self.outbox.due = Some(now + 10 * GATHER);
            return;
        }
        let mut txn =
            Txn { id: self.outbox.number(), compares: vec![self.fence()], ..Txn::default() };
        while txn.operations.len() < most
            && let Some(key) = self.outbox.touched.pop_first()
        {
            if let Some((known, operation)) = self.difference(now, &key, out) {
                txn.compares.push((key, known));
                txn.operations.push(operation);
            }
        }
        if txn.operations.is_empty() {
            return;
        }
        self.outbox.credit -= txn.operations.len() as u64 * ROW;
        self.outbox.flight = Some(txn.clone());
        out.requests.push(Request::Commit(txn));
    }

    pub(super) fn next_send(&self) -> Option<Time> {
        let Outbox { touched, flight, due, .. } = &self.outbox;
        due.filter(|_| self.session.is_open() && flight.is_none() && !touched.is_empty())
    }

    pub(super) fn committed(&mut self, now: Time, id: u64, answer: Answer, out: &mut Outcome) {
        let Some(txn) = self.outbox.flight.take_if(|txn| txn.id == id) else { return };
        match answer {
            Answer::Done(revision) => {
                for operation in txn.operations {
                    self.done(now, operation, revision, out);
                }
            }
            Answer::Conflict(rows) => {
                self.outbox.touched.extend(txn.compares.into_iter().skip(1).map(|(key, _)| key));
                for row in rows {
                    self.take_compared(now, &row, out);
                }
            }
            Answer::Failed => {
                self.outbox.touched.extend(txn.compares.into_iter().skip(1).map(|(key, _)| key));
                self.outbox.due = Some(now + RETRY);
            }
        }
    }

    fn take_compared(&mut self, now: Time, entry: &Entry, out: &mut Outcome) {
        let scope = match entry.key.parse() {
            Ok(Key::Host(host)) => Scope::Host(host),
            Ok(Key::Port(port)) => Scope::Port(port),
            Ok(Key::Member(vni, _) | Key::Block(vni, _) | Key::Station(vni, _)) => {
                Scope::Network(vni)
            }
            _ => return,
        };
        self.take(now, &scope, entry, out);
    }

    fn done(&mut self, now: Time, operation: Operation, revision: Revision, out: &mut Outcome) {
        let (key, value) = match operation {
            Operation::Put { key, value, .. } => (key, Some(value)),
            Operation::Delete { key } => (key, None),
        };
        match (&key, &value) {
            (Key::Port(name), _) => {
                if let Some(port) = self.ports.get_mut(name) {
                    port.is_asked = false;
                }
            }
            (Key::Station(vni, station), Some(value)) => self.is_published(*vni, *station, value),
            // An event under way may be older. The removal is known by its own event.
            (_, None) => return,
            _ => {}
        }
        let entry = Entry { key: key.to_string().into(), value: value.map(Into::into), revision };
        self.take_compared(now, &entry, out);
    }
}

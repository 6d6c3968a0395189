//! The host's own row, by which it joins the cluster.
//!
//! ```text
//!   Away ──Connected──▶ Joining ──host row read──▶ Joining, transaction sent ──Done──▶ Open
//!     ▲                    ▲                                    │                        │
//!   Lost                   └──── after 5 s ──── Refused ◀── live row of another boot     │
//!                          └──── the host row is another than the host wrote ────────────┘
//! ```
//!
//! Every transaction of the agent compares the host row. Who removes the rows of a host for it
//! writes the host row with a higher epoch in the same transaction. So a host that is not dead
//! after all cannot write a row by what it knew before, however late its transaction arrives. It
//! learns that it is behind, shuts its tunnels, takes a yet higher epoch, reads everything, and
//! opens them.

use std::time::Duration;

use super::Agent;
use super::io::{Config, Outcome, Step};
use crate::Time;
use crate::key::{Key, Scope};
use crate::row::{self, Host, Live};
use crate::store::{Answer, Entry, Operation, Request, Revision, Txn};

/// How long a host waits before it asks again whether its name is free.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The store is not reached.
    Away,
    /// The host row is being read.
    Joining,
    /// The transaction with this number writes it.
    Registering(u64),
    /// Join again at this time.
    Waiting(Time),
    /// The host may write rows.
    Open,
}

#[derive(Debug)]
pub(super) struct Session {
    state: State,
    pub(super) epoch: u64,
    row: Option<Host>,
    revision: Revision,
    /// Whether this agent wrote the row.
    has_joined: bool,
    /// Whether tunnels are shut until everything is read.
    is_behind: bool,
}

impl Session {
    pub(super) fn new(epoch: u64) -> Session {
        let (state, row, revision) = (State::Away, None, Revision::ABSENT);
        Session { state, epoch, row, revision, has_joined: false, is_behind: false }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn next(&self) -> Option<Time> {
        if let State::Waiting(until) = self.state { Some(until) } else { None }
    }
}

impl Agent {
    /// What each transaction compares first.
    pub(super) fn fence(&self) -> (Key, Revision) {
        let known =
            if self.session.row.is_some() { self.session.revision } else { Revision::ABSENT };
        (Key::Host(self.config.host.clone()), known)
    }

    pub(super) fn connected(&mut self, out: &mut Outcome) {
        self.disconnected();
        self.join(out);
    }

    pub(super) fn disconnected(&mut self) {
        self.session.state = State::Away;
        self.feeds.values_mut().for_each(super::feed::Feed::stop);
        self.outbox.stop();
    }

    /// Reads the host row, and writes it then.
    fn join(&mut self, out: &mut Outcome) {
        self.session.state = State::Joining;
        let scope = Scope::Host(self.config.host.clone());
        self.read_again(&scope, out);
    }

    pub(super) fn take_host(&mut self, entry: &Entry, out: &mut Outcome) {
        let row = match entry.value.as_deref().map(row::parse::<Host>).transpose() {
            Ok(row) => row,
            Err(refusal) => return out.refused.push((entry.key.clone(), refusal)),
        };
        if entry.revision <= self.session.revision {
            return;
        }
        self.session.row = row;
        self.session.revision = entry.revision;
        if self.session.is_open() {
            self.outbox.stop();
            self.join(out);
        }
    }

    pub(super) fn host_is_read(&mut self, out: &mut Outcome) {
        if self.session.state == State::Joining {
            self.register(out);
        }
    }

    fn register(&mut self, out: &mut Outcome) {
        let mut compares = vec![self.fence()];
        let live = Key::Live(self.config.host.clone());
        if let Some(row) = &self.session.row {
            let is_other = row.boot != self.config.boot;
            if is_other {
                compares.push((live.clone(), Revision::ABSENT));
            }
            // Two agents of a host never have one epoch.
            let is_new = is_other || !self.session.has_joined;
            if row.epoch > self.session.epoch || is_new && row.epoch == self.session.epoch {
                self.session.epoch = row.epoch.saturating_add(1);
                self.fall_behind(out);
            }
        }
        let Config { vtep, boot, .. } = self.config.clone();
        let epoch = self.session.epoch;
        let host = row::encode(&Host { vtep, boot, epoch });
        let operations = vec![
            Operation::Put { key: compares[0].0.clone(), value: host, leased: false },
            Operation::Put { key: live, value: row::encode(&Live { epoch }), leased: true },
        ];
        let id = self.outbox.number();
        self.session.state = State::Registering(id);
        out.requests.push(Request::Commit(Txn { id, compares, operations }));
    }

    /// Takes the answer if it is that of the registration; otherwise returns false.
    pub(super) fn registered(
        &mut self,
        now: Time,
        id: u64,
        answer: &Answer,
        out: &mut Outcome,
    ) -> bool {
        if self.session.state != State::Registering(id) {
            return false;
        }
        match answer {
            Answer::Done(revision) => {
                let Config { vtep, boot, .. } = self.config.clone();
                self.session.row = Some(Host { vtep, boot, epoch: self.session.epoch });
                self.session.revision = *revision;
                self.session.has_joined = true;
                self.opened(now, out);
            }
            Answer::Conflict(rows) => {
                rows.first().into_iter().for_each(|row| self.take_host(row, out));
                let is_taken = rows.get(1).is_some_and(|live| live.value.is_some());
                match &self.session.row {
                    Some(row) if is_taken => {
                        out.steps.push(Step::NameTaken(row.clone()));
                        self.session.state = State::Waiting(now + RETRY);
                    }
                    _ => self.register(out),
                }
            }
            Answer::Failed => self.session.state = State::Waiting(now + RETRY),
        }
        true
    }

    /// Reads what is behind, and compares what this host wants with what the store has.
    fn opened(&mut self, now: Time, out: &mut Outcome) {
        self.session.state = State::Open;
        let own = Scope::Host(self.config.host.clone());
        let scopes: Vec<Scope> =
            self.feeds.keys().filter(|scope| **scope != own).cloned().collect();
        for scope in &scopes {
            if self.session.is_behind {
                self.read_again(scope, out);
            } else {
                self.start(scope, out);
            }
        }
        self.outbox.open(now + self.config.spread);
        self.compare_all();
    }

    /// Joins again when it is time to, and opens the tunnels when everything is read.
    pub(super) fn poll_session(&mut self, now: Time, out: &mut Outcome) {
        if self.session.next().is_some_and(|until| until <= now) {
            self.join(out);
        }
        let is_read = || self.feeds.values().all(super::feed::Feed::is_read);
        if self.session.is_behind && self.session.is_open() && is_read() {
            self.session.is_behind = false;
            out.steps.push(Step::Tunnels { are_open: true });
        }
    }

    fn fall_behind(&mut self, out: &mut Outcome) {
        if !self.session.is_behind {
            self.session.is_behind = true;
            out.steps.push(Step::Tunnels { are_open: false });
        }
    }
}

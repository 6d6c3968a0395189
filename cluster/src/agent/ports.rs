//! Ports of this host, and the rows that give their names to it.
//!
//! ```text
//!             reached            Done
//!   up ──▶ Asking ─────────▶ Claimed ◀──────────┐
//!    │       │ 1 s               │ row removed  │ Done
//!    │       ▼                   ▼              │
//!    └──▶ Running ◀──────────────┴──────────────┘
//!  not reached │
//!              └─ the row names another host ──▶ Held ──row removed──▶ Asking
//! ```
//!
//! A port moves frames while it is `Running` or `Claimed`, and has rows of stations while it is
//! `Claimed`. A `Held` port watches its row and the row of the host that is named there. If that
//! host has a higher epoch than the row for 10 s, its agent has started without such a port, and
//! the name is free.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Agent;
use super::io::{Outcome, Step};
use crate::key::{Key, Scope, StationKey};
use crate::row::{self, Host as HostRow, Port as Row};
use crate::store::{Entry, Revision};
use crate::{Name, Time};

/// How long a port waits for the store's answer before it runs all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an agent that starts has to write the rows of its ports.
const PORTS_WRITTEN: Duration = Duration::from_secs(10);

/// A host with a port of a name that a port of this host has.
#[derive(Debug)]
pub(super) struct Owner {
    epoch: u64,
    /// When the epoch was first seen.
    since: Time,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It runs at this time, unless its row names another host.
    Asking(Time),
    Running,
    Claimed,
    Held(Name),
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) network: Name,
    /// Its configured stations.
    stations: Vec<StationKey>,
    /// False after it was unplugged, while the store may have its row.
    pub(super) is_wanted: bool,
    pub(super) state: State,
    pub(super) row: Option<Row>,
    /// When the row was put or deleted.
    pub(super) revision: Revision,
    /// Whether this host may have written a row that it does not know of.
    pub(super) is_asked: bool,
    /// Learned stations that are published.
    pub(super) learned: usize,
    /// Whether it has learned others.
    pub(super) is_full: bool,
}

impl Port {
    pub(super) fn moves_frames(&self) -> bool {
        self.is_wanted && matches!(self.state, State::Running | State::Claimed)
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.is_wanted && self.state == State::Claimed
    }
}

impl Agent {
    pub(super) fn port_up(
        &mut self,
        now: Time,
        name: Name,
        network: Name,
        stations: Vec<StationKey>,
        out: &mut Outcome,
    ) {
        if self.ports.get(&name).is_some_and(|port| port.is_wanted) {
            self.port_down(now, &name, out);
        }
        let state = self.first_state(now);
        if state == State::Running {
            out.steps.push(Step::Port { port: name.clone(), elsewhere: None });
        }
        let before = self.ports.remove(&name);
        let is_asked = before.as_ref().is_some_and(|port| port.is_asked);
        let (row, revision) = before.map(|port| (port.row, port.revision)).unwrap_or_default();
        let port = Port {
            network: network.clone(),
            stations,
            is_wanted: true,
            state,
            row,
            revision,
            is_asked,
            learned: 0,
            is_full: false,
        };
        self.ports.insert(name.clone(), port);
        self.enter(now, &network, name.clone(), out);
        self.claim_configured(now, &name, out);
        self.settle_port(now, &name, out);
    }

    fn first_state(&self, now: Time) -> State {
        if self.session.is_open() { State::Asking(now + PATIENCE) } else { State::Running }
    }

    fn claim_configured(&mut self, now: Time, name: &Name, out: &mut Outcome) {
        let Some(port) = self.ports.get(name) else { return };
        for station in port.stations.clone() {
            self.claim(now, name, station, true, out);
        }
    }

    pub(super) fn port_down(&mut self, now: Time, name: &Name, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(name).filter(|port| port.is_wanted) else { return };
        port.is_wanted = false;
        let network = port.network.clone();
        self.drop_stations(name, out);
        self.leave(&network, name, out);
        self.settle_port(now, name, out);
    }

    pub(super) fn take_port(&mut self, now: Time, name: &Name, entry: &Entry, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(name) else { return };
        match entry.value.as_deref().map(row::parse::<Row>).transpose() {
            Ok(_) if entry.revision <= port.revision => return,
            Ok(row) => (port.row, port.revision) = (row, entry.revision),
            Err(refusal) => return out.refused.push((entry.key.clone(), refusal)),
        }
        self.settle_port(now, name, out);
    }

    /// Does what follows from the row and from what is wanted.
    fn settle_port(&mut self, now: Time, name: &Name, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(name) else { return };
        let other =
            port.row.as_ref().map(|row| &row.host).filter(|host| **host != self.config.host);
        match other.cloned() {
            Some(other) if port.is_wanted => self.hold_port(now, name, other, out),
            Some(_) => self.forget_port(name, out),
            None if port.row.is_none() && !port.is_wanted && !port.is_asked => {
                self.forget_port(name, out);
            }
            None if port.row.as_ref().is_some_and(|row| {
                row.network == port.network && row.epoch == self.session.epoch
            }) && port.is_wanted =>
            {
                self.run_port(name, out);
            }
            None => self.ask_for_port(now, name, out),
        }
    }

    /// Another host has a port of this name.
    fn hold_port(&mut self, now: Time, name: &Name, other: Name, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(name) else { return };
        let state = State::Held(other.clone());
        if port.state != state {
            port.state = state;
            out.steps.push(Step::Port { port: name.clone(), elsewhere: Some(other) });
            self.drop_stations(name, out);
            self.follow(now, Scope::Port(name.clone()), out);
            self.follow_owners(now, out);
        }
    }

    /// The name is this host's.
    fn run_port(&mut self, name: &Name, out: &mut Outcome) {
        let Some(port) = self.ports.get_mut(name) else { return };
        if !port.moves_frames() {
            out.steps.push(Step::Port { port: name.clone(), elsewhere: None });
        }
        port.state = State::Claimed;
        self.unfollow(Scope::Port(name.clone()), out);
        self.unfollow_owners(out);
        self.compare_stations(name);
    }

    fn ask_for_port(&mut self, now: Time, name: &Name, out: &mut Outcome) {
        let first = self.first_state(now);
        let Some(port) = self.ports.get_mut(name) else { return };
        match port.state {
            State::Held(_) => {
                port.state = first;
                self.claim_configured(now, name, out);
            }
            State::Claimed => port.state = State::Running,
            State::Asking(_) | State::Running => {}
        }
        self.touch(Key::Port(name.clone()));
    }

    fn forget_port(&mut self, name: &Name, out: &mut Outcome) {
        self.ports.remove(name);
        self.unfollow(Scope::Port(name.clone()), out);
        self.unfollow_owners(out);
    }

    fn owners(&self) -> BTreeSet<Name> {
        let owner = |port: &Port| match &port.state {
            State::Held(owner) => Some(owner.clone()),
            _ => None,
        };
        self.ports.values().filter_map(owner).collect()
    }

    fn follow_owners(&mut self, now: Time, out: &mut Outcome) {
        self.unfollow_owners(out);
        for owner in self.owners() {
            self.follow(now, Scope::Host(owner), out);
        }
    }

    fn unfollow_owners(&mut self, out: &mut Outcome) {
        let own = Scope::Host(self.config.host.clone());
        let owners = self.owners();
        let is_idle = |scope: &&Scope| match scope {
            Scope::Host(host) => **scope != own && !owners.contains(host),
            _ => false,
        };
        let idle: Vec<Scope> = self.feeds.keys().filter(is_idle).cloned().collect();
        idle.into_iter().for_each(|scope| self.unfollow(scope, out));
        self.owners.retain(|host, _| owners.contains(host));
    }

    pub(super) fn take_owner(&mut self, now: Time, host: &Name, entry: &Entry, out: &mut Outcome) {
        match entry.value.as_deref().map(row::parse::<HostRow>).transpose() {
            Ok(Some(HostRow { epoch, .. })) => {
                let owner = self.owners.entry(host.clone()).or_insert(Owner { epoch, since: now });
                if owner.epoch != epoch {
                    *owner = Owner { epoch, since: now };
                }
            }
            Ok(None) => drop(self.owners.remove(host)),
            Err(refusal) => out.refused.push((entry.key.clone(), refusal)),
        }
    }

    /// When the name of a port is free because the agent of its host has started without it.
    fn freed(&self, port: &Port) -> Option<Time> {
        let (State::Held(host), Some(row)) = (&port.state, &port.row) else { return None };
        let owner = self.owners.get(host).filter(|owner| owner.epoch > row.epoch)?;
        Some(owner.since + PORTS_WRITTEN)
    }

    pub(super) fn is_orphan(&self, now: Time, port: &Port) -> bool {
        self.freed(port).is_some_and(|freed| freed <= now)
    }

    pub(super) fn poll_ports(&mut self, now: Time, out: &mut Outcome) {
        let is_orphan = |(_, port): &(&Name, &Port)| self.is_orphan(now, port);
        let orphans: Vec<Name> =
            self.ports.iter().filter(is_orphan).map(|(name, _)| name.clone()).collect();
        orphans.into_iter().for_each(|name| self.touch(Key::Port(name)));
        for (name, port) in &mut self.ports {
            if matches!(port.state, State::Asking(until) if until <= now) {
                port.state = State::Running;
                if port.is_wanted {
                    out.steps.push(Step::Port { port: name.clone(), elsewhere: None });
                }
            }
        }
    }

    pub(super) fn next_port(&self, now: Time) -> Option<Time> {
        let asking = |port: &Port| match port.state {
            State::Asking(until) => Some(until),
            _ => self.freed(port).filter(|freed| *freed > now),
        };
        self.ports.values().filter_map(asking).min()
    }
}

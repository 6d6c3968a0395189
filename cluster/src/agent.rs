//! The agent of a host, as a state machine: it tells the store what the host has, and the host
//! what the others have.
//!
//! **In**: what the store reports, ports that come and go, stations that the switch learned or
//! forgot, the passing of time ([`Agent::handle`]). **Out**: an [`Outcome`]: requests to the store,
//! steps of the data plane, and when to come back.
//!
//! **No list of changes.** For each row of its own the agent compares what it wants, which follows
//! from its ports and stations, with what it knows of the store. A difference becomes an operation
//! in the next transaction. There is one transaction at a time; it compares every row that it
//! changes, so that a host which was late learns of what it missed and compares again. While the
//! store is not reached nothing is written down: all rows are compared on return. An answer that
//! never came does no harm, either.
//!
//! **Ports** ([`crate::row::Port`]) come before their stations: a name that another host has is
//! not run here, and has no stations. Without the store, a port runs, and the first host to return
//! has the name.
//!
//! **Stations.** A host that learns a station of another claims it with the sequence number after
//! that of the row, which is fixed at this moment. Of two claims the higher number counts, then
//! the lower underlay address. The loser forgets the station, until it sends another frame.
//!
//! Rows that an earlier agent of the host wrote stay for 300 s, until their stations send a frame.
//!
//! **Blocks.** A host leases addresses of its own blocks only ([`crate::row::Block`]), and claims
//! another one when less than a quarter is free. It keeps its blocks, even without ports in the
//! network: leases move with their guests.
//!
//! **Limits.** A port publishes at most 64 learned stations; a host with others wants frames to
//! unknown stations ([`crate::row::Member::unknown`]). A host writes at most 100 rows a second in
//! the long run, and 500 a second when it returns.

mod compose;
mod feed;
mod io;
mod moves;
mod network;
mod outbox;
mod ports;
mod session;
mod stations;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use trama_frame::vxlan::Vni;

use crate::cache::{Cache, CachedScope};
use crate::key::{Scope, StationKey};
use crate::row;
use crate::store::Entry;
use crate::{Name, Time};
use feed::Feed;
pub use io::{Config, Input, Outcome, Step};
use moves::Moves;
use network::Network;
use outbox::Outbox;
use ports::{Owner, Port};
use session::Session;

/// The agent of a host.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    session: Session,
    feeds: BTreeMap<Scope, Feed>,
    networks: BTreeMap<Name, Network>,
    /// The networks whose definition is known.
    by_vni: BTreeMap<Vni, Name>,
    ports: BTreeMap<Name, Port>,
    /// Hosts that have ports with names of ports of this host.
    owners: BTreeMap<Name, Owner>,
    moves: Moves,
    outbox: Outbox,
    /// What an earlier agent knew, until a feed takes it.
    cached: BTreeMap<Scope, CachedScope>,
    grace: Grace,
}

/// Rows of stations that this agent has not seen are an earlier agent's: they stay for a while, as
/// the stations may not have sent a frame yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grace {
    /// Before the first input.
    Ahead,
    Until(Time),
    Over,
}

/// As long as a switch remembers a station that is silent.
const GRACE: Duration = Duration::from_secs(300);

impl Agent {
    /// An agent that knows what the cache has.
    pub fn new(config: Config, cache: Cache) -> Agent {
        let own = Scope::Host(config.host.clone());
        let by_scope = |cached: CachedScope| (cached.scope.clone(), cached);
        Agent {
            session: Session::new(cache.epoch.saturating_add(1)),
            feeds: BTreeMap::from([(own, Feed::new(None))]),
            networks: BTreeMap::new(),
            by_vni: BTreeMap::new(),
            ports: BTreeMap::new(),
            owners: BTreeMap::new(),
            moves: Moves::default(),
            outbox: Outbox::default(),
            cached: cache.scopes.into_iter().map(by_scope).collect(),
            grace: Grace::Ahead,
            config,
        }
    }

    /// Takes an input; what follows from it is added to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Outcome) {
        if self.grace == Grace::Ahead {
            self.grace = Grace::Until(now + GRACE);
        }
        match input {
            Input::Connected => self.connected(out),
            Input::Lost => self.disconnected(),
            Input::Page(scope, page) => self.page(now, scope, &page, out),
            Input::Changed(scope, rows, up_to) => self.changed(now, &scope, &rows, up_to, out),
            Input::Compacted(scope) => self.compacted(&scope, out),
            Input::Answered(id, answer) => {
                if !self.registered(now, id, &answer, out) {
                    self.committed(now, id, answer, out);
                }
            }
            Input::PortUp { port, network, stations } => {
                self.port_up(now, port, network, stations, out);
            }
            Input::PortDown(port) => self.port_down(now, &port, out),
            Input::Learned { port, station } => self.learned(now, &port, station, out),
            Input::Aged { port, station } => self.aged(&port, station, out),
            Input::Used { network, addresses } => self.used(&network, addresses),
            Input::Tick => {}
        }
        self.poll_ports(now, out);
        self.poll_session(now, out);
        if matches!(self.grace, Grace::Until(end) if end <= now) {
            self.grace = Grace::Over;
            self.compare_all();
        }
        self.send(now, out);
        let grace = if let Grace::Until(end) = self.grace { Some(end) } else { None };
        let deadlines = [self.session.next(), self.next_port(now), self.next_send(), grace];
        out.next = deadlines.into_iter().flatten().min();
    }

    /// Returns what a later agent of this host should know from the start.
    pub fn cache(&self) -> Cache {
        let scopes = self.feeds.iter().filter_map(|(scope, feed)| {
            let rows = self.rows(scope, feed.known?)?;
            Some(CachedScope { scope: scope.clone(), revision: feed.known?, rows })
        });
        Cache { epoch: self.session.epoch, scopes: scopes.collect() }
    }

    fn rows(&self, scope: &Scope, revision: crate::store::Revision) -> Option<Vec<Entry>> {
        match scope {
            Scope::Net(name) => {
                let net = self.networks.get(name)?.net.as_ref()?;
                let value = Some(row::encode(net).into());
                Some(vec![Entry { key: scope.to_string().into(), value, revision }])
            }
            Scope::Network(vni) => {
                Some(self.networks.get(self.by_vni.get(vni)?)?.replica.as_ref()?.rows())
            }
            Scope::Host(_) | Scope::Port(_) => None,
        }
    }

    /// The host with a station, as the data plane was told; `None` also for the stations of this
    /// host that no other has claimed.
    pub fn host_of(&self, network: &Name, station: StationKey) -> Option<&Name> {
        self.networks.get(network)?.replica.as_ref()?.host_of(station)
    }

    /// Takes a row of a range.
    fn take(&mut self, now: Time, scope: &Scope, entry: &Entry, out: &mut Outcome) {
        match scope {
            Scope::Host(host) if *host == self.config.host => self.take_host(entry, out),
            Scope::Host(host) => self.take_owner(now, host, entry, out),
            Scope::Net(name) => self.take_net(now, name, entry, out),
            Scope::Port(name) => self.take_port(now, name, entry, out),
            Scope::Network(vni) => self.take_row(now, *vni, entry, out),
        }
    }

    /// Prepares for a range to be read as a whole.
    fn mark(&mut self, scope: &Scope) {
        if let Scope::Network(vni) = scope
            && let Some(replica) = self.replica_mut(*vni)
        {
            replica.mark();
        }
    }

    /// A range was read as a whole.
    fn has_read(&mut self, now: Time, scope: &Scope, out: &mut Outcome) {
        match scope {
            Scope::Host(host) if *host == self.config.host => self.host_is_read(out),
            Scope::Network(vni) => self.network_is_read(now, *vni, out),
            Scope::Host(_) | Scope::Net(_) | Scope::Port(_) => {}
        }
    }
}

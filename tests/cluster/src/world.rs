//! The driver: carries messages between agents and store, late and in order.

use std::collections::{BTreeMap, BTreeSet};

use trama_cluster::agent::{Agent, Config, Input, Outcome, Step};
use trama_cluster::key::{Key, Scope, StationKey};
use trama_cluster::row::{self, Net};
use trama_cluster::store::memory::{Lease, Memory};
use trama_cluster::store::{Answer, Entry, Operation, Request, Revision, Txn};
use trama_cluster::{Name, Time};
use trama_frame::vxlan::Vni;
use trama_frame::{MacAddr, VlanId};

use crate::guest::{Fault, Guest};
use crate::host::{Host, Place};
use crate::rng::Rng;

/// Milliseconds within which a change is known to all hosts that reach the store.
pub(crate) const BOUND: u64 = 15_000;
/// Rows of a page: few, so that ranges are read over several.
const PAGE: usize = 16;

/// A fault of the agent that is planted to see whether the oracle finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// Transactions compare nothing.
    NoCompare,
    /// After a compaction, what is known is cleared before it is read again.
    ClearThenFill,
}

/// What to simulate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Replays a run.
    pub seed: u64,
    /// Number of hosts.
    pub hosts: usize,
    /// Number of guests; each has one port and one station.
    pub guests: usize,
    /// Number of networks. The first has guests on any host, the others on five.
    pub networks: usize,
    /// Milliseconds with faults, after those that the cluster needs to come up.
    pub faults: u64,
    /// The fault of the agent.
    pub planted: Option<Break>,
}

/// What happened in a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Figures {
    /// Transactions that were done.
    pub commits: u64,
    /// Transactions that were not.
    pub conflicts: u64,
    /// Rows that changed.
    pub writes: u64,
    /// Rows that watches delivered.
    pub deliveries: u64,
    /// Watches that began after a compaction.
    pub compactions: u64,
    /// Pairs of a host and a guest that were looked at.
    pub pairs: u64,
    /// Faults that were played.
    pub faults: u64,
}

pub(crate) enum Event {
    ToStore(usize, u64, Request),
    ToHost(usize, u64, Input),
    LateCommit(u64, Txn),
    Tick(usize, u64),
    Connect(usize, u64),
    Lost(usize, u64),
    EndLease(u64),
    Speak(usize),
}

/// The cluster.
pub struct World {
    pub(crate) setup: Setup,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) store: Memory,
    pub(crate) hosts: Vec<Host>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) networks: Vec<(Name, Vni)>,
    guest_of: BTreeMap<(Name, StationKey), usize>,
    queue: BTreeMap<(u64, u64), Event>,
    count: u64,
    connections: u64,
    ended: BTreeSet<u64>,
    watchers: BTreeMap<Scope, BTreeSet<usize>>,
    pub(crate) stalled_until: u64,
    pub(crate) figures: Figures,
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn scope_of(key: &str) -> Option<Scope> {
    match key.parse().ok()? {
        Key::Host(host) => Some(Scope::Host(host)),
        Key::Net(network) => Some(Scope::Net(network)),
        Key::Port(port) => Some(Scope::Port(port)),
        Key::Member(vni, _) | Key::Block(vni, _) | Key::Station(vni, _) => {
            Some(Scope::Network(vni))
        }
        Key::Meta | Key::Live(_) | Key::Vni(_) => None,
    }
}

impl World {
    /// Hosts that start all at once, with their guests.
    pub fn new(setup: Setup) -> World {
        let mut world = World {
            setup,
            now: 0,
            rng: Rng::new(setup.seed),
            store: Memory::default(),
            hosts: Vec::new(),
            guests: Vec::new(),
            networks: Vec::new(),
            guest_of: BTreeMap::new(),
            queue: BTreeMap::new(),
            count: 0,
            connections: 0,
            ended: BTreeSet::new(),
            watchers: BTreeMap::new(),
            stalled_until: 0,
            figures: Figures::default(),
        };
        for number in 0..setup.networks {
            let vni = Vni::new(number as u32 + 1).expect("a VNI");
            let network = name(&format!("net{number}"));
            let net = Net { vni, subnet: Some("10.0.0.0/16".parse().expect("a subnet")) };
            world.store.put(&Key::Net(network.clone()).to_string(), &row::encode(&net));
            world.networks.push((network, vni));
        }
        for number in 0..setup.hosts {
            let vtep = [10, 200, (number >> 8) as u8, number as u8];
            world.hosts.push(Host::new(Config {
                host: name(&format!("h{number}")),
                vtep: vec![vtep.into()],
                port: 4789,
                boot: format!("boot{number}"),
                spread: std::time::Duration::from_millis(world.rng.below(1000)),
            }));
            world.start(number);
        }
        for number in 0..setup.guests {
            world.add_guest(number);
        }
        world
    }

    fn add_guest(&mut self, number: usize) {
        let network = number % self.setup.networks;
        let hosts = self.hosts_of(network);
        let host = hosts[self.rng.index(hosts.len())];
        let [_, _, _, _, a, b, c, d] = (number as u64).to_be_bytes();
        let station = StationKey { vlan: VlanId::NONE, mac: MacAddr([2, 0, a, b, c, d]) };
        let network = self.networks[network].0.clone();
        self.guest_of.insert((network.clone(), station), number);
        let port = name(&format!("vm{number}"));
        self.guests.push(Guest {
            port,
            network,
            station,
            host,
            moved: 0,
            runs: None,
            published: None,
        });
        self.plug(number);
    }

    /// The hosts that guests of a network may be on.
    pub(crate) fn hosts_of(&self, network: usize) -> Vec<usize> {
        let all = self.setup.hosts;
        if network == 0 {
            (0..all).collect()
        } else {
            (0..5).map(|n| (network * 5 + n) % all).collect()
        }
    }

    /// Plugs a guest in where it is.
    pub(crate) fn plug(&mut self, number: usize) {
        let Guest { port, network, host, .. } = self.guests[number].clone();
        self.guests[number].moved = self.now;
        self.guests[number].runs = None;
        self.guests[number].published = None;
        self.port_up(host, port, network);
        self.at(self.now + 50, Event::Speak(number));
    }

    pub(crate) fn port_up(&mut self, host: usize, port: Name, network: Name) {
        let now = self.now;
        self.hosts[host].entered.entry(network.clone()).or_insert(now);
        self.hosts[host].ports.insert(port.clone(), network.clone());
        self.hosts[host].plane.ports.insert(port.clone(), false);
        self.input(host, Input::PortUp { port, network, stations: Vec::new() });
    }

    pub(crate) fn port_down(&mut self, host: usize, port: &Name) {
        let Some(network) = self.hosts[host].ports.remove(port) else { return };
        self.hosts[host].plane.ports.remove(port);
        self.input(host, Input::PortDown(port.clone()));
        if !self.hosts[host].ports.values().any(|other| *other == network) {
            self.hosts[host].entered.remove(&network);
        }
    }

    /// Starts the agent of a host from its cache.
    pub(crate) fn start(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        one.life += 1;
        one.plane = crate::host::Plane::default();
        one.tick = None;
        one.knows_cached(self.now);
        one.agent = Some(Agent::new(one.config.clone(), one.saved.0.clone()));
        let life = one.life;
        for (port, network) in one.ports.clone() {
            self.port_up(host, port, network);
        }
        self.at(self.now + 100, Event::Connect(host, life));
        for number in 0..self.guests.len() {
            if self.guests[number].host == host {
                self.at(self.now + 500, Event::Speak(number));
            }
        }
    }

    pub(crate) fn crash(&mut self, host: usize) {
        self.hosts[host].cut_off(self.now, BOUND);
        self.hosts[host].agent = None;
        self.hosts[host].life += 1;
        self.disconnect(host);
    }

    /// Ends the connection; the store notices later.
    pub(crate) fn disconnect(&mut self, host: usize) {
        for (scope, ()) in std::mem::take(&mut self.hosts[host].watches) {
            if let Some(watchers) = self.watchers.get_mut(&scope) {
                watchers.remove(&host);
            }
        }
        if let Some(connection) = self.hosts[host].connection.take() {
            self.at(self.now + 30_000, Event::EndLease(connection));
        }
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.queue.insert((time.max(self.now), self.count), event);
    }

    /// When a message that is sent now arrives.
    fn arrival(&mut self, host: usize, direction: usize) -> u64 {
        let sent = self.now.max(self.stalled_until);
        let arrives = (sent + 1 + self.rng.below(5)).max(self.hosts[host].arrives[direction]);
        self.hosts[host].arrives[direction] = arrives;
        arrives
    }

    /// Runs until a time.
    ///
    /// # Errors
    /// The first fault that the oracle finds.
    pub fn run(&mut self, until: u64) -> Result<(), Fault> {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((time, _), event) = entry.remove_entry();
            self.now = time;
            self.happen(event);
        }
        self.now = until;
        self.check()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToStore(host, connection, request) => self.at_store(host, connection, request),
            Event::ToHost(host, connection, input) => {
                if self.hosts[host].connection == Some(connection) && !self.hosts[host].is_cut {
                    self.input(host, input);
                }
            }
            Event::LateCommit(connection, txn) => {
                let is_leased =
                    |one: &Operation| matches!(one, Operation::Put { leased: true, .. });
                let has_lease = !self.ended.contains(&connection);
                if has_lease || !txn.operations.iter().any(is_leased) {
                    self.commit(connection, &txn);
                }
            }
            Event::Tick(host, life) => {
                if self.hosts[host].life == life {
                    self.hosts[host].tick = None;
                    self.input(host, Input::Tick);
                }
            }
            Event::Connect(host, life) => self.connect(host, life),
            Event::Lost(host, connection) => {
                if self.hosts[host].connection == Some(connection) {
                    self.disconnect(host);
                    self.input(host, Input::Lost);
                    let life = self.hosts[host].life;
                    self.at(self.now + 1000, Event::Connect(host, life));
                }
            }
            Event::EndLease(connection) => {
                let before = self.store.revision();
                self.ended.insert(connection);
                self.store.end(Lease(connection));
                self.deliver(before);
            }
            Event::Speak(guest) => self.speak(guest),
        }
    }

    fn connect(&mut self, host: usize, life: u64) {
        let one = &self.hosts[host];
        if one.life != life || one.agent.is_none() || one.connection.is_some() {
            return;
        }
        if one.is_cut || self.now < self.stalled_until {
            return self.at(self.now + 1000, Event::Connect(host, life));
        }
        self.connections += 1;
        self.hosts[host].connection = Some(self.connections);
        self.hosts[host].connected_since = Some(self.now);
        self.input(host, Input::Connected);
    }

    /// A guest sends a frame: its switch learns it where it did not know it.
    fn speak(&mut self, number: usize) {
        let Guest { port, network, station, host, .. } = self.guests[number].clone();
        let one = &mut self.hosts[host];
        let Some(runs) = one.plane.ports.get(&port).filter(|_| one.agent.is_some()) else { return };
        if !runs {
            return self.at(self.now + 500, Event::Speak(number));
        }
        let before = one.plane.places.insert((network, station), Place::Local);
        if before != Some(Place::Local) {
            self.input(host, Input::Learned { port, station });
        }
    }

    pub(crate) fn input(&mut self, host: usize, input: Input) {
        let Some(agent) = self.hosts[host].agent.as_mut() else { return };
        let mut out = Outcome::default();
        agent.handle(Time(self.now), input, &mut out);
        for step in out.steps {
            if let Step::Station { network, station, .. } = &step
                && let Some(guest) = self.guest_of.get(&(network.clone(), *station))
                && self.guests[*guest].host == host
            {
                let guest = *guest;
                self.at(self.now + 1000, Event::Speak(guest));
            }
            self.hosts[host].plane.apply(step);
        }
        if let Some(connection) = self.hosts[host].connection {
            for request in out.requests {
                let arrives = self.arrival(host, 0);
                self.at(arrives, Event::ToStore(host, connection, request));
            }
        }
        let is_sooner = |next: &Time| self.hosts[host].tick.is_none_or(|tick| *next < tick);
        if let Some(next) = out.next.filter(is_sooner) {
            self.hosts[host].tick = Some(next);
            let life = self.hosts[host].life;
            self.at(next.0.max(self.now + 1), Event::Tick(host, life));
        }
    }

    fn answer(&mut self, host: usize, connection: u64, input: Input) {
        let arrives = self.arrival(host, 1);
        self.at(arrives, Event::ToHost(host, connection, input));
    }

    fn at_store(&mut self, host: usize, connection: u64, request: Request) {
        if self.hosts[host].connection != Some(connection) || self.hosts[host].is_cut {
            // What was under way when the connection broke may arrive much later.
            if let Request::Commit(txn) = request {
                let later = self.now + self.rng.below(60_000);
                self.at(later, Event::LateCommit(connection, txn));
            }
            return;
        }
        match request {
            Request::Range { scope, at, after } => {
                let page = self.store.range(&scope, at, after.as_deref(), PAGE);
                let input =
                    page.map_or(Input::Compacted(scope.clone()), |page| Input::Page(scope, page));
                self.answer(host, connection, input);
            }
            Request::Watch { scope, from } => self.watch(host, connection, scope, from),
            Request::Unwatch(scope) => {
                self.hosts[host].watches.remove(&scope);
                self.watchers.entry(scope).or_default().remove(&host);
            }
            Request::Commit(txn) => {
                let answer = self.commit(connection, &txn);
                self.answer(host, connection, Input::Answered(txn.id, answer));
            }
        }
    }

    fn watch(&mut self, host: usize, connection: u64, scope: Scope, from: Revision) {
        match self.store.changes_in(&scope, from) {
            Ok(rows) => {
                self.hosts[host].watches.insert(scope.clone(), ());
                self.watchers.entry(scope.clone()).or_default().insert(host);
                let input = Input::Changed(scope, rows, self.store.revision());
                self.answer(host, connection, input);
            }
            Err(_) => {
                self.figures.compactions += 1;
                if self.setup.planted == Some(Break::ClearThenFill) {
                    self.clear(host, connection, &scope);
                }
                self.answer(host, connection, Input::Compacted(scope));
            }
        }
    }

    /// The planted fault: everything of a range seems to be removed.
    fn clear(&mut self, host: usize, connection: u64, scope: &Scope) {
        let revision = self.store.revision();
        let Ok(page) = self.store.range(scope, None, None, usize::MAX) else { return };
        let gone = |row: Entry| Entry { value: None, revision, ..row };
        let rows = page.rows.into_iter().map(gone).collect();
        self.answer(host, connection, Input::Changed(scope.clone(), rows, revision));
    }

    pub(crate) fn commit(&mut self, connection: u64, txn: &Txn) -> Answer {
        let mut txn = txn.clone();
        match self.setup.planted {
            Some(Break::NoCompare) => txn.compares.clear(),
            Some(Break::ClearThenFill) | None => {}
        }
        let before = self.store.revision();
        let answer = self.store.commit(Lease(connection), &txn);
        match answer {
            Answer::Done(_) => self.figures.commits += 1,
            Answer::Conflict(_) | Answer::Failed => self.figures.conflicts += 1,
        }
        self.deliver(before);
        answer
    }

    /// Tells the watchers what changed.
    fn deliver(&mut self, before: Revision) {
        let mut by_scope: BTreeMap<Scope, Vec<Entry>> = BTreeMap::new();
        let Ok(changes) = self.store.changes(before.next()) else { return };
        for entry in changes {
            self.figures.writes += 1;
            if let Some(scope) = scope_of(&entry.key) {
                by_scope.entry(scope).or_default().push(entry);
            }
        }
        for (scope, rows) in by_scope {
            let watchers: Vec<usize> =
                self.watchers.get(&scope).into_iter().flatten().copied().collect();
            for host in watchers {
                let Some(connection) = self.hosts[host].connection else { continue };
                self.figures.deliveries += rows.len() as u64;
                let up_to = self.store.revision();
                self.answer(host, connection, Input::Changed(scope.clone(), rows.clone(), up_to));
            }
        }
    }

    /// What happened so far.
    pub fn figures(&self) -> Figures {
        self.figures
    }
}

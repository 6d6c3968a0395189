//! A host: its agent, its connection to the store, and its data plane.

use std::collections::BTreeMap;

use trama_cluster::agent::{Agent, Config, Step};
use trama_cluster::cache::Cache;
use trama_cluster::key::{Scope, StationKey};
use trama_cluster::{Name, Time};

/// Where frames to a station go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Local,
    At(Name),
}

/// The data plane of a host, which does what the steps say.
#[derive(Default, Debug)]
pub(crate) struct Plane {
    pub(crate) places: BTreeMap<(Name, StationKey), Place>,
    /// Ports that are plugged in, and whether they move frames.
    pub(crate) ports: BTreeMap<Name, bool>,
    pub(crate) blocks: BTreeMap<(Name, std::net::Ipv4Addr), ()>,
    pub(crate) is_shut: bool,
}

impl Plane {
    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Peer { network, host, member: None } => {
                let gone = Place::At(host);
                self.places.retain(|(net, _), place| *net != network || *place != gone);
            }
            Step::Station { network, station, host: Some(host) } => {
                self.places.insert((network, station), Place::At(host));
            }
            Step::Station { network, station, host: None } => {
                self.places.remove(&(network, station));
            }
            Step::Port { port, elsewhere } => {
                self.ports.entry(port).and_modify(|runs| *runs = elsewhere.is_none());
            }
            Step::Block { network, first, is_own: true } => {
                self.blocks.insert((network, first), ());
            }
            Step::Block { network, first, is_own: false } => {
                self.blocks.remove(&(network, first));
            }
            Step::Tunnels { are_open } => self.is_shut = !are_open,
            Step::Peer { .. } | Step::NameTaken(_) => {}
        }
    }
}

/// A host.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) agent: Option<Agent>,
    /// Tells the agents of the host apart.
    pub(crate) life: u64,
    /// The ports that are plugged in, with their networks; they outlive the agent.
    pub(crate) ports: BTreeMap<Name, Name>,
    pub(crate) plane: Plane,
    /// The connection, which is also its lease.
    pub(crate) connection: Option<u64>,
    /// Whether the store is not reached.
    pub(crate) is_cut: bool,
    pub(crate) watches: BTreeMap<Scope, ()>,
    /// When the last message arrives in either direction: none overtakes another.
    pub(crate) arrives: [u64; 2],
    pub(crate) tick: Option<Time>,
    /// A cache that the host wrote, and how far it was informed then.
    pub(crate) saved: (Cache, u64),
    pub(crate) connected_since: Option<u64>,
    /// Up to when the host has heard of everything, before it was cut off last.
    informed: u64,
    /// When it began to take part in a network.
    pub(crate) entered: BTreeMap<Name, u64>,
    pub(crate) is_drained: bool,
}

impl Host {
    pub(crate) fn new(config: Config) -> Host {
        Host {
            config,
            agent: None,
            life: 0,
            ports: BTreeMap::new(),
            plane: Plane::default(),
            connection: None,
            is_cut: false,
            watches: BTreeMap::new(),
            arrives: [0; 2],
            tick: None,
            saved: (Cache::default(), 0),
            connected_since: None,
            informed: 0,
            entered: BTreeMap::new(),
            is_drained: false,
        }
    }

    /// Up to when the host has heard of everything: it takes `bound` to hear.
    pub(crate) fn informed(&self, now: u64, bound: u64) -> u64 {
        match self.connected_since {
            Some(since) if since + bound <= now => now - bound,
            _ => self.informed,
        }
    }

    pub(crate) fn cut_off(&mut self, now: u64, bound: u64) {
        self.informed = self.informed(now, bound);
        self.connected_since = None;
    }

    /// The host knows what its cache says, from now on.
    pub(crate) fn knows_cached(&mut self, now: u64) {
        self.informed = self.saved.1;
        let has = |network: &Name| {
            let is_it = |scope: &Scope| *scope == Scope::Net(network.clone());
            self.saved.0.scopes.iter().any(|cached| is_it(&cached.scope))
        };
        let fresh: Vec<Name> =
            self.entered.keys().filter(|network| !has(network)).cloned().collect();
        self.entered.extend(fresh.into_iter().map(|network| (network, now)));
    }
}

//! What others must be asked for: leases and forwards the gateways, sizes of MAC tables the
//! workers.

use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::time::{Duration, Instant, SystemTime};

use trama_api::state::Address;
use trama_gateway::question::Row;
use trama_gateway::report::LeaseRow;
use trama_switch::{Engine, NetworkId, WorkerHandle};

use crate::changes::Changes;
use crate::config::derived::running::written_name;
use crate::config::model::Network;
use crate::forwards::ForwardAnswer;
use crate::gateway::{Gateway, Pending};
use crate::state::{Daemon, QueryError};

/// For how long answers are used, unless the configuration changes; and if some are missing.
const FRESH: Duration = Duration::from_secs(5);
const FRESH_IN_PART: Duration = Duration::from_millis(900);
/// Networks whose addresses a worker counts between two bursts.
const COUNTED: usize = 64;
/// How long all gateways together may take. One that hangs is told by the network's state.
const PATIENCE: Duration = Duration::from_millis(500);

/// What was answered.
pub(super) struct Asked {
    at: Instant,
    changes: Changes,
    /// Whether each gateway has answered.
    is_whole: bool,
    /// By running network.
    leases: HashMap<String, Vec<LeaseRow>>,
    pub(super) forwards: BTreeMap<String, ForwardAnswer>,
    pub(super) mac_entries: HashMap<String, usize>,
}

impl Asked {
    pub(super) fn is_fresh(&self, daemon: &Daemon) -> bool {
        let fresh = if self.is_whole { FRESH } else { FRESH_IN_PART };
        self.at.elapsed() < fresh && self.changes == daemon.lock().changes
    }

    pub(super) fn ask(daemon: &Daemon) -> Asked {
        let config = daemon.config().expanded();
        let (mut leases, mut forwards, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        let changes = {
            let inner = daemon.lock();
            for network in &config.networks {
                let Some(running) = inner.data_plane.networks.get(&network.name) else { continue };
                tables.push((network.name.clone(), running.worker, running.id));
                let Some(gateway) = &running.gateway else { continue };
                if network.has_dhcp() {
                    leases.push(question::<LeaseRow>(network, gateway));
                }
                if !network.forward.is_empty() {
                    forwards.push(question(network, gateway));
                }
            }
            inner.changes
        };
        // The lock is released: others need not wait for these answers.
        let mac_entries = count(&daemon.workers(), tables);
        let until = Instant::now() + PATIENCE;
        let wanted = leases.len();
        let leases = leases.into_iter().filter_map(|(name, pending)| {
            Some((name, pending.wait(until.saturating_duration_since(Instant::now())).ok()?))
        });
        let leases: HashMap<_, _> = leases.collect();
        let forwards = forwards.into_iter().map(|(name, pending)| {
            let answer = pending.wait(until.saturating_duration_since(Instant::now()));
            let network = name.clone();
            (name, answer.map_err(|error| QueryError::NoAnswer { network, error }))
        });
        let forwards: BTreeMap<_, ForwardAnswer> = forwards.collect();
        let is_whole = leases.len() == wanted && forwards.values().all(Result::is_ok);
        Asked { at: Instant::now(), changes, is_whole, leases, forwards, mac_entries }
    }

    /// Returns the leased addresses by network and mark of the port.
    pub(super) fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::default();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let asked = now.saturating_sub(self.at.elapsed()).as_secs();
        for (network, rows) in &self.leases {
            for row in rows.iter().filter(|row| row.port != 0) {
                let key = (Some(written_name(network).to_owned()), row.port as u16);
                addresses.0.entry(key).or_default().push(Address {
                    address: row.address,
                    state: row.state.name().into(),
                    name: row.name.clone(),
                    until: row.left.map(|left| asked + left),
                });
            }
        }
        addresses
    }
}

/// Counts the addresses of networks, each with its worker: of several at once, and a part of each
/// at a time, so that no frame waits for long.
fn count(
    workers: &[WorkerHandle],
    mut tables: Vec<(String, usize, NetworkId)>,
) -> HashMap<String, usize> {
    tables.sort_by_key(|(_, worker, _)| *worker);
    let mut counted = HashMap::new();
    for of_worker in tables.chunk_by(|(_, a, _), (_, b, _)| a == b) {
        for some in of_worker.chunks(COUNTED) {
            let ids: Vec<NetworkId> = some.iter().map(|(.., id)| *id).collect();
            for (part, worker) in (0..).zip(iter::repeat(&workers[some[0].1])) {
                let ids = ids.clone();
                let count = move |engine: &mut Engine, now| {
                    let count = |id: NetworkId| engine.count_macs(id, part, now);
                    ids.into_iter().map(count).collect::<Vec<_>>()
                };
                let Ok(counts) = worker.call(count) else { break };
                for ((name, ..), count) in some.iter().zip(&counts) {
                    *counted.entry(name.clone()).or_default() += count.unwrap_or_default();
                }
                if counts.iter().all(Option::is_none) {
                    break;
                }
            }
        }
    }
    counted
}

fn question<R: Row>(network: &Network, gateway: &Gateway) -> (String, Pending<R>) {
    (network.name.clone(), gateway.ask())
}

/// Addresses by network and mark of the port.
#[derive(Default)]
pub(super) struct Addresses(HashMap<(Option<String>, u16), Vec<Address>>);

impl Addresses {
    /// Takes those of a port.
    pub(super) fn remove(&mut self, port: &(Option<String>, u16)) -> Vec<Address> {
        self.0.remove(port).unwrap_or_default()
    }
}

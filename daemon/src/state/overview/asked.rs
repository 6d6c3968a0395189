//! What others must be asked for: leases and forwards the gateways, sizes of MAC tables the
//! workers.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use trama_api::state::Address;
use trama_gateway::question::Row;
use trama_gateway::report::LeaseRow;

use crate::changes::Changes;
use crate::config::derived::running::written_name;
use crate::config::model::Network;
use crate::forwards::ForwardAnswer;
use crate::gateway::{Gateway, Pending};
use crate::state::{Daemon, QueryError};

/// For how long an answer is used, unless the configuration changes.
const FRESH: Duration = Duration::from_secs(5);
/// How long all gateways together may take. One that hangs is told by the network's state.
const PATIENCE: Duration = Duration::from_millis(500);

/// What was answered.
pub(super) struct Asked {
    at: Instant,
    changes: Changes,
    /// By running network.
    leases: HashMap<String, Vec<LeaseRow>>,
    pub(super) forwards: BTreeMap<String, ForwardAnswer>,
    pub(super) mac_entries: HashMap<String, usize>,
}

impl Asked {
    pub(super) fn is_fresh(&self, daemon: &Daemon) -> bool {
        self.at.elapsed() < FRESH && self.changes == daemon.lock().changes
    }

    pub(super) fn ask(daemon: &Daemon) -> Asked {
        let config = daemon.config().expanded();
        let (mut leases, mut forwards, mut mac_entries) = (Vec::new(), Vec::new(), HashMap::new());
        let changes = {
            let inner = daemon.lock();
            for network in &config.networks {
                let Some(running) = inner.data_plane.networks.get(&network.name) else { continue };
                mac_entries.insert(network.name.clone(), inner.data_plane.mac_entries(running));
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
        let until = Instant::now() + PATIENCE;
        let leases = leases.into_iter().filter_map(|(name, pending)| {
            Some((name, pending.wait(until.saturating_duration_since(Instant::now())).ok()?))
        });
        let leases = leases.collect();
        let forwards = forwards.into_iter().map(|(name, pending)| {
            let answer = pending.wait(until.saturating_duration_since(Instant::now()));
            let network = name.clone();
            (name, answer.map_err(|error| QueryError::NoAnswer { network, error }))
        });
        Asked { at: Instant::now(), changes, leases, forwards: forwards.collect(), mac_entries }
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

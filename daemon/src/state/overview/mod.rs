//! All that is configured and runs, in one piece: `GET /v1/state`.
//!
//! What is in the daemon's own memory is read each time, under the lock. What others must be asked
//! for, gateways and workers, is asked again only when it is a few seconds old ([`Asked`]).

mod asked;
mod flows;
mod networks;
mod ports;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use trama_api::state::{Address, State};
use trama_api::top::Numbers;
use trama_switch::DropReason;

use super::Daemon;

use asked::Asked;

/// What was asked for last; shared by all who look.
#[derive(Default)]
pub(crate) struct Overview {
    asked: Mutex<Option<Arc<Asked>>>,
    /// Flows are many: they are gathered for one caller at a time.
    flows: Mutex<()>,
}

impl Overview {
    /// Returns everything. Blocks for a moment if gateways must be asked.
    pub(crate) fn state(&self, daemon: &Daemon) -> State {
        let asked = self.asked(daemon);
        let config = daemon.config();
        let ofports = daemon.number_ports(&config);
        let inner = daemon.lock();
        let plane = &inner.data_plane;
        let drops = plane.last_drops.by_port();
        let (mut ports, mut own, mut addresses) = (Vec::new(), HashMap::new(), asked.addresses());
        let now = Instant::now();
        let mut numbers = plane.numbers(&inner.config, None, |port, status| {
            if port.of_network {
                own.insert(port.name.clone(), status.clone());
                return;
            }
            let mut told = ports::port(port, status);
            told.ofport = ofports.get(&port.name).copied().unwrap_or_default().into();
            told.addresses.extend(addresses.remove(&(told.network.clone(), status.mark)));
            told.addresses.sort_by_key(|it: &Address| it.address);
            let id = plane.ports.get(&port.name).map(|running| running.id);
            let last = id.and_then(|id| drops.get(&id)).into_iter().flatten();
            told.last_drops = last.map(|drop| ports::last_drop(drop, now)).collect();
            told.last_drops.sort_by(|a, b| a.reason.cmp(&b.reason));
            ports.push(told);
        });
        numbers.ports.retain(|port| !own.contains_key(&port.name));
        let networks = networks::networks(plane, &inner.config, &own, &asked);
        State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host_name(),
            uptime_s: daemon.started.elapsed().as_secs(),
            reasons: reasons(&numbers),
            numbers,
            networks,
            ports,
        }
    }

    fn asked(&self, daemon: &Daemon) -> Arc<Asked> {
        let mut last = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(asked) if asked.is_fresh(daemon) => asked.clone(),
            _ => last.insert(Arc::new(Asked::ask(daemon))).clone(),
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// What to do about each reason for which frames were dropped.
fn reasons(numbers: &Numbers) -> BTreeMap<String, String> {
    let names = numbers.ports.iter().flat_map(|port| &port.drops).map(|(reason, _)| reason);
    let describe = |name: &str| {
        let own = DropReason::ALL.iter().find(|reason| reason.name() == name);
        let gateway = || trama_gateway::DropReason::named(name).map(|reason| reason.describe());
        own.map(|reason| reason.describe()).or_else(gateway)
    };
    names.filter_map(|name| Some((name.to_string(), describe(name)?.to_owned()))).collect()
}

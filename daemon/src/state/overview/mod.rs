//! All that is configured and runs, in one piece: `GET /v1/state`.
//!
//! What is in the daemon's own memory is read each time, under the lock. What others must be asked
//! for, gateways and workers, is asked again only when it is a few seconds old ([`Asked`]).

mod asked;
mod networks;
mod ports;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use trama_api::state::{Address, Flow, Flows, State};
use trama_api::top::Numbers;
use trama_switch::DropReason;

use super::{Daemon, QueryError};
use crate::config::derived::running::is_part_of;

use asked::Asked;

/// What was asked for last; shared by all who look.
#[derive(Default)]
pub(crate) struct Overview(Mutex<Option<Arc<Asked>>>);

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
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

impl Overview {
    /// Returns the flows through a network's NAT.
    ///
    /// # Errors
    /// There is no such network, it has no NAT, or its gateway does not answer.
    pub(crate) fn flows(&self, daemon: &Daemon, network: &str) -> Result<Flows, QueryError> {
        let config = daemon.config();
        let written = config.network(network);
        let written = written.ok_or_else(|| QueryError::NoNetwork(network.to_owned()))?;
        if !written.has_nat() {
            return Err(QueryError::NoNat(network.to_owned()));
        }
        let parts = config.running_names();
        let mut flows = Vec::<Flow>::new();
        for part in parts.iter().filter(|part| is_part_of(part, network)) {
            flows.extend(daemon.ask(part)?.into_iter().map(|row| flow(part, row)));
        }
        let ports = self.state(daemon).ports.into_iter();
        let ports = ports.filter(|port| port.network.as_deref() == Some(network));
        let ports: HashMap<IpAddr, String> = ports
            .flat_map(|port| {
                port.addresses.into_iter().map(move |it| (it.address, port.name.clone()))
            })
            .collect();
        for flow in &mut flows {
            let alone = flow.network.split_once('/').map(|(_, port)| port.to_owned());
            flow.port = alone.or_else(|| {
                let guest: SocketAddr = flow.guest.parse().ok()?;
                ports.get(&guest.ip()).cloned()
            });
        }
        flows.sort_by(|a, b| {
            (&a.network, &a.protocol, &a.guest).cmp(&(&b.network, &b.protocol, &b.guest))
        });
        Ok(Flows { flows })
    }
}

fn flow(network: &str, row: trama_gateway::report::FlowRow) -> Flow {
    Flow {
        network: network.to_owned(),
        port: None,
        protocol: row.protocol,
        guest: row.guest.to_string(),
        remote: row.remote.map(|remote| remote.to_string()),
        state: row.state,
        bytes_up: row.sent,
        bytes_down: row.received,
        idle_s: row.idle,
    }
}

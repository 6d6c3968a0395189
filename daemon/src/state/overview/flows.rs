//! The flows through a network's NAT: `GET /v1/flows`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use trama_api::state::{Flow, Flows, FlowsOf};
use trama_gateway::report::FlowRow;

use super::Overview;
use crate::config::derived::running::is_part_of;
use crate::config::model::Config;
use crate::state::{Daemon, QueryError};

/// How long all gateways of the network together may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most flows that are told: those that have moved most.
const MOST: usize = 1000;

impl Overview {
    /// Returns the flows through a network's NAT, or those of a port.
    ///
    /// # Errors
    /// There is no such network, or it has no NAT.
    pub(crate) fn flows(&self, daemon: &Daemon, of: &FlowsOf) -> Result<Flows, QueryError> {
        let _turn = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, FlowsOf { network, port }) = (daemon.config(), of);
        let written = config.network(network);
        let written = written.ok_or_else(|| QueryError::NoNetwork(network.clone()))?;
        if !written.has_nat() {
            return Err(QueryError::NoNat(network.clone()));
        }
        let ports = ports_of(daemon, &config, network);
        let parts = config.running_names().into_iter().filter(|part| is_part_of(part, network));
        let asked: Vec<_> = parts.map(|part| (daemon.begin_to_ask(&part), part)).collect();
        let until = Instant::now() + PATIENCE;
        let (mut flows, mut unanswered) = (Vec::new(), Vec::new());
        for (pending, part) in asked {
            let left = until.saturating_duration_since(Instant::now());
            match pending.map(|pending| pending.wait(left)) {
                Ok(Ok(rows)) => flows.extend(rows.into_iter().map(|row| flow(&part, row, &ports))),
                // The others' flows are there.
                Ok(Err(_)) | Err(_) => unanswered.push(part),
            }
        }
        if port.is_some() {
            flows.retain(|flow| flow.port == *port);
        }
        let total = flows.len();
        flows.sort_by_cached_key(|flow| {
            let end = (flow.network.clone(), flow.protocol.clone(), flow.guest.clone());
            (Reverse(flow.bytes_up.saturating_add(flow.bytes_down)), end)
        });
        flows.truncate(MOST);
        Ok(Flows { flows, total, unanswered })
    }
}

/// The ports of a network by their marks.
fn ports_of(daemon: &Daemon, config: &Config, network: &str) -> HashMap<u64, String> {
    let inner = daemon.lock();
    let on = config.ports.iter().filter(|port| port.is_on(network));
    let marked = on.filter_map(|port| {
        let running = inner.data_plane.ports.get(&port.name)?;
        Some((running.settings.mark.into(), port.name.clone()))
    });
    marked.collect()
}

fn flow(network: &str, row: FlowRow, ports: &HashMap<u64, String>) -> Flow {
    // One of mode `nat` is the port's alone.
    let alone = network.split_once('/').map(|(_, port)| port.to_owned());
    Flow {
        network: network.to_owned(),
        port: alone.or_else(|| ports.get(&row.port).cloned()),
        protocol: row.protocol,
        guest: row.guest.to_string(),
        remote: row.remote.map(|remote| remote.to_string()),
        state: row.state,
        bytes_up: row.sent,
        bytes_down: row.received,
        idle_s: row.idle,
    }
}

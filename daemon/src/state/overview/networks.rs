//! Networks, as a picture shows them.

use std::collections::HashMap;

use trama_api::state::{Forward, Gateway, Mirror, Network as Told, Uplink};

use super::asked::Asked;
use crate::apply::{DataPlane, RunningNetwork};
use crate::config::derived::running::{is_part_of, written_name};
use crate::config::model::{Config, Interface, Mode, Network, Tap};
use crate::forwards::{Line, with_idle};
use crate::status::{PortCounts, PortStatus};

/// Tells of all networks; `own` has the status of the ports that they create.
pub(super) fn networks(
    plane: &DataPlane,
    config: &Config,
    own: &HashMap<String, PortStatus>,
    asked: &Asked,
) -> Vec<Told> {
    let running = with_idle(config);
    let mut forwards: HashMap<&str, Vec<Forward>> = HashMap::new();
    for network in &running {
        let of_network = forwards.entry(written_name(&network.name)).or_default();
        let answer = asked.forwards.get(&network.name);
        of_network.extend(network.forward.iter().map(|rule| {
            let port = port_of(config, network, &rule.label());
            forward(Line::of(network, rule, answer), rule.to_string(), port)
        }));
    }
    let mut parts: HashMap<&str, Vec<(&str, &RunningNetwork)>> = HashMap::new();
    for network in &running {
        let part = plane.networks.get(&network.name).map(|it| (network.name.as_str(), it));
        parts.entry(written_name(&network.name)).or_default().extend(part);
    }
    let told = config.networks.iter().map(|network| {
        let parts = parts.remove(network.name.as_str()).unwrap_or_default();
        let told = one(network, &parts, own.get(&network.name), asked);
        let forwards = forwards.remove(network.name.as_str()).unwrap_or_default();
        Told { forwards, mirrors: mirrors(config, &network.name), ..told }
    });
    told.collect()
}

fn one(
    network: &Network,
    parts: &[(&str, &RunningNetwork)],
    own: Option<&PortStatus>,
    asked: &Asked,
) -> Told {
    let port = network.network_port().map(|port| port.interface);
    let (uplink, host_addresses) = match &port {
        Some(Interface::Uplink(it)) => {
            let running = own.is_some_and(|status| status.not_running.is_none());
            (Some(Uplink { ifname: it.ifname.clone(), running }), Vec::new())
        }
        Some(Interface::Tap(Tap { address, .. })) => {
            (None, address.iter().map(ToString::to_string).collect())
        }
        _ => (None, Vec::new()),
    };
    let gateway = network.has_gateway().then(|| gateway(network, parts));
    let edges = parts.iter().filter_map(|(_, part)| part.gateway.as_ref());
    let edges = edges.map(|gateway| {
        let counts = gateway.counters().snapshot();
        [counts.tx_bytes, counts.rx_bytes]
    });
    let own_edge =
        own.map(|PortStatus { counters: PortCounts { tx_bytes, rx_bytes, .. }, .. }| {
            [*tx_bytes, *rx_bytes]
        });
    Told {
        name: network.name.clone(),
        mode: network.mode.name().into(),
        subnets: network.subnets().iter().map(ToString::to_string).collect(),
        mtu: network.mtu,
        worker: parts.first().map(|(_, part)| part.worker),
        mac_entries: parts.iter().filter_map(|(name, _)| asked.mac_entries.get(*name)).sum(),
        error: own.and_then(PortStatus::trouble).map(str::to_owned),
        uplink,
        host_addresses,
        gateway,
        edge: edges.chain(own_edge).fold([0, 0], |[to, from], edge| [to + edge[0], from + edge[1]]),
        forwards: Vec::new(),
        mirrors: Vec::new(),
    }
}

/// The mirrors of a network.
fn mirrors(config: &Config, network: &str) -> Vec<Mirror> {
    let of_network = config.mirrors.iter().filter(|it| it.network.as_deref() == Some(network));
    let told = of_network.map(|mirror| Mirror {
        name: mirror.name.clone(),
        all: mirror.select_all,
        from: mirror.select_src_port.iter().cloned().collect(),
        to: mirror.select_dst_port.iter().cloned().collect(),
        vlans: mirror.select_vlan.iter().copied().collect(),
        output_port: mirror.output_port.clone(),
        output_vlan: mirror.output_vlan,
    });
    told.collect()
}

/// The gateways of a network's parts, together.
fn gateway(network: &Network, parts: &[(&str, &RunningNetwork)]) -> Gateway {
    let addresses = network.subnets().into_iter().map(|subnet| network.well_known(subnet).gateway);
    // One of mode `nat` without ports has none, and none is missing.
    let has_none = parts.is_empty() && network.mode == Mode::Nat;
    let all_run = parts.iter().all(|(_, part)| part.gateway.is_some());
    let up = has_none || (all_run && !parts.is_empty());
    let mut told = Gateway { up, addresses: addresses.collect(), ..Gateway::default() };
    for gateway in parts.iter().filter_map(|(_, part)| part.gateway.as_ref()) {
        let status = gateway.status();
        let counters = status.counters;
        told.count += 1;
        told.up &= status.process.is_some();
        told.restarts += status.restarts;
        told.last_error = told.last_error.or(status.last_error);
        told.lease_error = told.lease_error.or(counters.lease_store);
        for dhcp in counters.dhcp.iter().chain(&counters.dhcp6) {
            // The fullest service: another one with room does not help its clients.
            if told.pool == 0 || dhcp.leases * told.pool > told.leases * dhcp.pool {
                (told.leases, told.pool) = (dhcp.leases, dhcp.pool);
            }
        }
        for (protocol, count) in counters.nat.into_iter().flat_map(|nat| nat.flows) {
            *told.flows.entry(protocol).or_default() += count;
        }
    }
    told
}

/// The port whose forward it is that has this name on a running network.
fn port_of(config: &Config, network: &Network, name: &str) -> Option<String> {
    let has = |port: &&crate::config::model::Port| port.forward.iter().any(|it| it.label() == name);
    let ports = config
        .ports
        .iter()
        .filter(|port| port.network.as_deref().is_some_and(|on| is_part_of(&network.name, on)));
    let runs_there = |port: &&crate::config::model::Port| match network.name.split_once('/') {
        Some((_, alone)) => port.name == alone,
        None => true,
    };
    ports.filter(runs_there).find(has).map(|port| port.name.clone())
}

fn forward(line: Line, rule: String, port: Option<String>) -> Forward {
    Forward {
        name: line.name,
        rule,
        protocol: line.protocol.to_owned(),
        host: line.host,
        guest: line.guest,
        client: line.client.to_owned(),
        status: line.status,
        port,
    }
}

//! The metrics in the Prometheus text format.
//!
//! A scrape reads the counters that the workers keep anyway, with relaxed loads, and the control
//! thread makes the text. Names are part of the contract with users. A port's counters start at
//! zero when its device is made again, which Prometheus treats as a counter reset.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

use crate::confinement;
use crate::crashes::Restarts;
use crate::panics;
use crate::state::Daemon;
use crate::status::{PortStatus, Status};

/// Name, help text and value of a port's counter.
type PortCounter = (&'static str, &'static str, fn(&PortStatus) -> u64);

/// Counters labelled by network and port.
const PORT_COUNTERS: [PortCounter; 9] = [
    ("trama_port_rx_frames_total", "Frames that entered the switch from the port.", |p| {
        p.counters.rx_frames
    }),
    ("trama_port_rx_bytes_total", "Bytes that entered the switch from the port.", |p| {
        p.counters.rx_bytes
    }),
    ("trama_port_tx_frames_total", "Frames that the port was given.", |p| p.counters.tx_frames),
    ("trama_port_tx_bytes_total", "Bytes that the port was given.", |p| p.counters.tx_bytes),
    ("trama_port_rx_gso_frames_total", "Frames beyond the MTU, to be cut later, from it.", |p| {
        p.counters.other("rx_gso_frames")
    }),
    ("trama_port_tx_gso_frames_total", "Frames beyond the MTU that it was given whole.", |p| {
        p.counters.other("tx_gso_frames")
    }),
    ("trama_port_software_gso_frames_total", "Frames cut in software for the port.", |p| {
        p.counters.other("software_gso_frames")
    }),
    ("trama_port_software_checksum_frames_total", "Checksums made in software for it.", |p| {
        p.counters.other("software_checksum_frames")
    }),
    ("trama_port_flooded_frames_total", "Frames from it that went to all of their VLAN.", |p| {
        p.counters.other("flooded_frames")
    }),
];

/// Counters of vhost-user ports, labelled by port.
const VHOST_COUNTERS: [PortCounter; 2] = [
    ("trama_vhost_kicks_total", "Times the driver woke the switch.", |p| p.counters.other("kicks")),
    ("trama_vhost_calls_total", "Times the switch woke the driver.", |p| p.counters.other("calls")),
];

/// Returns the current metrics in the Prometheus text format.
pub fn render(daemon: &Daemon) -> String {
    text(&daemon.status()).unwrap_or_else(|error| {
        tracing::error!("metrics: {error}");
        String::new()
    })
}

fn text(status: &Status) -> prometheus::Result<String> {
    let mut families = ports(status)?;
    families.extend(networks_and_workers(status)?);
    families.extend(gateways(status)?);
    families.extend(sandbox()?);
    let mut text = String::new();
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_utf8(&families, &mut text)?;
    Ok(text)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

/// What restricts the processes, and what does not although it should.
fn sandbox() -> prometheus::Result<Vec<MetricFamily>> {
    let help = "1 for each part of the sandbox that is not in force.";
    let missing = gauges("trama_sandbox_missing", help, &["part"])?;
    for part in confinement::missing() {
        missing.with_label_values(&[&part]).set(1);
    }
    let info = gauges("trama_sandbox_info", "What restricts tramad, in words.", &["in_force"])?;
    if let Some(text) = confinement::in_force() {
        info.with_label_values(&[text]).set(1);
    }
    Ok([missing.collect(), info.collect()].concat())
}

fn ports(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    let of = |port: &PortStatus| [port.network.clone().unwrap_or_default(), port.name.clone()];
    for (name, help, value) in PORT_COUNTERS {
        let family = counters(name, help, &["network", "port"])?;
        for port in &status.ports {
            family.with_label_values(&of(port)).inc_by(value(port));
        }
        families.extend(family.collect());
    }
    let help = "Connections that the port's socket has had; not of datagram ports.";
    let connects = counters("trama_port_connects_total", help, &["network", "port"])?;
    for port in &status.ports {
        let of_socket = port.socket.as_ref().and_then(|socket| socket.connects);
        if let Some(count) = port.vhost.as_ref().map(|session| session.connects).or(of_socket) {
            connects.with_label_values(&of(port)).inc_by(count);
        }
    }
    families.extend(connects.collect());
    let help = "Frames dropped, by reason; those on the way out count at the port out.";
    let drops = counters("trama_port_drops_total", help, &["network", "port", "reason"])?;
    let help = "Frames of the port that its network's gateway refused, by reason.";
    let labels = ["network", "port", "reason"];
    let refused = counters("trama_port_gateway_drops_total", help, &labels)?;
    let running = gauges("trama_port_running", "1 if the port runs.", &["network", "port"])?;
    let help = "1 for each kind of flooded frames of which the port sends more than it may.";
    let storm = gauges("trama_port_storm", help, &["network", "port", "kind"])?;
    let help = "1 if the port is blocked because of a loop.";
    let blocked = gauges("trama_port_loop_blocked", help, &["network", "port"])?;
    let help = "1 while the port is left out, because it has made the switch crash.";
    let left_out = gauges("trama_port_left_out", help, &["port"])?;
    let link = gauges("trama_port_link", "1 if frames can pass the port.", &["network", "port"])?;
    for port in &status.ports {
        let [network, name] = of(port);
        // A reason that never counted has no series: at a thousand ports that is most of them.
        for (reason, count) in port.counters.drops.iter().filter(|(_, count)| *count > 0) {
            drops.with_label_values(&[&network, &name, *reason]).inc_by(*count);
        }
        for (reason, count) in &port.counters.gateway_drops {
            refused.with_label_values(&[&network, &name, reason]).inc_by(*count);
        }
        running.with_label_values(&of(port)).set(i64::from(port.not_running.is_none()));
        link.with_label_values(&of(port)).set(i64::from(port.link));
        if port.left_out {
            left_out.with_label_values(&[&name]).set(1);
        }
        if port.loop_block.is_some() {
            blocked.with_label_values(&of(port)).set(1);
        }
        for kind in &port.storms {
            storm.with_label_values(&[&network, &name, *kind]).set(1);
        }
    }
    families.extend(drops.collect());
    families.extend(refused.collect());
    families.extend(running.collect());
    families.extend(left_out.collect());
    families.extend(link.collect());
    families.extend(storm.collect());
    families.extend(blocked.collect());
    let help = "Guest memory that is mapped, and what the daemon was the first to touch of it.";
    let memory = gauges("trama_port_memory_bytes", help, &["port", "kind"])?;
    for (port, vhost) in status.ports.iter().filter_map(|p| Some((p, p.vhost.as_ref()?))) {
        for (kind, bytes) in
            [("mapped", vhost.memory_mapped), ("populated", vhost.memory_populated)]
        {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            memory.with_label_values(&[&*port.name, kind]).set(bytes);
        }
    }
    families.extend(memory.collect());
    for (name, help, value) in VHOST_COUNTERS {
        let family = counters(name, help, &["port"])?;
        for port in status.ports.iter().filter(|port| port.vhost.is_some()) {
            family.with_label_values(&[&port.name]).inc_by(value(port));
        }
        families.extend(family.collect());
    }
    Ok(families)
}

fn networks_and_workers(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let entries = gauges("trama_mac_entries", "MAC addresses that are known.", &["network"])?;
    for network in &status.networks {
        let count = i64::try_from(network.mac_entries).unwrap_or(i64::MAX);
        entries.with_label_values(&[&network.name]).set(count);
    }
    let place = gauges("trama_network_worker", "Number of the worker it is on.", &["network"])?;
    let help = "Time that workers spent on its frames.";
    let spent = Opts::new("trama_network_busy_seconds_total", help);
    let spent = CounterVec::new(spent, &["network"])?;
    for network in &status.networks {
        let label = [network.name.as_str()];
        place.with_label_values(&label).set(i64::try_from(network.worker).unwrap_or(i64::MAX));
        spent.with_label_values(&label).inc_by(network.busy.as_secs_f64());
    }
    let help = "Time that the worker spent on frames.";
    let busy = CounterVec::new(Opts::new("trama_worker_busy_seconds_total", help), &["worker"])?;
    let wakeups = counters("trama_worker_wakeups_total", "Times the worker woke.", &["worker"])?;
    let bursts = counters("trama_worker_bursts_total", "Bursts of frames taken.", &["worker"])?;
    for worker in &status.workers {
        let label = [worker.worker.to_string()];
        busy.with_label_values(&label).inc_by(worker.busy.as_secs_f64());
        wakeups.with_label_values(&label).inc_by(worker.wakeups);
        bursts.with_label_values(&label).inc_by(worker.bursts);
    }
    let help =
        "Times that a process has followed another one as the switch, by the other one's end.";
    let restarts = counters("trama_switch_restarts_total", help, &["reason"])?;
    let Restarts { crash, killed, upgrade } = status.restarts;
    for (reason, count) in [("crash", crash), ("killed", killed), ("upgrade", upgrade)] {
        restarts.with_label_values(&[reason]).inc_by(count);
    }
    let build = gauges("trama_build_info", "1; the labels tell the build.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let mut families = entries.collect();
    families.extend(place.collect());
    families.extend(spent.collect());
    families.extend(busy.collect());
    families.extend(wakeups.collect());
    families.extend(bursts.collect());
    families.extend(build.collect());
    families.extend(restarts.collect());
    let help = "Requests to the control API that failed inside the daemon.";
    let failed = counters("trama_api_failures_total", help, &[])?;
    failed.with_label_values::<&str>(&[]).inc_by(panics::tolerated());
    families.extend(failed.collect());
    Ok(families)
}

fn gateways(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let up = gauges("trama_gateway_up", "1 if the gateway answers.", &["network"])?;
    let help = "Times that the gateway's process was replaced.";
    let restarts = counters("trama_gateway_restarts_total", help, &["network"])?;
    let help = "Frames that the gateway's process took (rx) and sent (tx).";
    let frames = counters("trama_gateway_frames_total", help, &["network", "direction"])?;
    let help = "Frames that the gateway's process refused, by reason.";
    let drops = counters("trama_gateway_drops_total", help, &["network", "reason"])?;
    for network in &status.networks {
        let Some(gateway) = &network.gateway else { continue };
        let name = network.name.as_str();
        up.with_label_values(&[name]).set(i64::from(gateway.process.is_some()));
        restarts.with_label_values(&[name]).inc_by(gateway.restarts);
        frames.with_label_values(&[name, "rx"]).inc_by(gateway.counters.received);
        frames.with_label_values(&[name, "tx"]).inc_by(gateway.counters.sent);
        for (reason, count) in &gateway.counters.drops {
            drops.with_label_values(&[name, reason.as_str()]).inc_by(*count);
        }
    }
    let dhcp = dhcp(status)?;
    let flows = gauges("trama_nat_flows", "Flows through the NAT.", &["network", "protocol"])?;
    let help = "Forwards, by whether they listen or are pending.";
    let forwards = gauges("trama_nat_forwards", help, &["network", "state"])?;
    for network in &status.networks {
        let nat = network.gateway.as_ref().and_then(|gateway| gateway.counters.nat.as_ref());
        let (Some(nat), name) = (nat, network.name.as_str()) else { continue };
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (protocol, count) in &nat.flows {
            flows.with_label_values(&[name, protocol.as_str()]).set(number(*count));
        }
        for (state, count) in [("listening", nat.listening), ("pending", nat.pending)] {
            forwards.with_label_values(&[name, state]).set(number(count));
        }
    }
    let mut families = up.collect();
    families.extend(dhcp);
    families.extend(flows.collect());
    families.extend(forwards.collect());
    families.extend(restarts.collect());
    families.extend(frames.collect());
    families.extend(drops.collect());
    Ok(families)
}

fn dhcp(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "Leases that the gateway's DHCP server has in force.";
    let leases = gauges("trama_dhcp_leases", help, &["network"])?;
    let help = "Addresses in the ranges of the gateway's DHCP server.";
    let pool = gauges("trama_dhcp_pool", help, &["network"])?;
    let help = "DHCP messages of clients (rx) and of the gateway (tx), by type.";
    let messages = counters("trama_dhcp_messages_total", help, &["network", "direction", "type"])?;
    let help = "DHCP messages that were not answered, by reason.";
    let refused = counters("trama_dhcp_refused_total", help, &["network", "reason"])?;
    let help = "Leases that the gateway's DHCPv6 server has in force.";
    let leases6 = gauges("trama_dhcp6_leases", help, &["network"])?;
    let help = "Addresses in the ranges of the gateway's DHCPv6 server.";
    let pool6 = gauges("trama_dhcp6_pool", help, &["network"])?;
    let help = "DHCPv6 messages of clients (rx) and of the gateway (tx), by type.";
    let labels = ["network", "direction", "type"];
    let messages6 = counters("trama_dhcp6_messages_total", help, &labels)?;
    let help = "DHCPv6 messages that got no answer or no address, by reason.";
    let refused6 = counters("trama_dhcp6_refused_total", help, &["network", "reason"])?;
    let help = "1 if no address is leased because the lease store cannot be written.";
    let failed = gauges("trama_dhcp_store_failed", help, &["network"])?;
    let servers =
        [(&leases, &pool, &messages, &refused), (&leases6, &pool6, &messages6, &refused6)];
    for network in &status.networks {
        let Some(gateway) = &network.gateway else { continue };
        let (counted, name) = (&gateway.counters, network.name.as_str());
        for (server, of) in [&counted.dhcp, &counted.dhcp6].into_iter().zip(servers) {
            let (Some(server), (leases, pool, messages, refused)) = (server, of) else { continue };
            let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            leases.with_label_values(&[name]).set(number(server.leases));
            pool.with_label_values(&[name]).set(number(server.pool));
            for (direction, by_type) in [("rx", &server.received), ("tx", &server.sent)] {
                for (kind, count) in by_type {
                    messages.with_label_values(&[name, direction, kind.as_str()]).inc_by(*count);
                }
            }
            for (reason, count) in &server.refused {
                refused.with_label_values(&[name, reason.as_str()]).inc_by(*count);
            }
        }
        if counted.dhcp.is_some() || counted.dhcp6.is_some() || counted.lease_store.is_some() {
            failed.with_label_values(&[name]).set(i64::from(counted.lease_store.is_some()));
        }
    }
    let mut families = Vec::new();
    for (leases, pool, messages, refused) in servers {
        families.extend(leases.collect());
        families.extend(pool.collect());
        families.extend(messages.collect());
        families.extend(refused.collect());
    }
    families.extend(failed.collect());
    Ok(families)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gateway::GatewayStatus;
    use crate::status::{NetworkStatus, PortCounts, VhostStatus, WorkerStatus};

    fn port(name: &str, network: Option<&str>, vhost: bool) -> PortStatus {
        let counters = PortCounts {
            rx_frames: 7,
            drops: vec![("runt", 2), ("hairpin", 0)],
            gateway_drops: vec![("new_flow_share".into(), 6)],
            others: vec![("kicks", 3)],
            ..PortCounts::default()
        };
        let session = VhostStatus {
            path: "/x".into(),
            state: "connected",
            last_error: None,
            connects: 5,
            features: 0,
            queue_pairs: 1,
            peer: None,
            waiting: Vec::new(),
            memory_mapped: 8 << 20,
            memory_populated: 4096,
        };
        PortStatus {
            name: name.into(),
            network: network.map(Into::into),
            not_running: (!vhost).then(|| "busy".into()),
            not_in_force: None,
            left_out: !vhost,
            link: vhost,
            vhost: vhost.then_some(session),
            socket: None,
            mac: None,
            loop_block: vhost.then(|| "blocked".to_owned()),
            storms: if vhost { vec!["broadcast"] } else { Vec::new() },
            mark: 0,
            counters,
        }
    }

    #[test]
    fn the_text_has_the_names_of_the_contract() {
        let mut gateway = GatewayStatus { process: Some(9), restarts: 2, ..Default::default() };
        gateway.counters.received = 8;
        gateway.counters.drops.insert("bad_arp".into(), 3);
        gateway.counters.dhcp = Some(trama_gateway::report::DhcpStatus {
            leases: 5,
            pool: 154,
            received: [("discover".into(), 6)].into(),
            sent: [("offer".into(), 7)].into(),
            refused: [("port_full".into(), 8)].into(),
        });
        gateway.counters.dhcp6 = Some(trama_gateway::report::DhcpStatus {
            leases: 9,
            pool: 4096,
            received: [("solicit".into(), 10)].into(),
            ..Default::default()
        });
        gateway.counters.lease_store = Some("full".into());
        gateway.counters.nat = Some(trama_gateway::report::NatStatus {
            flows: [("tcp".into(), 6)].into(),
            listening: 2,
            pending: 1,
        });
        let network = NetworkStatus {
            name: "lab".into(),
            worker: 1,
            mac_entries: 4,
            busy: Duration::from_millis(250),
            gateway: Some(gateway),
        };
        let ports = vec![port("vm1", Some("lab"), true), port("t\"1", None, false)];
        let mut status = Status::of(vec![network], ports);
        status.workers.push(WorkerStatus {
            worker: 0,
            busy: Duration::from_millis(1500),
            wakeups: 9,
            bursts: 10,
        });
        status.restarts = Restarts { crash: 3, killed: 2, upgrade: 0 };
        let text = text(&status).unwrap();
        for line in [
            r#"trama_port_rx_frames_total{network="lab",port="vm1"} 7"#,
            r#"trama_port_rx_frames_total{network="",port="t\"1"} 7"#,
            r#"trama_port_drops_total{network="lab",port="vm1",reason="runt"} 2"#,
            r#"trama_port_gateway_drops_total{network="lab",port="vm1",reason="new_flow_share"} 6"#,
            r#"trama_port_storm{kind="broadcast",network="lab",port="vm1"} 1"#,
            r#"trama_port_loop_blocked{network="lab",port="vm1"} 1"#,
            r#"trama_mac_entries{network="lab"} 4"#,
            r#"trama_network_worker{network="lab"} 1"#,
            r#"trama_network_busy_seconds_total{network="lab"} 0.25"#,
            r#"trama_gateway_up{network="lab"} 1"#,
            r#"trama_gateway_restarts_total{network="lab"} 2"#,
            r#"trama_gateway_frames_total{direction="rx",network="lab"} 8"#,
            r#"trama_gateway_drops_total{network="lab",reason="bad_arp"} 3"#,
            r#"trama_dhcp_leases{network="lab"} 5"#,
            r#"trama_dhcp_pool{network="lab"} 154"#,
            r#"trama_dhcp_messages_total{direction="rx",network="lab",type="discover"} 6"#,
            r#"trama_dhcp_messages_total{direction="tx",network="lab",type="offer"} 7"#,
            r#"trama_dhcp_refused_total{network="lab",reason="port_full"} 8"#,
            r#"trama_dhcp6_leases{network="lab"} 9"#,
            r#"trama_dhcp6_pool{network="lab"} 4096"#,
            r#"trama_dhcp6_messages_total{direction="rx",network="lab",type="solicit"} 10"#,
            r#"trama_dhcp_store_failed{network="lab"} 1"#,
            r#"trama_nat_flows{network="lab",protocol="tcp"} 6"#,
            r#"trama_nat_forwards{network="lab",state="listening"} 2"#,
            r#"trama_nat_forwards{network="lab",state="pending"} 1"#,
            r#"trama_worker_busy_seconds_total{worker="0"} 1.5"#,
            r#"trama_worker_wakeups_total{worker="0"} 9"#,
            r#"trama_port_left_out{port="t\"1"} 1"#,
            r#"trama_switch_restarts_total{reason="crash"} 3"#,
            r#"trama_switch_restarts_total{reason="upgrade"} 0"#,
            r#"trama_vhost_kicks_total{port="vm1"} 3"#,
            r#"trama_port_connects_total{network="lab",port="vm1"} 5"#,
            r#"trama_port_running{network="",port="t\"1"} 0"#,
            concat!("trama_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "trama_api_failures_total 0",
            "# TYPE trama_worker_busy_seconds_total counter",
            "# HELP trama_mac_entries MAC addresses that are known.",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert_eq!(text.matches("trama_vhost_calls_total{").count(), 1, "vhost-user ports only");
        assert!(!text.contains("hairpin"), "a reason that never counted has no series");
    }
}

use std::collections::BTreeSet;
use std::time::Duration;

use trama_api::event::Kind;
use trama_switch::counters::MirrorSnapshot;

use super::*;
use crate::captures::Totals;
use crate::changes::Changes;
use crate::config::model::Port;
use crate::config::text::parse;
use crate::crashes::Restarts;
use crate::export::{Exports, Protocol};
use crate::gateway::GatewayStatus;
use crate::status::{
    MirrorStatus, NetworkStatus, PortCounts, PortStatus, VhostStatus, WorkerStatus,
};

fn text(status: &Status, config: &Config) -> String {
    let mut families = Families::default();
    families.fill(status, config).unwrap();
    captures::add(&mut families, Totals { running: 1, frames: 2, missed: 3 }).unwrap();
    let exported = Exports::default();
    exported.count(Protocol::Sflow, 4, 5);
    exports::add(&mut families, &exported).unwrap();
    let counts = std::array::from_fn(|at| (Kind::ALL[at].name(), at as u64));
    events::add(&mut families, crate::events::Totals { counts, lost: 4 }).unwrap();
    families.text().unwrap()
}

const CONFIG: &str = r#"
[[network]]
name = "lab"

[[port]]
name = "vm1"
network = "lab"
type = "vhost-user"
tag = 10

[[port]]
name = "t1"
type = "tap"
"#;

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

/// A status with something of everything.
fn status() -> Status {
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
        refused: [("pool_full".into(), 2)].into(),
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
        mac_moves: 6,
        busy: Duration::from_millis(250),
        gateway: Some(gateway),
        gateway_port: Some(PortCounts {
            tx_frames: 11,
            drops: vec![("hairpin", 1), ("runt", 0)],
            ..PortCounts::default()
        }),
    };
    let ports = vec![port("vm1", Some("lab"), true), port("t\"1", None, false)];
    let mut status = Status::of(vec![network], ports);
    status.mirrors.push(MirrorStatus {
        name: "m0".into(),
        network: "lab".into(),
        counters: MirrorSnapshot { frames: 3, bytes: 180, lost: 1 },
    });
    status.workers.push(WorkerStatus {
        worker: 0,
        busy: Duration::from_millis(1500),
        wakeups: 9,
        bursts: 10,
    });
    status.restarts = Restarts { crash: 3, killed: 2, upgrade: 0 };
    status.changes = Changes { reloaded: 5, refused: 1, last: Duration::from_secs(1_700_000_000) };
    status
}

#[test]
fn the_text_has_the_names_of_the_contract() {
    let status = status();
    let config = parse(CONFIG, "trama.toml").unwrap();
    let text = text(&status, &config);
    for line in [
        r#"trama_port_rx_frames_total{network="lab",port="vm1"} 7"#,
        r#"trama_port_rx_frames_total{network="",port="t\"1"} 7"#,
        r#"trama_port_drops_total{network="lab",port="vm1",reason="runt"} 2"#,
        r#"trama_port_gateway_drops_total{network="lab",port="vm1",reason="new_flow_share"} 6"#,
        r#"trama_port_storm{kind="broadcast",network="lab",port="vm1"} 1"#,
        r#"trama_port_loop_blocked{network="lab",port="vm1"} 1"#,
        r#"trama_mirror_lost_total{mirror="m0",network="lab"} 1"#,
        r#"trama_port_info{network="lab",port="vm1",tag="10",type="vhost-user",vlan_mode="access",worker="1"} 1"#,
        r#"trama_port_info{network="",port="t1",tag="",type="tap",vlan_mode="trunk",worker=""} 1"#,
        r#"trama_port_up{network="lab",port="vm1"} 1"#,
        r#"trama_port_up{network="",port="t\"1"} 0"#,
        r#"trama_gateway_port_frames_total{direction="tx",network="lab"} 11"#,
        r#"trama_gateway_port_drops_total{network="lab",reason="hairpin"} 1"#,
        r#"trama_config_reloads_total{result="done"} 5"#,
        r#"trama_config_reloads_total{result="refused"} 1"#,
        "trama_config_last_change_timestamp_seconds 1700000000",
        r#"trama_mac_moves_total{network="lab"} 6"#,
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
        r#"trama_vhost_connects_total{port="vm1"} 5"#,
        r#"trama_port_connects_total{network="lab",port="vm1"} 5"#,
        r#"trama_port_running{network="",port="t\"1"} 0"#,
        concat!("trama_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "trama_api_failures_total 0",
        "# TYPE trama_worker_busy_seconds_total counter",
        "# HELP trama_mac_entries MAC addresses that are known; a full table (`mac-table-size`) floods.",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
    }
    assert_eq!(text.matches("trama_vhost_calls_total{").count(), 1, "vhost-user ports only");
    let never = r#"port="vm1",reason="hairpin""#;
    assert!(!text.contains(never), "a reason that never counted has no series");
    assert!(!text.contains("rx_gso_frames"), "nor has a counter of what never came");
}

/// The page has every metric and no other; the dashboard and the alerts use no other.
#[test]
fn the_page_the_dashboard_and_the_alerts_know_the_metrics() {
    let mut status = status();
    let special = [
        "rx_gso_frames",
        "tx_gso_frames",
        "software_gso_frames",
        "software_checksum_frames",
        "flooded_frames",
    ];
    status.ports[0].counters.others.extend(special.map(|name| (name, 1)));
    let text = text(&status, &parse(CONFIG, "trama.toml").unwrap());
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut families: BTreeSet<&str> = families.collect();
    // This process is not confined.
    families.extend(["trama_sandbox_info", "trama_sandbox_missing"]);
    let page = names_in(include_str!("../../../docs/metrics.md"));
    assert_eq!(page, families, "docs/metrics.md");
    for file in [
        include_str!("../../../packaging/grafana.json"),
        include_str!("../../../packaging/alerts.yml"),
    ] {
        let others: Vec<_> =
            names_in(file).into_iter().filter(|it| !families.contains(it)).collect();
        assert!(others.is_empty(), "no such metrics: {others:?}");
    }
}

/// The names of metrics in a text.
fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("trama_")).collect()
}

/// A scrape of a thousand busy guests is below a megabyte.
#[test]
fn a_thousand_ports_fit_a_megabyte() {
    let mut status = status();
    let one = PortStatus { loop_block: None, storms: Vec::new(), ..status.ports[0].clone() };
    let counters = PortCounts {
        rx_frames: 123_456_789,
        rx_bytes: 123_456_789_012,
        tx_frames: 123_456_789,
        tx_bytes: 123_456_789_012,
        drops: vec![("runt", 0), ("hairpin", 0)],
        gateway_drops: Vec::new(),
        others: vec![("kicks", 1_234_567), ("calls", 1_234_567), ("flooded_frames", 12_345)],
    };
    let number =
        |n: usize| PortStatus { name: format!("vm{n}"), counters: counters.clone(), ..one.clone() };
    status.ports = (0..1000).map(number).collect();
    let mut config = parse(CONFIG, "trama.toml").unwrap();
    let port = config.ports[0].clone();
    config.ports = (0..1000).map(|n| Port { name: format!("vm{n}"), ..port.clone() }).collect();
    let size = text(&status, &config).len();
    assert!(size < 1_000_000, "{size} bytes");
}

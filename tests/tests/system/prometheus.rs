//! A real Prometheus scrapes the daemon and finds the documented metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use trama_tests::process::tied_command;
use trama_tests::tramad::free_address;
use trama_tests::{Host, Netns, Process, SOON, Tramad, wait_until};

#[test]
fn prometheus_scrapes_what_the_contract_names() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let mut configuration = "[[network]]\nname = \"lab\"\n".to_owned();
    for (name, netns, number) in [("left", &left, 1), ("right", &right, 2)] {
        configuration += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"{name}\"\n\
             netns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            netns.name()
        );
    }
    configuration += "\n[[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
                      path = \"{dir}/guest.sock\"\n";
    let tramad = Tramad::start(&configuration);
    left.wait_for_ping("10.1.0.2", SOON);

    let dir = tempfile::tempdir().unwrap();
    let scrape = dir.path().join("prometheus.yml");
    std::fs::write(
        &scrape,
        format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n\
             - job_name: trama\n  static_configs:\n  - targets: ['{}']\n",
            tramad.metrics_address()
        ),
    )
    .unwrap();
    let address = free_address();
    let mut command = tied_command("prometheus");
    command.arg(format!("--config.file={}", scrape.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let _prometheus = Process::spawn("prometheus", command, &dir.path().join("log"));

    let value = |expression: &str| {
        let what = format!("Prometheus knows {expression}");
        wait_until(&what, SOON, || query(address, expression))
    };
    assert_eq!(value("up{job=\"trama\"} == 1"), 1.0);
    for port in ["left", "right"] {
        for name in ["rx_frames", "tx_frames", "rx_bytes", "tx_bytes"] {
            let name = format!("trama_port_{name}_total{{network=\"lab\",port=\"{port}\"}}");
            assert!(value(&name) > 0.0, "{name}");
        }
    }
    assert!(value("trama_mac_entries{network=\"lab\"} >= 2") >= 2.0);
    for name in [
        "sum(trama_port_drops_total{network=\"lab\"}) or vector(0)",
        "trama_worker_busy_seconds_total{worker=\"0\"} > 0",
        "trama_worker_wakeups_total{worker=\"0\"} > 0",
        "trama_vhost_kicks_total{port=\"guest\"}",
        "trama_vhost_calls_total{port=\"guest\"}",
        "trama_build_info",
    ] {
        value(name);
    }
    tramad.stop();
}

/// Returns the value of an expression, if Prometheus has one.
fn query(address: SocketAddr, expression: &str) -> Option<f64> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let answer: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

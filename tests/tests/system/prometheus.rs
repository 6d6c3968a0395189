//! A real Prometheus scrapes the daemon and finds the documented metrics; it takes the alerts and
//! the dashboard's expressions.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use trama_structure::tree::root;
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
    let address = free_address();
    let _prometheus = start(&tramad, address, dir.path());

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
        "trama_port_info{network=\"lab\",port=\"guest\",type=\"vhost-user\",vlan_mode=\"trunk\"}",
        "trama_port_up{port=\"left\"} == 1",
        "trama_port_up{port=\"guest\"} == 0",
        "process_resident_memory_bytes > 0",
        "process_open_fds > 0",
    ] {
        value(name);
    }
    check_alerts(address);
    check_dashboard(address);
    tramad.stop();
}

/// Starts a Prometheus with the package's alerts that scrapes the daemon each second.
fn start(tramad: &Tramad, address: SocketAddr, dir: &Path) -> Process {
    let scrape = dir.join("prometheus.yml");
    let settings = format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
         rule_files: ['{}']\nscrape_configs:\n- job_name: trama\n  static_configs:\n\
         \x20 - targets: ['{}']\n",
        root().join("packaging/alerts.yml").display(),
        tramad.metrics_address()
    );
    std::fs::write(&scrape, settings).unwrap();
    let mut command = tied_command("prometheus");
    command.arg(format!("--config.file={}", scrape.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    Process::spawn("prometheus", command, &dir.join("log"))
}

/// Prometheus has evaluated each alert.
fn check_alerts(address: SocketAddr) {
    let rules = wait_until("the rules are evaluated", SOON, || {
        let answer = get(address, "/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    });
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    assert_eq!(rules.len(), page.matches("| `Trama").count(), "docs/metrics.md lists them");
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}

/// Prometheus takes each expression of the dashboard, with what Grafana puts in for its variables.
fn check_dashboard(address: SocketAddr) {
    let text = std::fs::read_to_string(root().join("packaging/grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let places: HashSet<_> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    let ids: HashSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!((places.len(), ids.len()), (panels.len(), panels.len()), "none hides another");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in expressions {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$network", ".*")
            .replace("$port", ".*");
        let answer = ask(address, &expression).expect("an answer");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
}

/// Each alert fires where it should, and only there.
#[test]
fn promtool_finds_the_alerts_as_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let cases = "tests/tests/system/prometheus/alerts.yml";
    for (file, name) in [("packaging/alerts.yml", "alerts.yml"), (cases, "cases.yml")] {
        std::fs::copy(root().join(file), dir.path().join(name)).unwrap();
    }
    let output = Command::new("promtool")
        .args(["test", "rules", "cases.yml"])
        .current_dir(dir.path())
        .output()
        .expect("promtool, which comes with prometheus");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Returns the value of an expression, if Prometheus has one.
fn query(address: SocketAddr, expression: &str) -> Option<f64> {
    let answer = ask(address, expression)?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// Asks for the value of an expression.
fn ask(address: SocketAddr, expression: &str) -> Option<serde_json::Value> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    get(address, &format!("/api/v1/query?query={encoded}"))
}

fn get(address: SocketAddr, path: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

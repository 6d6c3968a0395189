//! The gateway of a network: a process of its own that answers on the gateway's addresses, and
//! whose death nobody else notices.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use trama_tests::{Host, Netns, Pinging, Tramad, wait_until};

const GATEWAY: &str = "10.1.0.1";
const GATEWAY6: &str = "fd00:1::1";
const MOMENT: Duration = Duration::from_secs(10);

/// Two namespaces on a network with a gateway; `keys` are further ones of the network.
fn configuration(left: &Netns, right: &Netns, keys: &str) -> String {
    let mut text = format!(
        "[[network]]\nname = \"lab\"\nsubnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n{keys}\n"
    );
    for (name, netns, number) in [("left", left, 101), ("right", right, 102)] {
        netns.run(
            "echo 0 | tee /proc/sys/net/ipv6/conf/all/disable_ipv6 \
             /proc/sys/net/ipv6/conf/default/disable_ipv6",
        );
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
             ifname = \"{name}\"\nnetns = \"{}\"\n\
             address = [\"10.1.0.{number}/24\", \"fd00:1::{number}/64\"]\n",
            netns.name()
        );
    }
    text
}

/// The ids of the gateway processes that the daemon has started, in their order.
fn gateways(tramad: &Tramad) -> Vec<Pid> {
    let log = tramad.log();
    let ids = log.split("gateway runs as process ").skip(1);
    let number = |text: &str| text.split_whitespace().next().and_then(|id| id.parse().ok());
    ids.filter_map(number).filter_map(Pid::from_raw).collect()
}

/// Waits for the gateway process after the first `known` ones.
#[track_caller]
fn gateway_after(tramad: &Tramad, known: usize) -> Pid {
    wait_until("a gateway runs", MOMENT, || gateways(tramad).get(known).copied())
}

fn exists(process: Pid) -> bool {
    Path::new(&format!("/proc/{}", process.as_raw_nonzero())).exists()
}

#[test]
fn the_gateway_answers_and_its_death_disturbs_nobody() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let tramad = Tramad::start(&configuration(&left, &right, ""));
    let mut gateway = gateway_after(&tramad, 0);
    for address in [GATEWAY, GATEWAY6] {
        left.wait_for_ping(address, MOMENT);
        right.wait_for_ping(address, MOMENT);
    }
    assert_eq!(left.try_run("ping -c 1 -W 1 -s 1400 10.1.0.1").status, 0);
    assert_ne!(left.try_run("ping -c 1 -W 1 10.1.0.77").status, 0, "answers for another address");
    let table = tramad.ctl("fdb/show lab");
    assert!(table.lines().any(|line| line.contains("gateway")), "{table}");

    let flaps = left.run("cat /sys/class/net/left/carrier_changes");
    let bystanders = Pinging::start(&left, "10.1.0.102", 0.01);
    let load = Pinging::start(&right, GATEWAY, 0.01);
    for round in 1..=3 {
        let killed = Instant::now();
        kill_process(gateway, Signal::KILL).expect("kill the gateway");
        gateway = gateway_after(&tramad, round);
        left.wait_for_ping(GATEWAY, MOMENT);
        println!("service is back after {:?}", killed.elapsed());
    }
    bystanders.stop_without_loss(20);
    let (sent, answered) = load.stop();
    assert!(answered > 0 && answered <= sent, "{answered} of {sent}");
    assert_eq!(left.run("cat /sys/class/net/left/carrier_changes"), flaps);
    assert_eq!(tramad.metric("trama_gateway_restarts_total", &["network=\"lab\""]), 3);
    wait_until("the counters come", MOMENT, || {
        (tramad.metric("trama_gateway_frames_total", &["direction=\"tx\""]) > 0).then_some(())
    });

    tramad.stop();
    assert!(!exists(gateway), "the daemon left its gateway behind");
}

#[test]
fn a_gateway_comes_changes_and_goes_with_the_configuration() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let mut tramad = Tramad::start(&configuration(&left, &right, ""));
    let first = gateway_after(&tramad, 0);
    left.wait_for_ping(GATEWAY, MOMENT);
    let bystanders = Pinging::start(&left, "10.1.0.102", 0.01);
    let text = tramad.configuration();

    // Other addresses: the same process answers on them.
    let moved = text.replace("10.1.0.0/24", "10.1.0.128/25").replace("\"fd00:1::/64\"", "");
    tramad.write_configuration(&moved);
    tramad.ctl("reload");
    right.run("ip address add 10.1.0.140/25 dev right");
    right.wait_for_ping("10.1.0.129", MOMENT);
    assert_ne!(right.try_run("ping -c 1 -W 1 10.1.0.1").status, 0, "the old address answers");
    assert!(exists(first));
    assert_eq!(gateways(&tramad).len(), 1);

    // None at all.
    tramad.write_configuration(&text.replace("subnet", "# subnet"));
    tramad.ctl("reload");
    assert!(!exists(first), "a gateway without a network to serve");
    tramad.write_configuration(&text);
    tramad.ctl("reload");
    let second = gateway_after(&tramad, 1);
    left.wait_for_ping(GATEWAY, MOMENT);
    bystanders.stop_without_loss(20);

    // A daemon that dies takes its gateway along, and the next starts one of its own.
    tramad.restart(Signal::KILL);
    wait_until("the orphan ends", MOMENT, || (!exists(second)).then_some(()));
    left.wait_for_ping(GATEWAY, MOMENT);
}

//! DPDK's testpmd as a frontend: frames circulate between its two devices through the switch, for
//! each ring layout that it supports, and after either end was killed.

use std::time::Duration;

use rustix::process::Signal;
use trama_tests::{Testpmd, Tramad};

const TRAFFIC: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(120);

fn configuration(role: &str) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for name in ["left", "right"] {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\nrole = \"{role}\"\ntag = 10\n"
        );
    }
    text
}

fn start(tramad: &Tramad, properties: &str) -> Testpmd {
    let sockets = [tramad.path("left.sock"), tramad.path("right.sock")];
    Testpmd::start([&sockets[0], &sockets[1]], properties)
}

/// Returns the drops for other reasons than a full or missing ring.
fn unexpected_drops(tramad: &Tramad) -> Vec<String> {
    let expected = ["reason=\"egress_full\"", "reason=\"egress_not_ready\""];
    tramad
        .metrics()
        .into_iter()
        .filter(|(name, value)| name.starts_with("trama_port_drops_total") && *value > 0.0)
        .filter(|(name, _)| !expected.iter().any(|reason| name.contains(reason)))
        .map(|(name, value)| format!("{name} {value}"))
        .collect()
}

#[test]
fn frames_circulate_with_every_shape_of_ring() {
    let tramad = Tramad::start(&configuration("server"));
    for size in [256, 1024] {
        for mergeable in [0, 1] {
            for in_order in [0, 1] {
                let properties =
                    format!("queue_size={size},mrg_rxbuf={mergeable},in_order={in_order}");
                let mut testpmd = start(&tramad, &properties);
                testpmd.circulate(4, TRAFFIC, LIMIT);
                println!("{properties}: {:?}", testpmd.counted());
                testpmd.kill();
                assert_eq!(unexpected_drops(&tramad), Vec::<String>::new(), "{properties}");
            }
        }
    }
    tramad.stop();
}

#[test]
fn frames_circulate_when_we_connect() {
    let tramad = Tramad::start(&configuration("client"));
    let mut testpmd = start(&tramad, "queue_size=1024,server=1");
    testpmd.circulate(4, TRAFFIC, LIMIT);
    testpmd.kill();
    assert_eq!(unexpected_drops(&tramad), Vec::<String>::new());
    tramad.stop();
}

#[test]
fn either_end_may_be_killed() {
    // testpmd listens, so that it outlives the daemon and the new daemon can connect to it.
    let mut tramad = Tramad::start(&configuration("client"));
    let mut testpmd = start(&tramad, "queue_size=256,server=1");
    testpmd.circulate(4, TRAFFIC, LIMIT);

    tramad.restart(Signal::KILL);
    // Frames inside the daemon may be lost: send new ones.
    testpmd.tell("stop");
    testpmd.circulate(4, TRAFFIC, LIMIT);

    testpmd.kill();
    let mut testpmd = start(&tramad, "queue_size=256,server=1");
    testpmd.circulate(4, TRAFFIC, LIMIT);
    testpmd.kill();
    tramad.stop();
}

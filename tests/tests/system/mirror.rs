//! Mirrors: an analyser's host gets copies of two others' traffic, whatever happens to their ports.

use rustix::process::Signal;
use trama_tests::host::Capture;
use trama_tests::{Host, Netns, SOON, Tramad};

/// Two hosts, and one that listens.
fn hosts() -> [Netns; 3] {
    ["left", "right", "ids"].map(Netns::new)
}

fn configuration(hosts: &[Netns; 3]) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for (number, (host, name)) in hosts.iter().zip(["left", "right", "ids"]).enumerate() {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"eth0\"\n\
             netns = \"{}\"\naddress = \"10.1.0.{}/24\"\n",
            host.name(),
            number + 1,
        );
    }
    text + "\n[[mirror]]\nname = \"m0\"\nnetwork = \"lab\"\nselect-src-port = [\"left\"]\n\
            select-dst-port = [\"left\"]\noutput-port = \"ids\"\nfilter = \"icmp\"\n"
}

/// Whether both directions of a ping were copied.
fn has_both(text: &str) -> bool {
    ["10.1.0.1 > 10.1.0.2: ICMP echo request", "10.1.0.2 > 10.1.0.1: ICMP echo reply"]
        .iter()
        .all(|wanted| text.contains(wanted))
}

#[test]
fn an_analyser_sees_both_directions_and_takes_part_in_nothing() {
    let hosts = hosts();
    let [left, _, ids] = &hosts;
    let mut tramad = Tramad::start(&configuration(&hosts));
    let listen = || Capture::start(ids, "eth0", "icmp");
    let ping = |capture: Capture<'_>| {
        left.wait_for_ping("10.1.0.2", SOON);
        capture.wait_for("copies of the ping", SOON, has_both);
        capture.stop();
    };
    ping(listen());
    assert_eq!(tramad.statistic("left", "tx_dropped"), 0);
    let frames = |tramad: &Tramad| tramad.metric("trama_mirror_frames_total", &["lab", "m0"]);
    assert!(frames(&tramad) >= 2);
    let said = tramad.ctl("get Mirror m0 statistics:tx_packets statistics:tx_lost");
    assert_eq!(said.lines().last(), Some("0"), "{said}");
    assert!(tramad.ctl("show").contains("mirror: \"m0 to ids\""));

    // It is no host of the network.
    ids.run("ping -c 1 -W 0.2 10.1.0.2 || true");
    assert!(tramad.ctl("counters ids").contains("{mirror_output="));

    // Its port and a mirrored one are made again; another switch follows this one.
    for (port, address) in [("left", 1), ("ids", 3)] {
        tramad.ctl(&format!("set Interface {port} options:address=10.1.0.{address}/16"));
        ping(listen());
    }
    tramad.restart(Signal::TERM);
    ping(listen());
    tramad.kill_and_follow();
    ping(listen());

    // Without the mirror it is a host again.
    tramad.ctl("clear Bridge lab mirrors");
    assert!(!tramad.configuration().contains("[[mirror]]"));
    ids.wait_for_ping("10.1.0.2", SOON);
}

#[test]
fn an_output_that_is_to_go_is_refused_and_names_its_mirror() {
    let hosts = hosts();
    let tramad = Tramad::start(&configuration(&hosts));
    let answer = tramad.try_ctl(&["del-port", "ids"]);
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.text.contains("mirror.m0.output-port: there is no port \"ids\""), "{answer:?}");
    tramad.ctl("del-port left");
    assert!(tramad.configuration().contains("output-port = \"ids\""));
    assert!(!tramad.configuration().contains("\"left\""));
    tramad.ctl("del-port ids -- clear Bridge lab mirrors");
}

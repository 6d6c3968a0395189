//! Mirrors: an analyser's host gets copies of two others' traffic, whatever happens to their ports.

use rustix::process::Signal;
use trama_tests::host::Capture;
use trama_tests::{Host, Netns, SOON, Tramad};

use crate::tunnels;

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

/// Pings a host, whose echo requests have a size of their own, until copies are seen as wanted.
#[track_caller]
fn expect_copies(from: &Netns, to: &str, ids: &Netns, what: &str, wanted: impl Fn(&str) -> bool) {
    let capture = Capture::start(ids, "eth0", "");
    from.wait_for_ping(to, SOON);
    let text = capture.wait_for(what, SOON, wanted);
    capture.stop();
    assert!(!text.contains("10.2.0."), "copies of another VLAN: {text}");
}

#[test]
fn copies_are_cut_and_chosen_by_vlan_and_go_on_a_vlan() {
    let names = ["left", "right", "other", "another", "ids"];
    let hosts = names.map(Netns::new);
    let [left, _, other, _, ids] = &hosts;
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    let places = [(10, "1.0.1"), (10, "1.0.2"), (20, "2.0.1"), (20, "2.0.2"), (99, "9.0.1")];
    for ((host, name), (tag, address)) in hosts.iter().zip(names).zip(places) {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"eth0\"\n\
             netns = \"{}\"\naddress = \"10.{address}/24\"\ntag = {tag}\n",
            host.name(),
        );
    }
    text += "\n[[mirror]]\nname = \"m0\"\nnetwork = \"lab\"\nselect-vlan = [10]\n";
    let tramad = Tramad::start(&(text + "output-port = \"ids\"\nsnaplen = 60\n"));
    // Its length on the wire, and that of the copy.
    let cut = |text: &str| text.contains("length 60: ") && text.contains("ICMP echo reply");
    other.wait_for_ping("10.2.0.2", SOON);
    expect_copies(left, "10.1.0.2", ids, "copies of 60 bytes", cut);
    let told = tramad.ctl("explain other dst=ff:ff:ff:ff:ff:ff");
    assert!(!told.contains("mirror"), "{told}");
    let told = tramad.ctl("explain left dst=ff:ff:ff:ff:ff:ff");
    assert!(told.contains("mirror   m0 copies it to ids\n"), "{told}");

    tramad.ctl("clear Mirror m0 snaplen");
    let whole = |text: &str| has_both(text) && text.contains("length 98: ");
    expect_copies(left, "10.1.0.2", ids, "whole copies", whole);

    // On a VLAN: the analyser is an ordinary port of it.
    tramad.ctl("set Mirror m0 output_vlan=99 -- clear Mirror m0 output_port");
    expect_copies(left, "10.1.0.2", ids, "copies on a VLAN", whole);
    let told = tramad.ctl("explain left dst=ff:ff:ff:ff:ff:ff");
    assert!(told.contains("mirror   m0 copies it to VLAN 99\n"), "{told}");
}

#[test]
fn an_analyser_on_another_host_gets_copies_through_a_tunnel() {
    let machines = tunnels::hosts();
    let guests = ["left", "right", "ids"].map(Netns::new);
    let [left, right, ids] = &guests;
    let tunnel = |remote| format!("remote = \"10.9.0.{remote}\"\nvni = 99");
    let here = tunnels::lab(1, left, &tunnel(2), 1500)
        + &format!(
            "\n[[port]]\nname = \"right\"\nnetwork = \"blue\"\ntype = \"tap\"\nifname = \"eth0\"\n\
             netns = \"{}\"\naddress = \"10.1.0.2/24\"\n\
             [[mirror]]\nname = \"m0\"\nnetwork = \"blue\"\nselect-src-port = [\"guest\"]\n\
             select-dst-port = [\"guest\"]\noutput-port = \"vx0\"\nfilter = \"icmp\"\n",
            right.name()
        );
    let there = tunnels::lab(3, ids, &tunnel(1), 1500)
        + "[[mirror]]\nname = \"m1\"\nnetwork = \"blue\"\nselect-src-port = [\"vx0\"]\n\
           output-port = \"guest\"\n";
    let [a, b] = [(&machines[0], here), (&machines[1], there)]
        .map(|(machine, text)| Tramad::start_in(machine, &text));
    expect_copies(left, "10.1.0.2", ids, "copies of the ping", has_both);
    // It is no host of the network, nor are those behind the tunnel.
    ids.run("ping -c 1 -W 0.2 10.1.0.2 || true");
    assert_eq!(b.statistic("vx0", "tx_packets"), 0);
    assert!(b.ctl("counters guest").contains("{mirror_output="));
    assert_eq!(a.statistic("vx0", "tx_dropped"), 0);
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

//! Either end is killed and restarted: traffic resumes by itself, and other ports lose nothing.

use std::time::Duration;

use rustix::process::Signal;
use trama_tests::{Guest, Host, Netns, Nic, Pinging, Tramad};

const SERVED: &str = "52:54:00:00:00:01";
const SERVING: &str = "52:54:00:00:00:02";
const RESUME: Duration = Duration::from_secs(60);

fn configuration(left: &Netns, right: &Netns) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n".to_owned();
    for (name, role) in [("served", "server"), ("serving", "client")] {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
             path = \"{{dir}}/{name}.sock\"\nrole = \"{role}\"\n"
        );
    }
    for (name, netns, number) in [("left", left, 101), ("right", right, 102)] {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\n\
             ifname = \"{name}\"\nnetns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            netns.name()
        );
    }
    text
}

#[test]
fn a_guest_sees_its_cable_pulled_and_plugged_in() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let mut tramad = Tramad::start(&configuration(&left, &right));
    let served = Guest::boot("served", Nic::connecting(tramad.path("served.sock"), SERVED));
    let serving = Guest::boot("serving", Nic::listening(tramad.path("serving.sock"), SERVING));
    served.address("10.1.0.1/24");
    serving.address("10.1.0.2/24");
    served.wait_for_ping("10.1.0.2", RESUME);
    let bystanders = Pinging::start(&left, "10.1.0.102", 0.01);
    for (port, guest, address) in
        [("served", &served, "10.1.0.1"), ("serving", &serving, "10.1.0.2")]
    {
        left.wait_for_ping(address, RESUME);
        let mac = if port == "served" { SERVED } else { SERVING };
        assert!(tramad.ctl("fdb/show lab").contains(mac));
        tramad.ctl(&format!("link {port} down"));
        assert!(!tramad.ctl("fdb/show lab").contains(mac), "its addresses are remembered");
        guest.wait_for_link("eth0", false);
        assert!(!left.pings(address, 2), "{port} answers without a cable");
        tramad.ctl(&format!("link {port} up"));
        guest.wait_for_link("eth0", true);
        left.wait_for_ping(address, RESUME);
    }
    // A TAP shows it by its carrier.
    let carrier = || left.run("cat /sys/class/net/left/carrier").trim().to_owned();
    bystanders.stop_without_loss(100);
    tramad.ctl("link left down");
    assert_eq!(carrier(), "0");
    tramad.ctl("link left up");
    assert_eq!(carrier(), "1");
    left.wait_for_ping("10.1.0.1", RESUME);
    assert!(tramad.is_running());
    tramad.stop();
}

#[test]
fn traffic_resumes_after_either_end_was_killed() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let mut tramad = Tramad::start(&configuration(&left, &right));
    let served_nic = Nic::connecting(tramad.path("served.sock"), SERVED);
    let serving_nic = Nic::listening(tramad.path("serving.sock"), SERVING);
    let served = Guest::boot("served", served_nic.clone());
    let serving = Guest::boot("serving", serving_nic.clone());
    served.address("10.1.0.1/24");
    serving.address("10.1.0.2/24");

    let bystanders = Pinging::start(&left, "10.1.0.102", 0.01);

    // A guest reboots: its rings stop and start again over the same connection.
    let other_guest = Pinging::start(&serving, "10.1.0.101", 0.05);
    served.reset();
    served.address("10.1.0.1/24");
    serving.wait_for_ping("10.1.0.1", RESUME);
    left.wait_for_ping("10.1.0.1", RESUME);

    // QEMU is killed; another one connects to the listening daemon.
    served.kill();
    let served = Guest::boot("served", served_nic);
    served.address("10.1.0.1/24");
    left.wait_for_ping("10.1.0.1", RESUME);
    other_guest.stop_without_loss(10);

    // The same with a guest that listens: the daemon reconnects.
    let other_guest = Pinging::start(&served, "10.1.0.101", 0.05);
    serving.kill();
    let serving = Guest::boot("serving", serving_nic);
    serving.address("10.1.0.2/24");
    left.wait_for_ping("10.1.0.2", RESUME);
    other_guest.stop_without_loss(10);
    bystanders.stop_without_loss(100);

    // The daemon is killed. Its TAPs go with it; the guests keep running and recover by themselves.
    for signal in [Signal::KILL, Signal::TERM] {
        tramad.restart(signal);
        served.wait_for_ping("10.1.0.2", RESUME);
        serving.wait_for_ping("10.1.0.101", RESUME);
        left.wait_for_ping("10.1.0.1", RESUME);
    }
    assert!(tramad.path("served.sock").exists());
    let configuration = tramad.configuration();
    tramad.stop_and_look(|dir| {
        assert!(!dir.join("served.sock").exists(), "a clean end leaves its socket behind");
        assert!(!dir.join("control.sock").exists(), "a clean end leaves its socket behind");
        assert_eq!(std::fs::read_to_string(dir.join("trama.toml")).unwrap(), configuration);
    });
}

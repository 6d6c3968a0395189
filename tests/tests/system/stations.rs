//! The addresses of the gateway, the host's interface and the uplink, which no other port can take.

use std::thread;
use std::time::{Duration, Instant};

use trama_tests::nat::{
    GATEWAY, NETWORK, SOON, VM1, guest_port, host_and_server, namespace, route,
};
use trama_tests::{Host, Netns, Pinging, RawTap, Tramad, wait_until};

/// Frames that a thief sends, two a millisecond at most.
const STOLEN: usize = 2000;
/// How many of them may wait at a TAP, and be lost there when the guest_port is busy.
const QUEUE: usize = 1000;

#[test]
fn a_thief_of_the_gateways_address_costs_others_nothing() {
    let [host, _server] = host_and_server();
    let [vm1, thief] = ["vm1", "thief"].map(namespace);
    let machines = guest_port(&vm1, "vm1", &VM1) + &guest_port(&thief, "thief", &[]);
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{machines}"));
    route(&vm1, &GATEWAY);
    let known = tramad.ctl("--no-headings --names fdb/show home");
    let gateway = known.lines().find(|line| line.contains("gateway")).expect("a line");
    let [_, _, mac, age] = gateway.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{gateway}");
    };
    assert_eq!(age, "static");

    let raw = RawTap::bridge(&thief, "eth0");
    let frame = [&[0xff; 6][..], &octets(mac), &[0x88, 0xb5], &[0; 46]].concat();
    let bystander = Pinging::start(&vm1, GATEWAY[0], 0.01);
    for _ in 0..STOLEN {
        raw.send(&frame);
        thread::sleep(Duration::from_micros(500));
    }
    bystander.stop_without_loss(50);
    wait_until("the frames are dropped", SOON, || {
        (drops(&tramad, "thief", "own_address") >= STOLEN - QUEUE).then_some(())
    });
    assert_eq!(drops(&tramad, "vm1", "own_address"), 0);
    assert_eq!(tramad.ctl("--no-headings --names fdb/show home").matches("static").count(), 1);
    tramad.stop();
}

/// Returns how many frames were dropped at a port for this reason.
fn drops(tramad: &Tramad, port: &str, reason: &str) -> usize {
    let counters = tramad.ctl(&format!("counters {port}"));
    let Some((_, count)) = counters.split_once(&format!("{reason}=")) else { return 0 };
    let digits = count.find(|c: char| !c.is_ascii_digit()).unwrap_or(count.len());
    count[..digits].parse().expect("a count")
}

fn octets(mac: &str) -> Vec<u8> {
    mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("an octet")).collect()
}

#[test]
fn the_hosts_interface_and_the_uplink_own_their_addresses() {
    let host = Netns::with_ipv6("host");
    host.run("ip link add eth0 type veth peer lan0; ip link set eth0 up; ip link set lan0 up");
    let tramad = Tramad::start_in(
        &host,
        "[[network]]\nname = \"alone\"\nmode = \"host-only\"\n\
         [[network]]\nname = \"lan\"\nmode = \"bridged\"\nuplink = \"eth0\"\n",
    );
    for (network, interface) in [("alone", "alone"), ("lan", "eth0")] {
        let mac = host.run(&format!("cat /sys/class/net/{interface}/address"));
        let known = tramad.ctl(&format!("--no-headings --names fdb/show {network}"));
        let is_its = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words == [network, "0", mac.trim(), "static"]
        };
        assert!(known.lines().any(is_its), "{mac} is not in\n{known}");
        // It stays through a flush.
        tramad.ctl(&format!("fdb/flush {network}"));
        let known = tramad.ctl(&format!("--no-headings --names fdb/show {network}"));
        assert!(known.lines().any(is_its), "{mac} is not in\n{known}");
    }
    tramad.stop();
}

#[test]
fn a_storm_is_limited_and_said() {
    let [vm1, loud] = ["vm1", "loud"].map(namespace);
    let network = "[[network]]\nname = \"home\"\n";
    let machines = guest_port(&vm1, "vm1", &VM1[..1]) + &guest_port(&loud, "loud", &[]);
    let mut tramad = Tramad::start(&format!("{network}{machines}storm-broadcast = 100\n"));
    assert_eq!(tramad.ctl("get Port vm1 storm_broadcast storm_unknown"), "10000\n0\n");
    tramad.ctl("set Port loud storm_multicast=7");
    assert!(tramad.configuration().contains("storm-multicast = 7"), "{}", tramad.configuration());
    let raw = RawTap::bridge(&loud, "eth0");
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
    let began = Instant::now();
    for _ in 0..STOLEN {
        raw.send(&frame);
        thread::sleep(Duration::from_micros(500));
    }
    tramad.wait_for_log("port loud: a storm of broadcast frames; those beyond 100 a second", SOON);
    let lost = ["port=\"loud\"", "reason=\"storm\""];
    wait_until("frames are dropped", SOON, || {
        (tramad.metric("trama_port_drops_total", &lost) > 0).then_some(())
    });
    let passed = tramad.metric("trama_port_flooded_frames_total", &["port=\"loud\""]);
    let most = 100 + began.elapsed().as_secs() * 100 + 100;
    assert!(passed <= most, "{passed} frames of at most {most}");
    tramad.wait_for_log("port loud: the storm is over", SOON);
    assert!(!tramad.ctl("show").contains("storm:"));
    tramad.stop();
}

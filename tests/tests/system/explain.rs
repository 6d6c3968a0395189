//! `explain` with a running switch: what it says, and that it happens.

use trama_tests::nat::{GATEWAY, NETWORK, VM1, guest_port, host_and_server, namespace, route};
use trama_tests::{Host, Netns, RawTap, SOON, Tramad, wait_until};

const LAB: &str = "[[network]]\nname = \"lab\"\n";

/// Returns a TAP port in VLAN `tag` whose device has this address.
fn port(name: &str, tag: u16, mac: &str, netns: &Netns) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nnetns = \"{}\"\n\
         ifname = \"{name}\"\ntag = {tag}\nmac = \"{mac}\"\n",
        netns.name()
    )
}

/// Runs `explain`; returns what it prints and its exit status.
fn explain(tramad: &Tramad, words: &[&str]) -> (String, i32) {
    let result = tramad.try_ctl(&[&["explain"], words].concat());
    (result.text, result.status)
}

#[test]
fn what_is_said_of_a_frame_is_its_way() {
    let guests = Netns::new("guests");
    let [vm1, vm2, vm3] = [1, 2, 3].map(|n| format!("02:00:00:00:00:0{n}"));
    let ports = port("vm1", 10, &vm1, &guests)
        + &port("vm2", 10, &vm2, &guests)
        + &port("vm3", 20, &vm3, &guests);
    let host = Netns::new("host");
    let tramad = Tramad::start_in(&host, &(LAB.to_owned() + &ports));
    let to_vm2 = ["vm1", "dst=02:00:00:00:00:02", "src=02:00:00:00:00:01"];
    let (unknown, status) = explain(&tramad, &to_vm2);
    assert_eq!(status, 0, "{unknown}");
    assert!(unknown.contains("look-up  VLAN 10: not known, so it is flooded\n"), "{unknown}");

    let raw = RawTap::bridge(&guests, "vm2");
    raw.send(&[&[0xff; 6][..], &[2, 0, 0, 0, 0, 2], &[0x88, 0xb5], &[0; 46]].concat());
    tramad.ctl("-t 10 wait-until Interface vm2 statistics:rx_packets>=1");
    let (known, status) = explain(&tramad, &to_vm2);
    assert_eq!(status, 0);
    assert_eq!(
        known.replace("seen 1 s ago", "seen 0 s ago"),
        "frame    vm1 → 02:00:00:00:00:02, source 02:00:00:00:00:01, untagged, 60 bytes\n\
         port     runs, link up, network lab\n\
         vlan     access, tag 10: VLAN 10\n\
         source   allowed (spoof \"allow\")\n\
         look-up  VLAN 10: on vm2, seen 0 s ago\n\
         vm2      carries VLAN 10, leaves untagged\n\
         verdict  to vm2, untagged\n"
    );
    let (json, _) = explain(&tramad, &["vm1", "dst=02:00:00:00:00:02"]);
    assert_eq!(
        json.lines().next().map(|line| line.contains("source 02:00:00:00:00:01")),
        Some(true)
    );
    let json = tramad.ctl("-f json explain vm1 dst=02:00:00:00:00:02");
    assert!(json.contains(r#""exits":[{"port":"vm2","tag":null,"dropped":null}]"#), "{json}");
    let flow = "ofproto/trace lab in_port=vm1,dl_dst=02:00:00:00:00:02,dl_src=02:00:00:00:00:01";
    assert_eq!(tramad.ctl(flow), known);
    let elsewhere =
        tramad.try_ctl(&["ofproto/trace", "lba", "in_port=vm1,dl_dst=02:00:00:00:00:02"]);
    assert!(
        elsewhere.text.contains("no bridge named lba; did you mean lab?"),
        "{}",
        elsewhere.text
    );

    // What no port gets, and why.
    let (dropped, status) = explain(&tramad, &["vm3", "dst=ff:ff:ff:ff:ff:ff", "vlan=30"]);
    assert_eq!(status, 4, "{dropped}");
    assert!(dropped.contains("vlan     access, tag 20: not VLAN 30\n"), "{dropped}");
    assert!(dropped.contains("verdict  dropped at vm3: vlan_not_allowed. "), "{dropped}");
    let (alone, status) = explain(&tramad, &["vm3", "dst=ff:ff:ff:ff:ff:ff"]);
    assert!(status == 4 && alone.contains("dropped at vm3: no_member. "), "{alone}");
    tramad.ctl("link vm2 down");
    let broadcast = ["vm1", "dst=ff:ff:ff:ff:ff:ff"];
    let (down, status) = explain(&tramad, &broadcast);
    assert!(status == 4 && down.contains("dropped: egress_down\n"), "{down}");
    assert_eq!(tramad.statistic("vm3", "rx_dropped"), 0, "nothing is counted");

    // What was dropped last.
    let (none, status) = explain(&tramad, &["--last", "vm3", "runt"]);
    assert!(status == 1 && none.contains("no frame was dropped at vm3 for runt"), "{none}");
    let raw = RawTap::bridge(&guests, "vm3");
    let head = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 3], &[0x81, 0, 0, 30, 0x08, 0x06]].concat();
    raw.send(&[&head[..], &[0; 46]].concat());
    let last = wait_until("the frame is dropped", SOON, || {
        let (text, status) = explain(&tramad, &["--last", "vm3", "vlan_not_allowed"]);
        (status == 4).then_some(text)
    });
    let frame = "to ff:ff:ff:ff:ff:ff, source 02:00:00:00:00:03, VLAN 30, 64 bytes\n";
    assert!(last.contains(frame), "{last}");
    assert!(last.contains("verdict  dropped at vm3: vlan_not_allowed. The port"), "{last}");
    let (other, status) = explain(&tramad, &["--last", "vm3", "vlan_not_allow"]);
    assert!(status == 1 && other.contains("did you mean vlan_not_allowed?"), "{other}");

    // A frame as bytes, and what is no frame.
    let (bytes, _) = explain(&tramad, &["vm1", "ffffffffffff 020000000009 8100000a 0806"]);
    assert!(bytes.contains("VLAN 10, 18 bytes"), "{bytes}");
    for (words, part) in [
        (&["vm9", "dst=02:00:00:00:00:02"][..], "there is no port vm9; did you mean vm"),
        (&["vm1", "dst=02:00:00:00:00:02", "len=3"], "len=3: such a frame has 14 to"),
        (&["vm1", "dst=nobody"], "dst=nobody is not valid; use one such as"),
        (&["vm1"], "give dst=MAC"),
    ] {
        let (message, status) = explain(&tramad, words);
        assert!(status == 1 && message.contains(part), "{words:?}: {status} {message}");
    }
    tramad.stop();
}

#[test]
fn the_gateways_rules_are_asked_too() {
    let [host, _server] = host_and_server();
    let vm1 = namespace("vm1");
    let machine = guest_port(&vm1, "vm1", &VM1);
    let tramad = Tramad::start_in(&host, &format!("{NETWORK}{machine}"));
    route(&vm1, &GATEWAY);
    tramad.wait_for_gateway("home");
    let known = tramad.ctl("--no-headings --names fdb/show home");
    let gateway = known.lines().find(|line| line.contains("gateway")).expect("a line");
    let mac = gateway.split_whitespace().nth(2).expect("an address");
    let dst = format!("dst={mac}");
    let told = |ip: &str| explain(&tramad, &["vm1", &dst, ip, "proto=tcp", "port=443"]);
    let (open, status) = told("ip=10.7.0.11>93.184.216.34");
    assert!(status == 0 && open.contains("NAT: a tcp flow to 93.184.216.34:443\n"), "{open}");
    let (closed, status) = told("ip=10.7.0.11>127.0.0.1");
    assert!(status == 4 && closed.contains("dropped at gateway: policy_loopback. "), "{closed}");
    tramad.stop();
}

//! The network modes: reachability over IPv4 and IPv6, and that the host is restored.
//!
//! The host is a namespace that tramad runs in; the LAN is another, behind a veth pair. Namespaces
//! on TAPs take the place of guests; the switch treats both alike.

use std::time::Duration;

use rustix::process::Signal;
use trama_tests::{Host, Netns, Pinging, RawTap, SOON, Tramad, assert_reaches, wait_until};

/// Returns the host's network configuration, as text.
fn state(host: &Netns) -> String {
    host.run(
        "ip -o addr | sed 's/valid_lft.*//'; ip -o link; ip route show table all; ip -6 route show table all; ip rule; \
         ip -6 rule; nft list ruleset; tc qdisc show; tc filter show",
    )
}

/// Returns an example of the documentation, with sockets in the test's directory, and further
/// ports.
fn example(text: &str, ports: &str) -> String {
    let control = "control = \"/run/trama/control.sock\"\n";
    let text = text.replace(control, &format!("{control}state = \"/run/trama/state\"\n"));
    format!("{}{ports}", text.replace("/run/trama", "{dir}"))
}

const INTERNAL: &str = include_str!("../../../examples/internal.toml");
const HOST_ONLY: &str = include_str!("../../../examples/host-only.toml");
const BRIDGED: &str = include_str!("../../../examples/bridged.toml");

/// Returns the `[[port]]` of a guest: a TAP in its namespace.
fn guest_port(netns: &Netns, name: &str, network: &str, addresses: [&str; 2]) -> String {
    format!(
        "\n[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\ntype = \"tap\"\nnetns = \"{}\"\n\
         address = {addresses:?}\n",
        netns.name()
    )
}

const VM1: [&str; 2] = ["192.168.56.11", "fd00:56::11"];
const VM2: [&str; 2] = ["192.168.56.12", "fd00:56::12"];
const VM1_ADDRESSES: [&str; 2] = ["192.168.56.11/24", "fd00:56::11/64"];
const VM2_ADDRESSES: [&str; 2] = ["192.168.56.12/24", "fd00:56::12/64"];
const HOST: [&str; 2] = ["192.168.56.1", "fd00:56::1"];

#[test]
fn a_host_only_network_joins_the_host_and_leaves_no_trace() {
    let [host, vm1, vm2] = ["host", "vm1", "vm2"].map(Netns::with_ipv6);
    host.run(
        "nft add table inet t && nft add chain inet t c && ip route add 203.0.113.0/24 dev lo",
    );
    let before = state(&host);
    let configuration = example(
        HOST_ONLY,
        &[
            guest_port(&vm1, "vm1", "vboxnet0", VM1_ADDRESSES),
            guest_port(&vm2, "vm2", "vboxnet0", VM2_ADDRESSES),
        ]
        .concat(),
    );
    let mut tramad = Tramad::start_in(&host, &configuration);
    assert_reaches(&vm1, HOST, true);
    assert_reaches(&host, VM1, true);
    assert_reaches(&vm1, VM2, true);
    assert_reaches(&vm2, VM1, true);
    // A host behind the host is unreachable: there is no route out.
    let lan = Netns::with_ipv6("lan");
    host.run(&format!("ip link add out type veth peer name in netns {}", lan.name()));
    host.run("ip addr add 198.51.100.1/24 dev out; ip link set out up");
    lan.run("ip addr add 198.51.100.2/24 dev in; ip link set in up; ip route add default via 198.51.100.1");
    lan.wait_for_ping("198.51.100.1", SOON);
    vm1.run("ip route add default via 192.168.56.1");
    assert!(!vm1.pings("198.51.100.2", 2), "a way to the LAN");
    assert!(!lan.pings(VM1[0], 2), "a way from the LAN");
    host.run("ip link del out");

    // A port without a network reaches no other, and recovers.
    tramad.ctl("clear Port vm2 network");
    assert_reaches(&vm1, VM2, false);
    tramad.ctl("set Port vm2 network=vboxnet0");
    assert_reaches(&vm1, VM2, true);

    // Without the network's mode the interface is gone; the guests are not affected.
    tramad.ctl("clear Bridge vboxnet0 subnet -- set Bridge vboxnet0 mode=internal");
    assert_eq!(state(&host), before);
    assert_reaches(&vm1, VM2, true);
    assert_reaches(&vm1, HOST, false);
    tramad.ctl("set Bridge vboxnet0 mode=host-only subnet=192.168.56.0/24,\"fd00:56::/64\"");
    assert_reaches(&vm1, HOST, true);

    // It ends in both ways: stopped, and killed when no stand-in may follow.
    tramad.restart(Signal::KILL);
    assert_reaches(&vm1, HOST, true);
    std::fs::remove_file(tramad.path("control.sock")).expect("a socket");
    tramad.signal(Signal::KILL);
    wait_until("the interface is gone", SOON, || (state(&host) == before).then_some(()));
    drop(tramad);
    let tramad = Tramad::start_in(&host, &configuration);
    tramad.stop();
    assert_eq!(state(&host), before);
}

#[test]
fn a_subnets_first_address_passes_from_the_gateway_to_the_host_and_back() {
    let [host, vm1, vm2] = ["host", "vm1", "vm2"].map(Netns::with_ipv6);
    let before = state(&host);
    let configuration = example(
        &HOST_ONLY.replace("host-only", "internal"),
        &[
            guest_port(&vm1, "vm1", "vboxnet0", VM1_ADDRESSES),
            guest_port(&vm2, "vm2", "vboxnet0", VM2_ADDRESSES),
        ]
        .concat(),
    );
    let tramad = Tramad::start_in(&host, &configuration);
    assert_reaches(&vm1, HOST, true);
    assert_eq!(state(&host), before, "the gateway is no interface of the host");
    let bystanders = Pinging::start(&vm1, VM2[0], 0.01);

    tramad.ctl("set Bridge vboxnet0 mode=host-only");
    vm1.run("ip neigh flush to 192.168.56.1; ip -6 neigh flush to fd00:56::1");
    assert_reaches(&host, VM1, true);
    assert_reaches(&vm1, HOST, true);
    vm1.wait_for_ping("192.168.56.100", SOON);
    let refused = tramad.try_ctl(&["set", "Bridge", "vboxnet0", "subnet=\"fd00:56::/48\""]);
    assert_eq!(refused.status, 1, "{}", refused.text);
    assert!(refused.text.contains("use /64"), "{}", refused.text);

    tramad.ctl("set Bridge vboxnet0 mode=internal");
    vm1.run("ip neigh flush to 192.168.56.1; ip -6 neigh flush to fd00:56::1");
    assert_eq!(state(&host), before);
    assert_reaches(&vm1, HOST, true);
    bystanders.stop_without_loss(5);
    tramad.stop();
}

#[test]
fn a_route_of_any_table_of_the_host_is_in_the_way() {
    let host = Netns::with_ipv6("host");
    host.run(
        "ip link add vpn type bridge && ip link set vpn up && ip addr add 10.9.0.77/32 dev vpn && \
         ip route add 192.168.56.0/25 dev vpn table 51820 && \
         ip -6 route add fd00:56::/48 dev vpn table 77 && ip route add blackhole 10.8.0.0/16 && \
         ip route add 0.0.0.0/1 dev vpn table 51820 && ip route add 128.0.0.0/1 dev vpn && \
         ip route add throw 10.7.0.0/16 table 51820 && \
         ip route add local 10.9.0.0/16 dev lo table 100",
    );
    let scratch = host.scratch();
    let check = |subnet: &str| {
        let file = format!("{scratch}/check.toml");
        let text = format!(
            "[[network]]\nname = \"vboxnet0\"\nmode = \"host-only\"\nsubnet = \"{subnet}\"\n"
        );
        std::fs::write(&file, text).expect("configuration file");
        let tramad = trama_tests::tramad::binary("tramad");
        host.try_run(&format!("{} --check --config {file}", tramad.display())).text
    };
    for (subnet, route) in [
        ("192.168.56.0/24", "192.168.56.0/25 dev vpn table 51820"),
        ("fd00:56:0:1::/64", "fd00:56::/48 dev vpn table 77"),
        ("10.8.1.0/24", "10.8.0.0/16 table main"),
    ] {
        let text = check(subnet);
        let wanted = format!("{subnet} overlaps the host's route {route}; choose another subnet");
        assert!(text.contains(&wanted), "{text}");
    }
    // Halves of a default route, the host's own addresses, and rules that go to the next table.
    for free in ["192.168.57.0/24", "fd00:57::/64", "10.9.0.0/24", "10.7.1.0/24"] {
        let text = check(free);
        assert!(text.starts_with("network vboxnet0: host-only"), "{text}");
    }
}

#[test]
fn a_host_only_network_that_the_host_has_no_room_for_waits() {
    let [host, vm1] = ["host", "vm1"].map(Netns::with_ipv6);
    host.run("ip link add vboxnet0 type bridge; ip link add over type bridge");
    host.run("ip addr add 192.168.56.77/16 dev over; ip link set over up");
    let configuration = format!(
        "[[network]]\nname = \"vboxnet0\"\nmode = \"host-only\"\n\
         [[network]]\nname = \"lab\"\n{}",
        guest_port(&vm1, "vm1", "lab", VM1_ADDRESSES),
    );
    let mut tramad = Tramad::start_in(&host, &configuration);
    let overlap = "192.168.56.0/24 overlaps the host's route 192.168.0.0/16 dev over table \
                   main; choose another subnet";
    tramad.wait_for_log(overlap, SOON);
    assert!(tramad.ctl("show").contains(overlap), "{}", tramad.ctl("show"));
    let check = host.try_run(&format!(
        "{} --check --config {}",
        trama_tests::tramad::binary("tramad").display(),
        tramad.path("trama.toml").display()
    ));
    assert_eq!(check.status, 1);
    assert!(
        check.text.contains(&format!(":6:1: network.vboxnet0.subnet: {overlap}")),
        "{}",
        check.text
    );

    host.run("ip link del over");
    let taken = tramad.try_ctl(&["set", "Bridge", "vboxnet0", "subnet=192.168.57.0/24"]);
    assert_eq!(taken.status, 65, "{}", taken.text);
    assert!(
        taken.text.contains("the name is taken by another kind of interface"),
        "{}",
        taken.text
    );
    host.run("ip link del vboxnet0");
    tramad.wait_for_log("port vboxnet0 runs now", SOON);
    host.run("ip -o addr show dev vboxnet0 | grep -q 192.168.57.1/24");
    tramad.stop();
}

const LAN: [&str; 2] = ["192.168.56.3", "fd00:56::3"];

/// Returns a host with an uplink into a LAN with one neighbour; the uplink has the host's address.
fn host_on_a_lan() -> [Netns; 2] {
    let [host, lan] = ["host", "lan"].map(Netns::with_ipv6);
    host.run(&format!("ip link add eth0 type veth peer name in netns {}", lan.name()));
    host.run("ip addr add 192.168.56.1/24 dev eth0; ip addr add fd00:56::1/64 dev eth0; ip link set eth0 up");
    lan.run(
        "ip addr add 192.168.56.3/24 dev in; ip addr add fd00:56::3/64 dev in; ip link set in up",
    );
    host.run("nft add table inet t && nft add chain inet t c");
    host.wait_for_ping(LAN[0], SOON);
    host.wait_for_ping(LAN[1], SOON);
    [host, lan]
}

#[test]
fn a_bridged_network_joins_the_lan_and_the_host_and_changes_neither() {
    let [host, lan] = host_on_a_lan();
    let [vm1, vm2] = ["vm1", "vm2"].map(Netns::with_ipv6);
    let (before, before_at_lan) = (state(&host), state(&lan));
    let mut tramad = Tramad::start_in(
        &host,
        &example(
            BRIDGED,
            &[
                guest_port(&vm1, "vm1", "office", VM1_ADDRESSES),
                guest_port(&vm2, "vm2", "office", VM2_ADDRESSES),
            ]
            .concat(),
        ),
    );
    assert!(!tramad.log().contains("do not reach this host"), "{}", tramad.log());
    for (from, to) in [
        (&vm1, HOST),
        (&host, VM1),
        (&vm1, VM2),
        (&vm2, VM1),
        (&vm1, LAN),
        (&lan, VM1),
        (&vm2, HOST),
    ] {
        assert_reaches(from, to, true);
    }
    assert_reaches(&host, LAN, true);
    assert_reaches(&lan, HOST, true);
    for pair in [(&vm1, LAN[0]), (&vm1, HOST[0]), (&host, VM2[0]), (&lan, VM2[0])] {
        assert_eq!(pair.0.ping_losses(pair.1, 10), 0, "{} to {}", pair.0.name(), pair.1);
    }
    assert_eq!(state(&host), before, "while it runs");

    // TCP in both directions with large segments, to the LAN and to the host.
    lan.start_iperf_server(5201);
    host.start_iperf_server(5201);
    for (server, options) in [
        (LAN[0], "-n 20M"),
        (LAN[0], "-n 20M -R"),
        (HOST[0], "-n 20M"),
        (HOST[0], "-n 20M -R"),
        (LAN[1], "-n 20M"),
        (LAN[1], "-n 20M -R"),
    ] {
        let bytes = vm1.iperf_received(server, 5201, options);
        assert!(bytes > 10_000_000, "{server} {options}: only {bytes} bytes");
    }
    let a_frame = tramad.statistic("vm1", "tx_bytes") / tramad.statistic("vm1", "tx_packets");
    println!("{a_frame} bytes a frame to vm1");
    assert_eq!(tramad.statistic("vm1", "software_gso_frames"), 0);
    assert!(tramad.statistic("vm1", "tx_gso_frames") > 100);

    // A network that moves to another worker and back takes its uplink along.
    tramad.ctl("set Bridge office other_config:mac-table-size=1024");
    assert_reaches(&vm1, LAN, true);
    assert_reaches(&lan, VM2, true);

    // Between modes and back, while another port of the network is not affected.
    tramad.ctl("add-br lab -- set Port vm2 network=lab");
    assert_reaches(&vm1, LAN, true);
    tramad.ctl("clear Bridge office uplink -- set Bridge office mode=internal");
    assert_reaches(&vm1, LAN, false);
    assert_reaches(&vm1, HOST, false);
    assert_reaches(&lan, VM1, false);
    tramad.ctl("set Bridge office mode=bridged uplink=eth0");
    assert_reaches(&vm1, LAN, true);
    assert_reaches(&vm1, HOST, true);

    tramad.restart(Signal::KILL);
    assert_reaches(&vm1, HOST, true);
    tramad.stop();
    assert_eq!((state(&host), state(&lan)), (before, before_at_lan));
    host.run("ip -d link show eth0 | grep -q 'promiscuity 0'");
}

#[test]
fn an_uplink_that_is_missing_down_or_goes_away_comes_back() {
    let host = Netns::with_ipv6("host");
    let [vm1, vm2] = ["vm1", "vm2"].map(Netns::with_ipv6);
    let mut tramad = Tramad::start_in(
        &host,
        &example(
            BRIDGED,
            &[
                guest_port(&vm1, "vm1", "office", VM1_ADDRESSES),
                guest_port(&vm2, "vm2", "office", VM2_ADDRESSES),
            ]
            .concat(),
        ),
    );
    tramad.wait_for_log("interface eth0: find it: No such device", SOON);
    assert_reaches(&vm1, VM2, true);
    let lan = Netns::with_ipv6("lan");
    let plug = || {
        host.run(&format!("ip link add eth0 type veth peer name in netns {}", lan.name()));
        lan.run("ip link set in address 52:54:00:00:00:fe");
        lan.run("ip addr add 192.168.56.3/24 dev in; ip addr add fd00:56::3/64 dev in; ip link set in up");
    };
    plug();
    tramad.wait_for_log("it is down; `ip link set eth0 up`", SOON);
    host.run("ip link set eth0 up");
    assert_reaches(&vm1, LAN, true);

    host.run("ip link set eth0 down");
    tramad.wait_for_log("the interface is down or was deleted", SOON);
    assert!(tramad.ctl("show").contains("error:"), "{}", tramad.ctl("show"));
    assert_reaches(&vm1, VM2, true);
    host.run("ip link set eth0 up");
    assert_reaches(&vm1, LAN, true);

    host.run("ip link del eth0");
    assert_reaches(&vm1, VM2, true);
    plug();
    host.run("ip link set eth0 mtu 1400; ip link set eth0 up");
    tramad.wait_for_log(
        "its MTU is 1400, but the network's is 1500; `ip link set eth0 mtu 1500`",
        SOON,
    );
    host.run("ip link set eth0 mtu 1500");
    assert_reaches(&vm1, LAN, true);
    tramad.stop();
}

#[test]
fn an_internal_network_reaches_nothing_but_itself() {
    let [host, lan] = host_on_a_lan();
    let [vm1, vm2] = ["vm1", "vm2"].map(Netns::with_ipv6);
    let before = state(&host);
    let machines = [
        guest_port(&vm1, "vm1", "lab", VM1_ADDRESSES),
        guest_port(&vm2, "vm2", "lab", VM2_ADDRESSES),
    ];
    let tramad = Tramad::start_in(&host, &example(INTERNAL, &machines.concat()));
    assert_reaches(&vm1, VM2, true);
    assert_reaches(&vm2, VM1, true);
    for (from, to) in [(&vm1, HOST), (&vm1, LAN), (&host, VM1), (&lan, VM1)] {
        assert_reaches(from, to, false);
    }
    assert_eq!(state(&host), before);

    // Unattached, and with the cable disconnected: unreachable.
    tramad.ctl("clear Port vm2 network");
    assert_reaches(&vm1, VM2, false);
    tramad.ctl("set Port vm2 network=lab");
    assert_reaches(&vm1, VM2, true);
    tramad.ctl("link vm2 down");
    assert_reaches(&vm1, VM2, false);
    tramad.ctl("link vm2 up");
    assert_reaches(&vm1, VM2, true);

    // A frame with a forged source is dropped.
    let mac = vm1.run("cat /sys/class/net/vm1/address").trim().to_owned();
    tramad.ctl(&format!("set Port vm1 mac=\"{mac}\" spoof=deny"));
    assert_reaches(&vm1, VM2, true);
    vm1.run("ip link set vm1 address 52:54:00:99:99:99; ip neigh flush all");
    assert!(!vm1.pings(VM2[0], 2), "from a forged address");
    assert!(!tramad.ctl("fdb/show lab").contains("52:54:00:99:99:99"));
    let drops = tramad.ctl("counters vm1");
    assert!(drops.contains("source_forged"), "{drops}");
    tramad.ctl("set Port vm1 spoof=allow");
    assert_reaches(&vm1, VM2, true);
    tramad.stop();
}

#[test]
fn who_hears_what_others_say() {
    let [host, vm1, vm2, listener] = ["host", "vm1", "vm2", "ear"].map(Netns::with_ipv6);
    let machines = [
        guest_port(&vm1, "vm1", "vboxnet0", VM1_ADDRESSES),
        guest_port(&vm2, "vm2", "vboxnet0", VM2_ADDRESSES),
        guest_port(&listener, "ear", "vboxnet0", ["192.168.56.13/24", "fd00:56::13/64"]),
    ];
    let tramad = Tramad::start_in(&host, &example(HOST_ONLY, &machines.concat()));
    assert_reaches(&vm1, VM2, true);
    assert_reaches(&vm1, HOST, true);
    for (promiscuous, hears_vms, hears_host) in
        [("deny", false, false), ("allow-vms", true, false), ("allow-all", true, true)]
    {
        tramad.ctl(&format!("set Port ear promiscuous={promiscuous}"));
        for (what, to, heard) in
            [("machines", VM2[0], hears_vms), ("the host", HOST[0], hears_host)]
        {
            let ear = listener.capture("ear", &format!("icmp and host {to}"));
            vm1.wait_for_ping(to, SOON);
            if heard {
                ear.wait_for("an echo reply", SOON, |text| text.contains("echo reply"));
            }
            let frames = ear.stop().frames;
            assert_eq!(
                frames > 0,
                heard,
                "{promiscuous}: {frames} frames between a machine and {what}"
            );
        }
    }
    tramad.stop();
}

/// Returns an ARP request for 10.7.0.2 in VLAN 7 with priority 3.
fn tagged_request() -> Vec<u8> {
    let source = [0x52, 0x54, 0, 0, 0, 0xfe];
    let mut frame = vec![0xff; 6];
    frame.extend(source);
    frame.extend([0x81, 0x00, 0x60, 0x07, 0x08, 0x06]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(source);
    frame.extend([10, 7, 0, 3]);
    frame.extend([0; 6]);
    frame.extend([10, 7, 0, 2]);
    frame.resize(64, 0);
    frame
}

#[test]
fn vlans_of_the_lan_are_those_of_the_network() {
    let [host, lan] = host_on_a_lan();
    let vm = Netns::with_ipv6("vm");
    let port = guest_port(&vm, "vm", "office", ["10.7.0.2/24", "fd00:7::2/64"]) + "tag = 7\n";
    let tramad = Tramad::start_in(&host, &example(BRIDGED, &port));
    let wire = RawTap::bridge(&lan, "in");
    let reply = wait_until("the machine answers", SOON, || {
        wire.send(&tagged_request());
        wire.receive(Duration::from_millis(100), |frame| {
            frame.get(16..22) == Some(&[0x08, 0x06, 0, 1, 8, 0]) && frame[25] == 2
        })
    });
    assert_eq!(reply[12..16], [0x81, 0x00, 0x00, 0x07], "its tag");
    assert_eq!(reply[32..36], [10, 7, 0, 2], "who answers");
    tramad.stop();
}

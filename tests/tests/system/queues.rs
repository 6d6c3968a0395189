//! Several queue pairs on a port: a real guest and testpmd use all enabled pairs in both
//! directions, also after their number has changed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Testpmd, Tramad, wait_until};

const LIMIT: Duration = Duration::from_secs(120);

fn vhost_port(name: &str) -> String {
    vhost_port_of(name, 2)
}

fn vhost_port_of(name: &str, queues: u16) -> String {
    format!(
        "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
         path = \"{{dir}}/{name}.sock\"\nqueues = {queues}\n"
    )
}

fn host_port(netns: &Netns) -> String {
    format!(
        "\n[[port]]\nname = \"host\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"host\"\n\
         netns = \"{}\"\naddress = \"10.1.0.100/24\"\n",
        netns.name()
    )
}

/// QEMU's names of the network device features, by bit (virtio 1.2, section 5.1.3). QEMU adds some
/// that its backend did not offer; other VMMs do not.
const PROPERTIES: [(u32, &str); 20] = [
    (0, "csum"),
    (1, "guest_csum"),
    (2, "ctrl_guest_offloads"),
    (7, "guest_tso4"),
    (8, "guest_tso6"),
    (9, "guest_ecn"),
    (10, "guest_ufo"),
    (11, "host_tso4"),
    (12, "host_tso6"),
    (13, "host_ecn"),
    (14, "host_ufo"),
    (15, "mrg_rxbuf"),
    (16, "status"),
    (17, "ctrl_vq"),
    (18, "ctrl_rx"),
    (19, "ctrl_vlan"),
    (20, "ctrl_rx_extra"),
    (21, "guest_announce"),
    (22, "mq"),
    (23, "ctrl_mac_addr"),
];

/// Returns the features offered on a socket, as properties of a device with exactly these.
fn offered(socket: &Path) -> String {
    // GET_FEATURES, version 1, without a body.
    let request = [1u32, 1, 0].map(u32::to_ne_bytes).concat();
    let mut stream = UnixStream::connect(socket).expect("the port listens");
    stream.write_all(&request).expect("a request");
    let (mut header, mut offer) = ([0; 12], [0; 8]);
    stream.read_exact(&mut header).expect("an answer");
    stream.read_exact(&mut offer).expect("its body");
    let offer = u64::from_ne_bytes(offer);
    let property = |(bit, name): (u32, &str)| {
        format!("{name}={}", if offer & 1 << bit == 0 { "off" } else { "on" })
    };
    PROPERTIES.map(property).join(",")
}

/// Waits until a port's driver uses this many pairs.
#[track_caller]
fn wait_for_pairs(tramad: &Tramad, port: &str, pairs: u16) {
    wait_until(&format!("{port} uses {pairs} queue pairs"), LIMIT, || {
        let shown = tramad.ctl(&format!("get Interface {port} status:queue_pairs"));
        (shown.trim().trim_matches('"') == pairs.to_string()).then_some(())
    });
}

/// Returns the frames of each queue of a guest's eth0, received and sent.
fn by_queue(guest: &Guest) -> [[u64; 2]; 2] {
    let text = guest.run("ethtool -S eth0");
    let value = |direction: &str, queue: usize| -> u64 {
        let names =
            [format!("{direction}_queue_{queue}_packets:"), format!("{direction}{queue}_packets:")];
        let line = text
            .lines()
            .find_map(|line| names.iter().find_map(|name| line.trim().strip_prefix(name.as_str())));
        // An unused queue has no counters.
        line.map_or(0, |value| value.trim().parse().expect("a counter"))
    };
    ["rx", "tx"].map(|direction| [0, 1].map(|queue| value(direction, queue)))
}

#[test]
fn a_guest_uses_as_many_queue_pairs_as_it_likes() {
    let host = Netns::new("host");
    let configuration =
        format!("[[network]]\nname = \"lab\"\n{}{}", vhost_port("vm"), host_port(&host));
    let tramad = Tramad::start(&configuration);
    let nic = Nic::connecting(tramad.path("vm.sock"), "52:54:00:00:00:01").with_queues(2);
    let guest = Guest::boot("vm", nic);
    guest.address("10.1.0.1/24");
    guest.wait_for_ping("10.1.0.100", LIMIT);
    host.start_iperf_server(5201);
    for pairs in [2, 1, 2] {
        // Fails if the number is unchanged.
        guest.try_run(&format!("ethtool -L eth0 combined {pairs}"));
        let shown = guest.run("ethtool -l eth0");
        // The first is the maximum.
        let current = shown.rsplit("Combined:").next().map(str::trim);
        assert_eq!(current, Some(pairs.to_string().as_str()), "{shown}");
        wait_for_pairs(&tramad, "vm", pairs);
        let before = by_queue(&guest);
        // Sixteen connections: all hash to the same queue once in 65536 runs. One process on each
        // processor sends, since a driver chooses the queue by the processor.
        for options in ["-n 32M -P 16 -R", "-n 32M -P 16"] {
            let bytes = guest.iperf_received("10.1.0.100", 5201, options);
            assert!(bytes > 1_000_000, "{pairs} pairs, {options}: only {bytes} bytes");
        }
        for processor in ["1", "2"] {
            guest.run(&format!("taskset {processor} ping -q -c 20 -i 0.01 10.1.0.100"));
        }
        let after = by_queue(&guest);
        println!("{pairs} pairs: {before:?} to {after:?}");
        for direction in 0..2 {
            let passed = [0, 1].map(|queue| after[direction][queue] - before[direction][queue]);
            assert!(passed[0] >= 20, "queue 0 is not used: {passed:?}");
            assert_eq!(passed[1] >= 20, pairs == 2, "queue 1 with {pairs} pairs: {passed:?}");
        }
    }
    assert_eq!(tramad.metric("trama_port_connects_total", &["vm"]), 1);
    tramad.stop();
}

#[test]
fn a_vmm_that_adds_nothing_to_the_offer_gives_its_guest_all_queue_pairs() {
    let host = Netns::new("host");
    let counts = [2, 4];
    let ports = counts.map(|pairs| vhost_port_of(&format!("vm{pairs}"), pairs)).join("");
    let tramad =
        Tramad::start(&format!("[[network]]\nname = \"lab\"\n{ports}{}", host_port(&host)));
    for pairs in counts {
        let (name, mac) = (format!("vm{pairs}"), format!("52:54:00:00:00:0{pairs}"));
        let socket = tramad.path(&format!("{name}.sock"));
        let nic = Nic::connecting(&socket, &mac).with_queues(pairs).with(&offered(&socket));
        let guest = Guest::boot(&name, nic);
        guest.address(&format!("10.1.0.{pairs}/24"));
        guest.wait_for_ping("10.1.0.100", LIMIT);
        guest.run(&format!("ethtool -L eth0 combined {pairs} || true"));
        wait_for_pairs(&tramad, &name, pairs);
        guest.wait_for_ping("10.1.0.100", LIMIT);
    }
    tramad.stop();
}

#[test]
fn qemu_says_how_many_queues_it_may_ask_for_and_has_nothing_else_to_say() {
    let tramad = Tramad::start(&format!("[[network]]\nname = \"lab\"\n{}", vhost_port("vm")));
    let nic = Nic::connecting(tramad.path("vm.sock"), "52:54:00:00:00:01");
    let guest = Guest::launch(&GuestOptions::new("greedy", [nic.clone().with_queues(4)]));
    wait_until("QEMU says how many there are", LIMIT, || {
        guest.qemu_log().contains("you are asking more queues than supported: 2").then_some(())
    });
    drop(guest);
    let guest = Guest::boot("vm", nic.with_queues(2));
    assert_eq!(guest.qemu_log().trim(), "", "it warns of what a backend offers needlessly");
    tramad.stop();
}

#[test]
fn testpmd_finds_its_flows_on_all_queues() {
    let text =
        format!("[[network]]\nname = \"lab\"\n{}{}", vhost_port("left"), vhost_port("right"));
    let tramad = Tramad::start(&text);
    let sockets = [tramad.path("left.sock"), tramad.path("right.sock")];
    let mut testpmd =
        Testpmd::start([&sockets[0], &sockets[1]], "queue_size=256,queues=2,mrg_rxbuf=1");
    testpmd.circulate(8, 20_000, LIMIT);
    for port in ["left", "right"] {
        wait_for_pairs(&tramad, port, 2);
    }
    for direction in ["rx", "tx"] {
        let counted = testpmd.counted_by_queue(direction);
        println!("{direction}: {counted:?}");
        assert_eq!(counted.len(), 4, "two devices with two queues each");
        assert!(counted.iter().all(|frames| *frames >= 100), "{direction}: {counted:?}");
    }
    testpmd.kill();
    tramad.stop();
}

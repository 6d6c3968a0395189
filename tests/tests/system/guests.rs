//! Real guests and a namespace host on one network: they reach each other, others receive nothing,
//! large segments stay whole, and a frontend without offloads gets segmented frames.

use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, SOON, Tramad};

const SERVED: &str = "52:54:00:00:00:01";
const SERVING: &str = "52:54:00:00:00:02";
const PLAIN: &str = "52:54:00:00:00:03";

/// Returns two guests (one of each role) and a host in VLAN 10, and a guest and a host in VLAN 20.
fn lab(host: &Netns, other_host: &Netns) -> String {
    format!(
        r#"
[[network]]
name = "lab"

[[port]]
name = "served"
network = "lab"
type = "vhost-user"
path = "{{dir}}/served.sock"
role = "server"
tag = 10

[[port]]
name = "serving"
network = "lab"
type = "vhost-user"
path = "{{dir}}/serving.sock"
role = "client"
tag = 10

[[port]]
name = "host"
network = "lab"
type = "tap"
ifname = "host"
netns = "{}"
address = "10.1.0.100/24"
tag = 10

[[port]]
name = "stranger"
network = "lab"
type = "vhost-user"
path = "{{dir}}/stranger.sock"
role = "server"
tag = 20

[[port]]
name = "otherhost"
network = "lab"
type = "tap"
ifname = "otherhost"
netns = "{}"
address = "10.1.0.101/24"
tag = 20
"#,
        host.name(),
        other_host.name()
    )
}

/// Boots guests in parallel and waits for all.
fn boot_all<const N: usize>(options: [GuestOptions; N]) -> [Guest; N] {
    let guests = options.map(|options| Guest::launch(&options));
    guests.iter().for_each(Guest::wait_until_ready);
    guests
}

#[test]
fn guests_and_a_host_talk_and_another_vlan_hears_nothing() {
    let (host, other_host) = (Netns::new("host"), Netns::new("other"));
    let tramad = Tramad::start(&lab(&host, &other_host));
    let [served, serving, stranger] = boot_all([
        GuestOptions::new("served", [Nic::connecting(tramad.path("served.sock"), SERVED)]),
        GuestOptions::new("serving", [Nic::listening(tramad.path("serving.sock"), SERVING)]),
        GuestOptions::new("stranger", [Nic::connecting(tramad.path("stranger.sock"), PLAIN)]),
    ]);
    served.address("10.1.0.1/24");
    serving.address("10.1.0.2/24");
    // Even an address of the same subnet is unreachable in another VLAN.
    stranger.address("10.1.0.3/24");

    let at_stranger = stranger.capture("eth0", "inbound");
    let at_other_host = other_host.capture("otherhost", "inbound");

    served.wait_for_ping("10.1.0.2", SOON);
    host.wait_for_ping("10.1.0.1", SOON);
    host.wait_for_ping("10.1.0.2", SOON);
    for (from, to) in [(&served, "10.1.0.2"), (&serving, "10.1.0.1"), (&served, "10.1.0.100")] {
        assert_eq!(from.ping_losses(to, 10), 0, "{} to {to}", from.name());
    }
    assert_eq!(host.ping_losses("10.1.0.2", 10), 0);

    // TCP in each direction between guests, and between a guest and the host.
    serving.start_iperf_server(5201);
    host.start_iperf_server(5201);
    for server in ["10.1.0.2", "10.1.0.100"] {
        for options in ["-n 20M", "-n 20M -R"] {
            let bytes = served.iperf_received(server, 5201, options);
            assert!(bytes > 10_000_000, "{server} {options}: only {bytes} bytes");
        }
    }
    for port in ["served", "serving", "host"] {
        // Large segments arrive whole, and none is cut on the way.
        let bytes_a_frame =
            tramad.statistic(port, "rx_bytes") / tramad.statistic(port, "rx_packets");
        println!("{port}: {bytes_a_frame} bytes a frame");
        for counter in ["rx_gso_frames", "tx_gso_frames"] {
            assert!(tramad.statistic(port, counter) > 100, "{port}: {counter}");
        }
        assert_eq!(tramad.statistic(port, "software_gso_frames"), 0, "{port}");
    }

    let stranger_heard = at_stranger.stop();
    assert_eq!(stranger_heard.frames, 0, "{}", stranger_heard.excerpt);
    let other_host_heard = at_other_host.stop();
    assert_eq!(other_host_heard.frames, 0, "{}", other_host_heard.excerpt);
    assert!(!stranger.pings("10.1.0.1", 2), "VLAN 20 reaches VLAN 10");
    // The captures work: there is traffic within VLAN 20.
    stranger.wait_for_ping("10.1.0.101", SOON);

    let table = tramad.ctl("fdb/show lab");
    for mac in [SERVED, SERVING, PLAIN] {
        assert!(table.contains(mac), "{mac} is not in the table:\n{table}");
    }
    tramad.stop();
}

#[test]
fn a_frontend_without_offloads_is_served_by_the_fallback() {
    let (host, other_host) = (Netns::new("host"), Netns::new("other"));
    let tramad = Tramad::start(&lab(&host, &other_host));
    let plain = Nic::connecting(tramad.path("served.sock"), PLAIN).with(Nic::PLAIN);
    let [plain, full] = boot_all([
        GuestOptions::new("plain", [plain]),
        GuestOptions::new("full", [Nic::listening(tramad.path("serving.sock"), SERVING)]),
    ]);
    plain.address("10.1.0.1/24");
    full.address("10.1.0.2/24");
    plain.wait_for_ping("10.1.0.2", SOON);

    full.start_iperf_server(5201);
    host.start_iperf_server(5201);
    for server in ["10.1.0.2", "10.1.0.100"] {
        for options in ["-n 4M", "-n 4M -R"] {
            let bytes = plain.iperf_received(server, 5201, options);
            assert!(bytes > 2_000_000, "{server} {options}: only {bytes} bytes");
        }
    }
    assert!(tramad.statistic("served", "software_gso_frames") > 0);
    assert!(tramad.statistic("served", "software_checksum_frames") > 0);
    assert_eq!(tramad.statistic("served", "tx_gso_frames"), 0);
    assert_eq!(tramad.statistic("served", "rx_gso_frames"), 0);
    assert_eq!(tramad.statistic("serving", "software_gso_frames"), 0);
    tramad.stop();
}

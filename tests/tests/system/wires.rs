//! Ports over sockets: QEMU without shared memory, in both roles and over all kinds of sockets,
//! restarts of the switch, and many peers at one socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use trama_tests::tramad::free_address;
use trama_tests::{
    Guest, GuestOptions, Host, Netns, Nic, Process, SOON, Tramad, tied_command, wait_until,
};

/// A port for a guest and a host behind a TAP, in a VLAN of their own.
fn pair(number: usize, host: &Netns, keys: &str) -> String {
    let tag = 10 + number;
    format!(
        "[[port]]\nname = \"vm{number}\"\nnetwork = \"lab\"\ntag = {tag}\n{keys}\n\
         [[port]]\nname = \"host{number}\"\nnetwork = \"lab\"\ntag = {tag}\ntype = \"tap\"\n\
         ifname = \"tap{number}\"\nnetns = \"{}\"\naddress = \"10.1.{number}.100/24\"\n",
        host.name()
    )
}

/// The argument of `-netdev` that `tramactl qemu` prints for a port, without its id and with the
/// option by which this QEMU connects again.
fn printed(tramad: &Tramad, port: &str) -> String {
    let text = tramad.ctl(&format!("qemu {port}"));
    let netdev = text.lines().find_map(|line| line.strip_prefix("-netdev ")).expect("a netdev");
    netdev.replace(&format!("id=net-{port},"), "")
}

/// Starts a guest whose memory is its own, with these backends as eth0, eth1….
fn guest(netdevs: &[String]) -> Guest {
    let nic = |(index, netdev): (usize, &String)| {
        Nic::over(netdev, &format!("52:54:00:00:00:{:02x}", index + 1))
    };
    let nics: Vec<Nic> = netdevs.iter().enumerate().map(nic).collect();
    let options = GuestOptions { shared_memory: false, ..GuestOptions::new("guest", nics) };
    Guest::start(&options)
}

#[test]
fn a_guest_without_shared_memory_talks_over_every_kind_of_socket() {
    let host = Netns::new("host");
    let [tcp, client, local, remote] = [0; 4].map(|_| free_address());
    let ports = [
        "type = \"stream\"\npath = \"{dir}/vm0.sock\"".to_owned(),
        "type = \"stream\"\npath = \"{dir}/vm1.sock\"\nrole = \"client\"".to_owned(),
        format!("type = \"stream\"\naddress = \"{tcp}\""),
        format!("type = \"stream\"\naddress = \"{client}\"\nrole = \"client\""),
        format!("type = \"dgram\"\nlocal = \"{local}\"\nremote = \"{remote}\""),
        "type = \"dgram\"\npath = \"{dir}/vm5.sock\"".to_owned(),
        "type = \"dgram\"\npath = \"{dir}/vm6.sock\"\npeer = \"{dir}/guest6.sock\"".to_owned(),
    ];
    let pairs = ports.iter().enumerate().map(|(number, keys)| pair(number, &host, keys));
    let lab = "[[network]]\nname = \"lab\"\n".to_owned();
    let tramad = Tramad::start(&pairs.fold(lab, |text, pair| text + &pair));
    let netdevs: Vec<String> =
        (0..ports.len()).map(|number| printed(&tramad, &format!("vm{number}"))).collect();
    let guest = guest(&netdevs);
    for number in 0..ports.len() {
        guest.configure(&format!("eth{number}"), &format!("10.1.{number}.1/24"));
        guest.wait_for_ping(&format!("10.1.{number}.100"), SOON);
        let status = tramad.ctl(&format!("get Interface vm{number} status:state"));
        assert_eq!(status.trim(), "connected", "vm{number}");
    }
    // In both directions, with segments that are cut for the guest, and checksums that are made.
    for (number, port) in [(0, 5201), (4, 5202)] {
        host.start_iperf_server(port);
        for options in ["-n 5M", "-n 5M -R"] {
            let bytes = guest.iperf_received(&format!("10.1.{number}.100"), port, options);
            assert!(bytes > 4_000_000, "eth{number} {options}: {bytes} bytes");
        }
    }
    assert!(tramad.statistic("vm0", "software_gso_frames") > 0);
    let peer = tramad.ctl("get Interface vm0 status:peer");
    assert!(peer.contains("pid ") && peer.contains(" uid 0"), "{peer}");
}

#[test]
fn a_guest_connects_again_after_a_restart_and_datagrams_go_on() {
    let host = Netns::new("host");
    let stream = pair(0, &host, "type = \"stream\"\npath = \"{dir}/vm0.sock\"");
    let dgram = pair(1, &host, "type = \"dgram\"\npath = \"{dir}/vm1.sock\"");
    let lab = format!("[[network]]\nname = \"lab\"\n{stream}{dgram}");
    let mut tramad = Tramad::start(&lab);
    let guest = guest(&["vm0", "vm1"].map(|port| printed(&tramad, port)));
    for number in 0..2 {
        guest.configure(&format!("eth{number}"), &format!("10.1.{number}.1/24"));
        guest.wait_for_ping(&format!("10.1.{number}.100"), SOON);
    }
    tramad.kill_and_follow();
    for number in 0..2 {
        guest.wait_for_ping(&format!("10.1.{number}.100"), SOON);
    }
    tramad.restart(Signal::TERM);
    for number in 0..2 {
        guest.wait_for_ping(&format!("10.1.{number}.100"), SOON);
    }
    tramad.take_over();
    for number in 0..2 {
        guest.wait_for_ping(&format!("10.1.{number}.100"), SOON);
    }
}

/// Sends 1000 broadcasts at once.
const BROADCASTS: &str = "import socket as s; a = s.socket(s.AF_INET, s.SOCK_DGRAM); \
    a.setsockopt(s.SOL_SOCKET, s.SO_BROADCAST, 1); \
    [a.sendto(bytes(1400), ('10.1.0.255', 9)) for _ in range(1000)]";

#[test]
fn a_peer_that_lies_or_never_reads_costs_others_nothing() {
    let host = Netns::new("host");
    let text = ["bad", "mute"].map(|name| {
        format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntag = 10\ntype = \"stream\"\n\
             path = \"{{dir}}/{name}.sock\"\n"
        )
    });
    let other = Netns::new("other");
    let hosts = [(&host, 1), (&other, 2)].map(|(host, number)| {
        format!(
            "[[port]]\nname = \"host{number}\"\nnetwork = \"lab\"\ntag = 10\ntype = \"tap\"\n\
             ifname = \"eth0\"\nnetns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            host.name()
        )
    });
    let lab = "[[network]]\nname = \"lab\"\n".to_owned() + &text.concat() + &hosts.concat();
    let tramad = Tramad::start(&lab);
    let connect = |name: &str| UnixStream::connect(tramad.path(name)).expect("it listens");
    let mute = connect("mute.sock");
    wait_until("both are there", SOON, || {
        let state = tramad.ctl("get Interface mute status:state");
        (state.trim() == "connected").then_some(())
    });
    host.wait_for_ping("10.1.0.2", SOON);
    // Broadcasts go to the one that never reads, until its socket is full.
    wait_until("it is full", SOON, || {
        host.run(&format!("python3 -c \"{BROADCASTS}\""));
        let full = tramad.ctl("get Interface mute statistics:tx_dropped");
        (full.trim() != "0").then_some(())
    });
    for _ in 0..5 {
        let mut bad = connect("bad.sock");
        bad.write_all(&[0, 0, 0, 1, 0xff]).expect("it is sent");
        assert!(matches!(bad.read(&mut [0]), Ok(0) | Err(_)), "it is closed");
    }
    assert_eq!(host.ping_losses("10.1.0.2", 20), 0);
    let error = tramad.ctl("get Interface bad status:last_error");
    assert!(error.contains("frame length of 1,"), "{error}");
    assert!(tramad.log().contains("frame length of 1,"));
    drop(mute);
}

/// Bits a second that a guest without shared memory sends and receives, beside passt's socket and
/// QEMU's user mode, each measured in turn: `cargo nextest run --release -p trama-tests --test
/// system --run-ignored only figures_beside`.
#[test]
#[ignore = "figures, for an idle machine; passt must be in PATH"]
fn figures_beside_passt_and_user_mode() {
    let host = Netns::new("host");
    let port = pair(0, &host, "type = \"stream\"\npath = \"{dir}/vm0.sock\"");
    let tramad = Tramad::start(&format!("[[network]]\nname = \"lab\"\n{port}"));
    let socket = tramad.path("passt.sock");
    let mut command = tied_command("passt");
    // Another user may not make the socket in the folder of the test.
    command.args(["--foreground", "--runas", "0", "--address", "10.9.0.15", "--netmask", "24"]);
    command.args(["--gateway", "10.9.0.1", "--socket"]).arg(&socket);
    let passt = Process::spawn("passt", command, &tramad.path("passt.log"));
    wait_until("passt listens", SOON, || socket.exists().then_some(()));
    let netdevs = [
        printed(&tramad, "vm0"),
        format!("stream,server=off,addr.type=unix,addr.path={}", socket.display()),
        "user".to_owned(),
    ];
    let guest = guest(&netdevs);
    // The server of passt and of QEMU is on this host's loopback interface.
    let mut command = tied_command("iperf3");
    command.args(["-s", "-B", "127.0.0.1"]);
    let server = Process::spawn("iperf3", command, &tramad.path("iperf3.log"));
    host.start_iperf_server(5201);
    for (number, address, peer) in [
        (0, "10.1.0.1/24", "10.1.0.100"),
        (1, "10.9.0.15/24", "10.9.0.1"),
        (2, "10.0.2.15/24", "10.0.2.2"),
    ] {
        guest.configure(&format!("eth{number}"), address);
        // passt answers pings only where the host lets its user make ping sockets.
        wait_until("the server is reached", SOON, || {
            let try_it = format!("iperf3 -c {peer} -n 1K --connect-timeout 1000");
            (guest.try_run(&try_it).status == 0).then_some(())
        });
    }
    let names = ["trama", "passt", "user"];
    let peers = ["10.1.0.100", "10.9.0.1", "10.0.2.2"];
    for round in 0..3 {
        for (name, peer) in names.iter().zip(peers) {
            let rate = |options: &str| {
                let report = guest.iperf(peer, 5201, options);
                report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default() / 1e9
            };
            let (up, down) = (rate("-t 5"), rate("-t 5 -R"));
            println!("round {round}: {name:6} {up:.2} Gb/s from the guest, {down:.2} to it");
        }
    }
    drop((passt, server));
}

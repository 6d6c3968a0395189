//! The demonstration behind `make demo`: boots three virtual machines and a namespace host on a
//! running `tramad`, shows which of them reach each other, and prints the switch's counters. Any
//! failing step ends it with an error.

use std::io::IsTerminal;
use std::time::Duration;

use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Tramad};

const LIMIT: Duration = Duration::from_secs(30);
const EXAMPLE: &str = include_str!("../../../examples/demo.toml");

fn main() {
    title("The switch");
    let host = Netns::new("host");
    let configuration = EXAMPLE
        .replace("/run/trama/", "{dir}/")
        .replace("/var/lib/trama", "{dir}/state")
        .replace("127.0.0.1:9477", "{metrics}")
        .replace("\"h1\"", &format!("\"{}\"", host.name()));
    let tramad = Tramad::start(&configuration);
    done("tramad runs with examples/demo.toml");
    done("host1 is a namespace on a TAP, 10.1.0.100, VLAN 10");

    title("The machines (QEMU, emulated processor)");
    let path = |name: &str| tramad.path(&format!("{name}.sock"));
    let [vm1, vm2, stranger] = [
        GuestOptions::new("vm1", [Nic::connecting(path("vm1"), "52:54:00:00:00:01")]),
        GuestOptions::new("vm2", [Nic::listening(path("vm2"), "52:54:00:00:00:02")]),
        GuestOptions::new("stranger", [Nic::connecting(path("stranger"), "52:54:00:00:00:03")]),
    ]
    .map(|options| Guest::launch(&options));
    for (guest, address, words) in [
        (&vm1, "10.1.0.1", "VLAN 10, connected to trama's socket"),
        (&vm2, "10.1.0.2", "VLAN 10, trama connected to its socket"),
        (&stranger, "10.1.0.3", "VLAN 20"),
    ] {
        guest.wait_until_ready();
        guest.address(&format!("{address}/24"));
        done(&format!("{} runs Linux {}: {address}, {words}", guest.name(), kernel(guest)));
    }
    let heard_by_stranger = stranger.capture("eth0", "inbound");

    title("Everyone in VLAN 10 reaches everyone");
    for (from, to) in [
        (&vm1 as &dyn Host, "10.1.0.2"),
        (&vm2, "10.1.0.1"),
        (&vm1, "10.1.0.100"),
        (&vm2, "10.1.0.100"),
        (&host, "10.1.0.1"),
        (&host, "10.1.0.2"),
    ] {
        from.wait_for_ping(to, LIMIT);
        let lost = from.ping_losses(to, 5);
        assert_eq!(lost, 0, "{} lost {lost} of 5 echo requests to {to}", from.name());
        done(&format!("{} pings {to}: 5 of 5 answered", short(from)));
    }

    title("TCP, 3 seconds each (the emulated processors are the limit)");
    vm2.start_iperf_server(5201);
    host.start_iperf_server(5201);
    for (server, name) in [("10.1.0.2", "vm2"), ("10.1.0.100", "host1")] {
        for (options, from, to) in [("-t 3", "vm1", name), ("-t 3 -R", name, "vm1")] {
            let bytes = vm1.iperf_received(server, 5201, options);
            assert!(bytes > 0, "no TCP from {from} to {to}");
            done(&format!("{from} to {to}: {} Mb/s", bytes * 8 / 3_000_000));
        }
    }
    let large = tramad.statistic("vm1", "rx_gso_frames");
    let cut = tramad.statistic("vm1", "software_gso_frames");
    assert!(large > 0 && cut == 0, "{large} large segments, {cut} cut in software");
    done(&format!("large segments stay whole: {large} from vm1, {cut} cut by the switch"));

    title("VLAN 20 hears nothing of it");
    let heard = heard_by_stranger.stop();
    assert_eq!(heard.frames, 0, "the stranger heard:\n{}", heard.excerpt);
    done("tcpdump on stranger: 0 frames");
    assert!(!stranger.pings("10.1.0.1", 2), "the stranger reaches vm1");
    done("stranger pings 10.1.0.1: no answer, as it should be");

    title("tramactl show");
    print!("{}", tramad.ctl("show"));
    title("tramactl fdb/show lab");
    print!("{}", tramad.ctl("--names fdb/show lab"));
    title("tramactl counters");
    print!("{}", tramad.ctl("counters"));

    tramad.stop();
    drop((vm1, vm2, stranger, host));
    println!();
    done("tramad ended cleanly; machines, namespace and files are gone");
}

fn title(text: &str) {
    println!("\n{}", styled(text, "1"));
}

fn done(text: &str) {
    println!("  {} {text}", styled("✓", "32"));
}

/// Returns the text in bold or colour on a terminal, plain elsewhere.
fn styled(text: &str, style: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn kernel(guest: &Guest) -> String {
    guest.run("uname -r").trim().to_owned()
}

/// Returns a host's name as in the configuration.
fn short(host: &dyn Host) -> &str {
    if host.name().ends_with("-host") { "host1" } else { host.name() }
}

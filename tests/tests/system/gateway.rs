//! The gateway of a network: a separate process that answers on the gateway's addresses, and whose
//! crash affects nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use trama_tests::nat::tap_port;
use trama_tests::{Host, Netns, Pinging, Process, Tramad, wait_until};

const GATEWAY: &str = "10.1.0.1";
const GATEWAY6: &str = "fd00:1::1";
const MOMENT: Duration = Duration::from_secs(60);

/// Returns two namespaces on a network with a gateway; `keys` are added to the network.
fn configuration(left: &Netns, right: &Netns, keys: &str) -> String {
    let mut text = format!(
        "[[network]]\nname = \"lab\"\nsubnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n{keys}\n"
    );
    for (name, netns, number) in [("left", left, 101), ("right", right, 102)] {
        let keys = format!(
            "ifname = \"{name}\"\naddress = [\"10.1.0.{number}/24\", \"fd00:1::{number}/64\"]"
        );
        text += &tap_port("lab", name, netns, &keys);
    }
    text
}

fn exists(process: Pid) -> bool {
    Path::new(&format!("/proc/{}", process.as_raw_nonzero())).exists()
}

#[test]
fn the_gateway_answers_and_its_death_disturbs_nobody() {
    let (left, right) = (Netns::with_ipv6("left"), Netns::with_ipv6("right"));
    let tramad = Tramad::start(&configuration(&left, &right, ""));
    let mut gateway = tramad.gateway_after(0);
    for address in [GATEWAY, GATEWAY6] {
        left.wait_for_ping(address, MOMENT);
        right.wait_for_ping(address, MOMENT);
    }
    left.run("ping -c 1 -W 20 -s 1400 10.1.0.1");
    assert_ne!(left.try_run("ping -c 1 -W 1 10.1.0.77").status, 0, "answers for another address");
    let table = tramad.ctl("fdb/show lab");
    assert!(table.lines().any(|line| line.contains("gateway")), "{table}");

    let flaps = left.run("cat /sys/class/net/left/carrier_changes");
    let bystanders = Pinging::start(&left, "10.1.0.102", 0.01);
    // Load on the gateway while it is killed; ends with the namespace.
    right.run(&format!("ping -q -i 0.01 {GATEWAY} >/dev/null 2>&1 </dev/null &"));
    for round in 1..=3 {
        let killed = Instant::now();
        kill_process(gateway, Signal::KILL).expect("kill the gateway");
        gateway = tramad.gateway_after(round);
        left.wait_for_ping(GATEWAY, MOMENT);
        println!("service is back after {:?}", killed.elapsed());
    }
    bystanders.stop_without_loss(20);
    assert_eq!(left.run("cat /sys/class/net/left/carrier_changes"), flaps);
    assert_eq!(tramad.metric("trama_gateway_restarts_total", &["network=\"lab\""]), 3);
    wait_until("the counters come", MOMENT, || {
        (tramad.metric("trama_gateway_frames_total", &["direction=\"tx\""]) > 100).then_some(())
    });

    tramad.stop();
    assert!(!exists(gateway), "the daemon left its gateway behind");
}

#[test]
fn a_gateway_comes_changes_and_goes_with_the_configuration() {
    let (left, right) = (Netns::with_ipv6("left"), Netns::with_ipv6("right"));
    let mut tramad = Tramad::start(&configuration(&left, &right, ""));
    let first = tramad.gateway_after(0);
    left.wait_for_ping(GATEWAY, MOMENT);
    let bystanders = Pinging::start(&left, "10.1.0.102", 0.01);
    let text = tramad.configuration();

    // Other addresses: the same process answers on them.
    let moved = text.replace("10.1.0.0/24", "10.1.0.128/25").replace("\"fd00:1::/64\"", "");
    tramad.write_configuration(&moved);
    tramad.ctl("reload");
    right.run("ip address add 10.1.0.140/25 dev right");
    right.wait_for_ping("10.1.0.129", MOMENT);
    assert_ne!(right.try_run("ping -c 1 -W 1 10.1.0.1").status, 0, "the old address answers");
    assert!(exists(first));
    assert_eq!(tramad.gateways().len(), 1);

    // No addresses.
    tramad.write_configuration(&text.replace("subnet", "# subnet"));
    tramad.ctl("reload");
    assert!(!exists(first), "a gateway without a network to serve");
    tramad.write_configuration(&text);
    tramad.ctl("reload");
    let second = tramad.gateway_after(1);
    left.wait_for_ping(GATEWAY, MOMENT);
    bystanders.stop_without_loss(20);

    // It outlives its daemon, and the next daemon goes on with it.
    tramad.restart(Signal::KILL);
    let goes_on = format!("gateway goes on as process {}", second.as_raw_nonzero());
    tramad.wait_for_log(&goes_on, MOMENT);
    left.wait_for_ping(GATEWAY, MOMENT);
    tramad.stop();
    wait_until("the daemon ends its gateway", MOMENT, || (!exists(second)).then_some(()));
}

#[test]
fn tftp_serves_boot_files() {
    let (left, right) = (Netns::with_ipv6("left"), Netns::with_ipv6("right"));
    let folder = tempfile::tempdir().expect("temporary directory");
    let content: Vec<u8> =
        (0..300_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    std::fs::write(folder.path().join("boot.img"), &content).expect("boot file");
    let key = format!("tftp = \"{}\"", folder.path().display());
    let tramad = Tramad::start(&configuration(&left, &right, &key));
    tramad.gateway_after(0);
    left.wait_for_ping(GATEWAY, MOMENT);
    let got = format!("{}/got", left.scratch());
    for command in [
        format!("busybox tftp -g -r boot.img -l {got} {GATEWAY}"),
        format!("busybox tftp -g -b 1400 -r boot.img -l {got} {GATEWAY}"),
        format!("curl -s -o {got} tftp://{GATEWAY}/boot.img"),
        format!("curl -s -o {got} --tftp-blksize 1024 'tftp://[{GATEWAY6}]/boot.img'"),
    ] {
        left.run(&command);
        assert!(std::fs::read(&got).expect("fetched file") == content, "{command}");
        std::fs::remove_file(&got).expect("fetched file");
    }
    assert_ne!(left.try_run(&format!("curl -s tftp://{GATEWAY}/none")).status, 0);
    tramad.stop();
}

/// Starts a DNS server on the host, at this address, that resolves `one.test` to `answer`.
fn dns_server(host: &Netns, dir: &Path, address: &str, answer: &str) -> Process {
    host.run(&format!("ip address add {address}/32 dev lo"));
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file"]);
    command.args(["--log-facility=-", "--bind-interfaces", "--no-resolv", "--no-hosts"]);
    command.arg(format!("--listen-address={address}"));
    command.arg(format!("--address=/one.test/{answer}"));
    let mut server = Process::spawn("dnsmasq", command, &dir.join(format!("{address}.log")));
    server.wait_for_log("started", MOMENT);
    server
}

/// Returns the answer that busybox's nslookup gets for `name`, without the lines about the server.
fn look_up(host: &Netns, name: &str) -> String {
    let text = host.try_run(&format!("busybox nslookup {name} {GATEWAY}")).text;
    text.split_once("\n\n").map(|(_, answer)| answer.to_owned()).unwrap_or_default()
}

#[test]
fn dns_follows_the_hosts_resolvers() {
    let (left, right, host) =
        (Netns::with_ipv6("left"), Netns::with_ipv6("right"), Netns::new("host"));
    let dir = tempfile::tempdir().expect("temporary directory");
    let _first = dns_server(&host, dir.path(), "192.0.2.1", "198.51.100.1");
    let _second = dns_server(&host, dir.path(), "192.0.2.2", "198.51.100.2");
    let hosts = "hosts = { vm1 = \"10.1.0.101\" }";
    let text = configuration(&left, &right, hosts);
    let tramad = Tramad::start_inside(&host, &["192.0.2.1"], &text);
    let gateway = tramad.gateway_after(0);
    left.wait_for_ping(GATEWAY, MOMENT);

    wait_until("the name resolves", MOMENT, || {
        look_up(&left, "one.test").contains("198.51.100.1").then_some(())
    });
    assert!(look_up(&left, "vm1").contains("10.1.0.101"));
    assert!(look_up(&left, "10.1.0.101").contains("vm1"));
    assert!(!look_up(&left, "none.test").contains("198.51"), "a name that is not there");

    tramad.set_resolvers(&["192.0.2.2"]);
    let changed = Instant::now();
    wait_until("the change is followed", MOMENT, || {
        look_up(&left, "one.test").contains("198.51.100.2").then_some(())
    });
    println!("the change was followed within {:?}", changed.elapsed());

    // The first server does not answer: the next one is asked.
    tramad.set_resolvers(&["192.0.2.77", "192.0.2.1"]);
    wait_until("the next server is asked", MOMENT, || {
        look_up(&right, "one.test").contains("198.51.100.1").then_some(())
    });
    kill_process(gateway, Signal::KILL).expect("kill the gateway");
    wait_until("the name resolves again", MOMENT, || {
        look_up(&left, "one.test").contains("198.51.100.1").then_some(())
    });
    tramad.stop();
}

#[test]
fn a_gateway_is_named_after_its_network_and_ends_with_the_daemon_alone() {
    let text = "[[network]]\nname = \"branch-office\"\nsubnet = \"10.1.0.0/24\"\n\
                dhcp = true\n";
    let mut tramad = Tramad::start(text);
    let gateway = tramad.gateway_after(0);
    let of_process = |file: &str| {
        let path = format!("/proc/{}/{file}", gateway.as_raw_nonzero());
        std::fs::read_to_string(path).expect("a process")
    };
    assert_eq!(of_process("comm"), "trama:branch-of\n", "15 bytes is what the kernel keeps");
    assert!(
        of_process("cmdline").starts_with("trama:branch-office\0"),
        "{}",
        of_process("cmdline")
    );

    // Signals that are sent to all processes of a program.
    for signal in [Signal::HUP, Signal::INT, Signal::USR1, Signal::USR2, Signal::PIPE] {
        kill_process(gateway, signal).expect("signal the gateway");
    }
    // It still answers the daemon, so it has survived them.
    wait_until("the gateway answers", MOMENT, || {
        (tramad.try_ctl(&["leases", "branch-office"]).status == 0).then_some(())
    });
    assert!(exists(gateway));
    assert_eq!(tramad.gateways(), [gateway], "another took its place");

    // A terminal's interrupt is for the daemon, which stops its gateway in order.
    let daemon = Pid::from_raw(tramad.id() as i32).expect("a process");
    kill_process_group(daemon, Signal::INT).expect("interrupt");
    tramad.wait_for_log("ended", MOMENT);
    wait_until("the gateway is gone", MOMENT, || (!exists(gateway)).then_some(()));
    assert!(!tramad.log().contains("starts again"), "{}", tramad.log());
}

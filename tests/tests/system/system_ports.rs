//! Ports of type `system`: interfaces that exist join a network, keep their addresses, and are
//! found again when they come back.
//!
//! The host is a namespace that tramad runs in. Other namespaces are at the far ends of veth pairs.

use std::time::Duration;

use rustix::process::Signal;
use trama_tests::nat::tap_port;
use trama_tests::{Guest, Host, Netns, Nic, Pinging, Process, SOON, Tramad, wait_until};

const NETWORK: &str = "[[network]]\nname = \"lab\"\n";

/// Joins `host` and another namespace by a veth pair; the far end is `eth0` with this address.
fn plug(host: &Netns, name: &str, far: &Netns, address: &str) {
    host.run(&format!(
        "ip link add {name} type veth peer name eth0 netns {} && ip link set {name} up",
        far.name()
    ));
    far.run(&format!("ip addr add {address} dev eth0 && ip link set eth0 up"));
}

/// Waits until a port runs.
#[track_caller]
fn wait_for_port(tramad: &Tramad, port: &str) {
    wait_until(&format!("{port} runs"), SOON, || {
        (tramad.ctl(&format!("get Interface {port} error")).trim() == "[]").then_some(())
    });
}

/// Returns why a port does not run.
#[track_caller]
fn error_of(tramad: &Tramad, port: &str) -> String {
    tramad.ctl(&format!("get Interface {port} error"))
}

#[test]
fn interfaces_that_exist_join_and_keep_their_addresses() {
    let [host, a, b] = ["host", "a", "b"].map(Netns::new);
    plug(&host, "v1", &a, "10.1.0.1/24");
    plug(&host, "v2", &b, "10.1.0.2/24");
    host.run("ip addr add 10.1.0.3/24 dev v1");
    let mut tramad = Tramad::start_in(&host, NETWORK);
    tramad.ctl("add-port lab v1 -- add-port lab v2 -- add-port lab new");
    assert_eq!(tramad.ctl("get Interface v1 type"), "system\n");
    assert_eq!(tramad.ctl("get Interface new type"), "tap\n");
    assert!(tramad.configuration().contains("type = \"system\""), "{}", tramad.configuration());
    a.wait_for_ping("10.1.0.2", SOON);
    // The address of an interface that has joined: from both sides of it, and the host's own way.
    a.wait_for_ping("10.1.0.3", SOON);
    b.wait_for_ping("10.1.0.3", SOON);
    host.wait_for_ping("10.1.0.2", SOON);
    b.start_iperf_server(5201);
    for options in ["-n 20M", "-n 20M -R"] {
        assert!(a.iperf_received("10.1.0.2", 5201, options) > 10_000_000, "{options}");
    }
    assert!(tramad.statistic("v2", "tx_gso_frames") > 100, "large segments stay whole");
    assert_eq!(tramad.statistic("v2", "software_gso_frames"), 0);
    let mac = host.run("cat /sys/class/net/v1/address");
    assert_eq!(tramad.ctl("get Interface v1 mac_in_use"), format!("\"{}\"\n", mac.trim()));
    let show = tramad.ctl("show");
    assert!(show.contains("type: system\n                options: {ifname=v1}"), "{show}");

    // A switch that follows goes on with the same sockets.
    let pinging = Pinging::start(&a, "10.1.0.2", 0.01);
    tramad.kill_and_follow();
    pinging.stop_without_loss(5);
    let words = "del-port v1 -- add-port lab v1 -- set Interface v1 type=internal";
    let words: Vec<&str> = words.split(' ').collect();
    let stored = tramad.try_ctl(&words);
    assert!(stored.text.contains("another kind of interface"), "{}", stored.text);
    drop(tramad);
    wait_until("the interface is left as it was", SOON, || {
        let shown = host.run("ip -d link show v2; ip addr show v1");
        (shown.contains("promiscuity 0") && shown.contains("10.1.0.3/24")).then_some(())
    });
}

/// What two ports on veth pairs carry beside a Linux bridge, by turns: `cargo nextest run --release
/// -p trama-tests --test system --run-ignored only --no-capture figures_beside_a_bridge`.
#[test]
#[ignore = "figures, for an idle machine"]
fn figures_beside_a_bridge() {
    const SECONDS: u32 = 3;
    let [host, a, b, c, d] = ["host", "a", "b", "c", "d"].map(Netns::new);
    plug(&host, "v1", &a, "10.1.0.1/24");
    plug(&host, "v2", &b, "10.1.0.2/24");
    plug(&host, "v3", &c, "10.2.0.1/24");
    plug(&host, "v4", &d, "10.2.0.2/24");
    host.run(
        "ip link add bridge type bridge && ip link set bridge up && \
         ip link set v3 master bridge && ip link set v4 master bridge",
    );
    let tramad = Tramad::start_in(&host, NETWORK);
    tramad.ctl("add-port lab v1 -- add-port lab v2");
    let ways = [("trama", &a, &b, "10.1.0.2"), ("bridge", &c, &d, "10.2.0.2")];
    for (_, from, to, address) in ways {
        from.wait_for_ping(address, SOON);
        to.start_iperf_server(5201);
    }
    for round in 0..5 {
        for (name, from, _, address) in ways {
            let rate = |more: &str| {
                let options = format!("-t {SECONDS} {more}");
                let bytes = from.iperf_received(address, 5201, &options);
                bytes as f64 * 8.0 / 1e9 / f64::from(SECONDS)
            };
            let (up, down) = (rate(""), rate("-R"));
            println!("round {round}: {name:6} {up:.1} and {down:.1} Gb/s");
        }
    }
}

#[test]
fn two_networks_are_joined_by_a_veth_pair_and_a_second_pair_is_a_loop() {
    let [host, a, b] = ["host", "a", "b"].map(Netns::new);
    host.run("ip link add p0 type veth peer name p1 && ip link set p0 up && ip link set p1 up");
    let station = |network, netns: &Netns, name, address: &str| {
        tap_port(network, name, netns, &format!("ifname = \"eth0\"\naddress = \"{address}/24\""))
    };
    let mut tramad = Tramad::start_in(
        &host,
        &("[[network]]\nname = \"br0\"\n\n[[network]]\nname = \"br1\"\n".to_owned()
            + &station("br0", &a, "a", "10.1.0.1")
            + &station("br1", &b, "b", "10.1.0.2")),
    );
    // As the documentation of Open vSwitch joins two bridges.
    tramad.ctl("add-port br0 p0 -- add-port br1 p1");
    a.wait_for_ping("10.1.0.2", SOON);
    b.start_iperf_server(5201);
    assert!(a.iperf_received("10.1.0.2", 5201, "-n 20M") > 10_000_000);
    // Tags of trunks cross, too.
    tramad.ctl("set Port a tag=7 -- set Port b tag=7");
    a.wait_for_ping("10.1.0.2", SOON);
    tramad.ctl("clear Port a tag -- clear Port b tag");

    host.run("ip link add q0 type veth peer name q1 && ip link set q0 up && ip link set q1 up");
    tramad.ctl("add-port br0 q0 -- add-port br1 q1");
    a.try_run("ping -c 1 -W 1 10.1.0.77 &");
    tramad.wait_for_log(": a loop: what is sent at port", SOON);
    // One of the two networks blocks a port: if both did, nothing would cross.
    wait_until("the others lose nothing", Duration::from_secs(20), || {
        (a.ping_losses("10.1.0.2", 50) == 0).then_some(())
    });
    assert_eq!(tramad.ctl("show").matches("loop: \"blocked").count(), 1);
    tramad.stop();
}

#[test]
fn an_interface_that_is_missing_or_down_is_joined_by_an_event_of_its_link() {
    let [host, far] = ["host", "far"].map(Netns::new);
    let local = tap_port("lab", "local", &far, "ifname = \"tap0\"\naddress = \"10.1.0.9/24\"");
    let peer = Netns::new("peer");
    let mut tramad = Tramad::start_in(&host, &(NETWORK.to_owned() + &local));
    let words = ["add-port", "lab", "v1", "--", "set", "Interface", "v1", "type=system"];
    let stored = tramad.try_ctl(&words);
    assert_eq!(stored.status, 65, "{}", stored.text);
    assert!(stored.text.contains("interface v1: find it: No such device"), "{}", stored.text);

    let create = || {
        host.run(&format!("ip link add v1 type veth peer name eth0 netns {}", peer.name()));
        peer.run("ip addr add 10.1.0.1/24 dev eth0 && ip link set eth0 up");
    };
    create();
    wait_until("it is found", SOON, || {
        error_of(&tramad, "v1").contains("it is down; `ip link set v1 up`").then_some(())
    });
    host.run("ip link set v1 up");
    wait_for_port(&tramad, "v1");
    peer.wait_for_ping("10.1.0.9", SOON);

    host.run("ip link set v1 down");
    tramad.wait_for_log(
        "port v1 is stored but does not run: the interface is down or was deleted",
        SOON,
    );
    host.run("ip link set v1 up");
    peer.wait_for_ping("10.1.0.9", SOON);
    host.run("ip link del v1");
    wait_until("it is missed", SOON, || {
        error_of(&tramad, "v1").contains("No such device").then_some(())
    });
    create();
    host.run("ip link set v1 mtu 1400 up");
    wait_until("it is too small", SOON, || {
        let error = error_of(&tramad, "v1");
        error.contains("its MTU is 1400, but the network's is 1500").then_some(())
    });
    host.run("ip link set v1 mtu 1500");
    peer.wait_for_ping("10.1.0.9", SOON);
    // A larger MTU of the network asks again.
    let stored = tramad.try_ctl(&["set", "Bridge", "lab", "mtu=1600"]);
    assert!(stored.status == 65 && stored.text.contains("its MTU is 1500, but"), "{}", stored.text);
    assert!(error_of(&tramad, "v1").contains("its MTU is 1500, but"));
    // And so does one that fits.
    tramad.ctl("set Bridge lab mtu=1500");
    assert_eq!(error_of(&tramad, "v1"), "[]\n");
    peer.wait_for_ping("10.1.0.9", SOON);
    tramad.stop();
}

#[test]
fn the_interface_of_a_default_route_joins_only_if_confirmed() {
    let [host, far] = ["host", "far"].map(Netns::new);
    plug(&host, "v1", &far, "10.1.0.1/24");
    host.run("ip addr add 10.1.0.3/24 dev v1 && ip route add default via 10.1.0.1 table 77");
    let tramad = Tramad::start_in(&host, NETWORK);
    let refused = tramad.try_ctl(&["add-port", "lab", "v1"]);
    assert_eq!(refused.status, 65, "{}", refused.text);
    for part in [
        "interface v1 carries the host's default route 0.0.0.0/0 dev v1 table 77",
        "tramactl set Interface v1 options:confirm-uplink=true",
    ] {
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
    }
    tramad.ctl("set Interface v1 options:confirm-uplink=true");
    wait_for_port(&tramad, "v1");
    assert!(tramad.configuration().contains("confirm-uplink = true"));
    let words = ["remove", "Interface", "v1", "options", "confirm-uplink"];
    assert_eq!(tramad.try_ctl(&words).status, 65);
    assert!(error_of(&tramad, "v1").contains("default route"));
    host.run("ip route del default table 77 && ip route add default nexthop via 10.1.0.1 dev v1");
    assert_eq!(tramad.try_ctl(&["reload"]).status, 65);
    host.run("ip route del default");
    assert_eq!(tramad.try_ctl(&["reload"]).status, 0);
    tramad.stop();
}

#[test]
fn a_default_route_is_seen_above_an_interface_and_by_the_hosts_path() {
    let [host, far] = ["host", "far"].map(Netns::new);
    plug(&host, "v1", &far, "10.1.0.1/24");
    host.run(
        "ip link add br1 type bridge && ip link set br1 up && ip link set v1 master br1 && \
         ip addr add 10.1.0.3/24 dev br1 && ip route add default via 10.1.0.1 dev br1",
    );
    host.run("ip link add v3 type veth peer name v4 && ip link set v3 up && ip link set v4 up");
    let tramad = Tramad::start_in(&host, NETWORK);
    for name in ["v1", "br1"] {
        let refused = tramad.try_ctl(&["add-port", "lab", name]);
        let text = format!("interface {name} carries the host's default route 0.0.0.0/0 dev br1");
        assert!(refused.status == 65 && refused.text.contains(&text), "{}", refused.text);
        tramad.ctl(&format!("del-port lab {name}"));
    }
    // The other end of a pair is not below.
    tramad.ctl("add-port lab v3");
    wait_for_port(&tramad, "v3");
    tramad.ctl("del-port lab v3");
    // The host by another name.
    let path = format!("/proc/{}/ns/net", tramad.id());
    let add = |name: &str| {
        let netns = format!("options:netns={path}");
        let ifname = format!("options:ifname={name}");
        let words = ["add-port", "lab", name, "--", "set", "Interface", name, "type=system"];
        tramad.try_ctl(&[&words[..], &[&netns, &ifname]].concat())
    };
    let refused = add("v1");
    assert!(refused.status == 65 && refused.text.contains("default route"), "{}", refused.text);
    let taken = add("v3");
    assert_eq!(taken.status, 0, "{}", taken.text);
    tramad.stop();
}

#[test]
fn a_port_follows_its_namespace_by_name_and_by_path() {
    let [host, far] = ["host", "far"].map(Netns::new);
    let station = tap_port("lab", "s", &far, "ifname = \"tap0\"\naddress = \"10.1.0.9/24\"");
    let mut tramad = Tramad::start_in(&host, &(NETWORK.to_owned() + &station));

    // A named one, which is deleted and made again.
    let inner = Netns::new("inner");
    let fill = |by: &dyn Fn(&str) -> String| {
        by("ip link add v1 type veth peer name v2 && ip link set v1 up && ip link set v2 up && \
            ip addr add 10.1.0.1/24 dev v2")
    };
    fill(&|line| inner.run(line));
    tramad.ctl(&format!(
        "add-port lab n -- set Interface n type=system options:ifname=v1 options:netns={}",
        inner.name()
    ));
    far.wait_for_ping("10.1.0.1", SOON);
    run("ip", &["netns", "del", inner.name()]);
    tramad.wait_for_log("port n: network namespace", SOON);
    assert!(error_of(&tramad, "n").contains("open network namespace"));
    run("ip", &["netns", "add", inner.name()]);
    fill(&|line| inner.run(line));
    // It asks for an address that it has known for some time only after half a minute.
    far.run("ip neigh flush all");
    far.wait_for_ping("10.1.0.1", SOON);
    tramad.ctl("del-port n");

    // That of a process, whose end is noticed; a TAP there, too.
    let mut process = unshared(&host);
    let path = format!("/proc/{}/ns/net", process.id());
    let enter = |line: &str| host.run(&format!("nsenter --net={path} sh -c '{line}'"));
    fill(&enter);
    tramad.ctl(&format!(
        "add-port lab p -- set Interface p type=system options:ifname=v1 options:netns={path} \
         -- add-port lab t -- set Interface t type=tap options:netns={path}"
    ));
    far.run("ip neigh flush all");
    far.wait_for_ping("10.1.0.1", SOON);
    assert!(enter("ip -o link show t").contains("UP"));
    process.end(Signal::KILL, SOON);
    for port in ["p", "t"] {
        wait_until(&format!("{port} does not run"), SOON, || {
            error_of(&tramad, port).contains("the process of network namespace").then_some(())
        });
    }
    let other = unshared(&host);
    let path = format!("/proc/{}/ns/net", other.id());
    tramad.ctl(&format!("set Interface t options:netns={path}"));
    wait_for_port(&tramad, "t");
    tramad.stop();
}

/// Starts a process in a network namespace of its own, without a name.
fn unshared(host: &Netns) -> Process {
    let mut command = host.command("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && echo inside && exec sleep 1000"]);
    let log = format!("{}/unshared-{}", host.scratch(), trama_tests::process::unique());
    let mut process = Process::spawn("a process in its own namespace", command, log.as_ref());
    process.wait_for_log("inside", SOON);
    process
}

#[test]
fn a_guest_behind_a_tap_that_its_vmm_holds_reaches_a_station() {
    let station = Netns::new("station");
    let tap = format!("sy{}", std::process::id());
    let local = tap_port("lab", "local", &station, "ifname = \"eth0\"\naddress = \"10.1.0.9/24\"");
    let tramad = Tramad::start(&(NETWORK.to_owned() + &local));
    // Made by QEMU and gone with it (as libvirt's), with one queue and with several; and one that
    // persists, to which QEMU attaches later (as for Firecracker).
    for (port, (queues, persists)) in (5201..).zip([(1, false), (2, false), (1, true)]) {
        let _made = persists.then(|| PersistentTap::new(&tap));
        if persists {
            // Its port is there before its VMM.
            add(&tramad, &tap);
        }
        let guest = Guest::boot("vm", Nic::on_tap(&tap, "52:54:00:00:00:01").with_queues(queues));
        if !persists {
            // As libvirt does it: the TAP is down until its port is there.
            add(&tramad, &tap);
        }
        run("ip", &["link", "set", &tap, "up"]);
        guest.address("10.1.0.1/24");
        guest.wait_for_ping("10.1.0.9", SOON);
        assert_eq!(station.ping_losses("10.1.0.1", 10), 0);
        station.start_iperf_server(port);
        assert!(guest.iperf_received("10.1.0.9", port, "-n 5M") > 4_000_000);
        drop(guest);
        tramad.ctl(&format!("del-port {tap}"));
    }
    tramad.stop();
}

/// Adds an interface that is down, as software does that was written for Open vSwitch.
#[track_caller]
fn add(tramad: &Tramad, tap: &str) {
    let path = tramad.path("ovs-vsctl");
    // It is there from the second call on.
    let _ = std::os::unix::fs::symlink(trama_tests::tramad::binary("tramactl"), &path);
    let mut command = std::process::Command::new(path);
    command.env("TRAMA_SOCKET", tramad.path("control.sock"));
    command.args(["--timeout=5", "--", "--if-exists", "del-port", tap, "--"]);
    let output = command.args(["add-port", "lab", tap]).output().expect("run ovs-vsctl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("it is down"), "{output:?}");
}

fn run(program: &str, arguments: &[&str]) {
    let status = std::process::Command::new(program).args(arguments).status().expect("run it");
    assert!(status.success(), "{program} {arguments:?}");
}

/// A TAP of the test's own namespace that exists without a process.
struct PersistentTap(String);

impl PersistentTap {
    fn new(name: &str) -> PersistentTap {
        run("ip", &["tuntap", "add", name, "mode", "tap", "vnet_hdr"]);
        PersistentTap(name.to_owned())
    }
}

impl Drop for PersistentTap {
    fn drop(&mut self) {
        run("ip", &["link", "del", &self.0]);
    }
}

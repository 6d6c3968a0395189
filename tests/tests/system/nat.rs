//! The modes `nat` and `nat-network` from a guest's view: addresses, reachability on its own
//! network, and ports that move between networks.
//!
//! The host is a namespace that tramad runs in; guests are namespaces on TAPs.

use trama_tests::nat::{SOON, tap_port};
use trama_tests::{Host, Netns, Pinging, Tramad, wait_until};

const NAT: &str = include_str!("../../../examples/nat.toml");
const NAT_NETWORK: &str = include_str!("../../../examples/nat-network.toml");
/// Gateway, DNS and TFTP addresses of a guest in mode `nat`.
const GATEWAYS: [&str; 6] = [
    "10.0.2.2",
    "10.0.2.3",
    "10.0.2.4",
    "fd17:625c:f037:2::2",
    "fd17:625c:f037:2::3",
    "fd17:625c:f037:2::4",
];

/// Returns an example of the documentation, with sockets and state in the test's directory, and a
/// port for each of these guests: a TAP in its namespace.
fn example(text: &str, network: &str, machines: &[(&str, &Netns)]) -> String {
    let text = text.replace("/run/trama", "{dir}").replace("/var/lib/trama", "{dir}/state");
    let port = |(name, netns): &(&str, &Netns)| tap_port(network, name, netns, "");
    text + &machines.iter().map(port).collect::<String>()
}

/// Returns the address that a DHCP client gets, without configuring it.
#[track_caller]
fn leased(machine: &Netns, name: &str) -> String {
    machine.run(&format!("ip link set {name} up"));
    let client = format!("busybox udhcpc -i {name} -f -n -q -t 10 -T 1 -s /bin/true 2>&1");
    let text = wait_until("a lease", SOON, || {
        let answer = machine.try_run(&client);
        (answer.status == 0).then_some(answer.text)
    });
    let lease = text.split("lease of ").nth(1).and_then(|rest| rest.split_whitespace().next());
    lease.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn machines_of_mode_nat_have_the_same_addresses_and_do_not_meet() {
    let [host, vm1, vm2] = ["host", "vm1", "vm2"].map(Netns::with_ipv6);
    let tramad = Tramad::start_in(&host, &example(NAT, "out", &[("vm1", &vm1), ("vm2", &vm2)]));
    for (machine, name, other) in [(&vm1, "vm1", 51), (&vm2, "vm2", 52)] {
        assert_eq!(leased(machine, name), "10.0.2.15");
        machine.run(&format!(
            "ip addr add 10.0.2.15/24 dev {name}; ip addr add 10.0.2.{other}/24 dev {name}; \
             ip addr add fd17:625c:f037:2::{other}/64 dev {name}"
        ));
        for address in GATEWAYS {
            machine.wait_for_ping(address, SOON);
        }
        assert!(!machine.pings("10.0.2.5", 2), "nobody has it");
    }
    for address in ["10.0.2.52", "fd17:625c:f037:2::52"] {
        assert!(!vm1.pings(address, 2), "machines of mode nat are alone");
    }
    // Not even a broadcast crosses.
    assert!(!vm2.try_run("busybox arping -c 2 -w 2 -I vm2 10.0.2.51").text.contains("reply from"));
    let known = tramad.ctl("--no-headings --names fdb/show out");
    let ports = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let mut stations: Vec<_> = known.lines().filter_map(ports).collect();
    stations.sort_unstable();
    // The example's own two ports have gateways, too.
    let wanted = ["gateway", "gateway", "gateway", "gateway", "vm1", "vm2"];
    assert_eq!(stations, wanted, "{known}");

    // A port moves to another mode and back; its neighbour is not affected.
    let gateway = Pinging::start(&vm1, "10.0.2.2", 0.01);
    tramad.ctl("add-br shared -- set Bridge shared mode=nat-network subnet=10.0.9.0/24");
    tramad.ctl("set Port vm2 network=shared");
    vm2.run("ip addr add 10.0.9.7/24 dev vm2");
    vm2.wait_for_ping("10.0.9.1", SOON);
    assert!(!vm2.pings("10.0.2.2", 2), "the gateway that it had is gone");
    tramad.ctl("set Port vm2 network=out");
    vm2.wait_for_ping("10.0.2.2", SOON);
    gateway.stop_without_loss(20);

    // Forwards are applied live and saved.
    tramad.ctl("forward add vm2 ,udp,,5000-5001,,6000-6001,as-gateway");
    let list = tramad.ctl("--no-headings forward list vm2");
    assert!(list.contains("udp-5000") && list.contains("10.0.2.15:6000-6001"), "{list}");
    assert!(tramad.configuration().contains("\",udp,,5000-5001,,6000-6001,as-gateway\""));
    let clash = tramad.try_ctl(&["forward", "add", "vm1", "x,udp,127.0.0.1,5001,,1"]);
    assert_eq!(clash.status, 1);
    let wanted = "udp-5000: port 5001 of the host is taken by rule x of port.vm1";
    assert!(clash.text.contains(wanted), "{}", clash.text);
    tramad.ctl("forward del vm2 udp-5000");
    assert!(!tramad.configuration().contains("5000-5001"));
    assert_eq!(tramad.ctl("--no-headings flows"), "");
}

#[test]
fn machines_of_a_nat_network_meet_behind_one_gateway() {
    let [host, vm1, vm2] = ["host", "vm1", "vm2"].map(Netns::with_ipv6);
    let machines = [("vm1", &vm1), ("vm2", &vm2)];
    let tramad = Tramad::start_in(&host, &example(NAT_NETWORK, "natnet", &machines));
    let addresses = machines.map(|(name, machine)| leased(machine, name));
    assert_ne!(addresses[0], addresses[1]);
    for ((name, machine), address) in machines.iter().zip(&addresses) {
        machine.run(&format!("ip addr add {address}/24 dev {name}"));
        // The network's prefix is advertised, and its router as the default router.
        wait_until("an address of the prefix", SOON, || {
            let shown = machine.run(&format!("ip -6 addr show dev {name} scope global"));
            shown.contains("fd17:625c:f037:2:").then_some(())
        });
        let routes = machine.run("ip -6 route show default");
        assert!(routes.contains(&format!("dev {name} proto ra")), "{routes}");
        for gateway in ["10.0.2.1", "fd17:625c:f037:2::1"] {
            machine.wait_for_ping(gateway, SOON);
        }
    }
    vm1.wait_for_ping(&addresses[1], SOON);
    vm2.wait_for_ping(&addresses[0], SOON);
    let list = tramad.ctl("--no-headings forward list natnet");
    assert!(list.contains("web") && list.contains("10.0.2.20:80"), "{list}");
}

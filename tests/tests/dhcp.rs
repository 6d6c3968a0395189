//! Unmodified DHCP clients in namespaces, and what becomes of their addresses.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::path::Path;
use std::time::Instant;

use rustix::process::{Signal, kill_process};
use tempfile::tempdir;
use trama_tests::nat::{SOON, tap_port};
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Process, Tramad, wait_until};

const DHCP: &str = include_str!("../../examples/dhcp.toml");

/// The network of the example, with a TAP without an address in each namespace.
fn configuration(machines: &[(&Netns, &str)]) -> String {
    let (network, _) = DHCP.split_once("\n[[port]]").expect("the example has ports");
    let (_, network) = network.split_once("[[network]]").expect("and a network");
    let mut text = format!("[[network]]{network}");
    for (netns, name) in machines {
        text += &tap_port("lab", name, netns, &format!("ifname = \"{name}\""));
    }
    text
}

/// busybox's client: asks once for a lease, and gives the address.
#[track_caller]
fn udhcpc(netns: &Netns, interface: &str) -> String {
    udhcpc_wishing(netns, interface, "0.0.0.0")
}

/// As [`udhcpc`], for a client that would like a certain address.
#[track_caller]
fn udhcpc_wishing(netns: &Netns, interface: &str, wish: &str) -> String {
    let script = format!("{}/udhcpc", netns.scratch());
    let lease = format!("{}/lease", netns.scratch());
    let text = format!(
        "#!/bin/sh\nset -e\n[ \"$1\" = bound ] || exit 0\n\
         ip address flush dev $interface scope global\n\
         ip address add $ip/$mask dev $interface\n\
         echo \"$ip $mask $lease $domain $dns\" >{lease}\n"
    );
    std::fs::write(&script, text).expect("script");
    netns.run(&format!("chmod +x {script}"));
    netns.run(&format!(
        "busybox udhcpc -f -n -q -t 25 -T 2 -r {wish} -x hostname:{interface} -i {interface} \
         -s {script}"
    ));
    netns.run(&format!("cut -d ' ' -f 1 {lease}")).trim().to_owned()
}

#[test]
fn a_client_keeps_its_address_whatever_dies() {
    let machines = ["left", "right"].map(Netns::new);
    let [left, right] = &machines;
    let mut tramad = Tramad::start(&configuration(&[(left, "left"), (right, "right")]));
    let first = tramad.gateway_after(0);
    let address = udhcpc(left, "left");
    assert!(address.starts_with("10.1.0."), "{address}");
    left.wait_for_ping("10.1.0.1", SOON);
    let lease = left.run(&format!("cat {}/lease", left.scratch()));
    assert_eq!(lease.trim(), format!("{address} 24 43200 lab.example 10.1.0.1"));

    kill_process(first, Signal::KILL).expect("kill the gateway");
    tramad.gateway_after(1);
    // The other wants it, who is not there to defend it: it is remembered.
    left.run("ip address flush dev left scope global");
    let other = udhcpc_wishing(right, "right", &address);
    assert_ne!(other, address);
    assert_eq!(udhcpc(left, "left"), address, "after the gateway's death");
    tramad.restart(Signal::KILL);
    right.run("ip address flush dev right scope global");
    assert_eq!(udhcpc_wishing(left, "left", &other), address, "after the daemon's death");
    assert_eq!(udhcpc(right, "right"), other);
    left.wait_for_ping(&other, SOON);

    // Others know them by name, and tramactl knows whose they are.
    let answer = left.run("busybox nslookup right.lab.example 10.1.0.1");
    assert!(answer.contains(&other), "{answer}");
    let answer = left.run(&format!("busybox nslookup {other} 10.1.0.1"));
    assert!(answer.contains("right.lab.example"), "{answer}");
    let table = tramad.ctl("leases lab");
    let row = |name: &str| table.lines().find(|line| line.contains(name)).map(str::to_owned);
    let row = row("right").unwrap_or_else(|| panic!("{table}"));
    for word in [other.as_str(), "bound", "lab"] {
        assert!(row.contains(word), "{row}");
    }
    assert_eq!(row.matches("right").count(), 2, "its name and its port: {row}");
    wait_until("the metrics come", SOON, || {
        (tramad.metric("trama_dhcp_leases", &["network=\"lab\""]) == 2).then_some(())
    });
    tramad.stop();
}

#[test]
fn clients_of_other_makers_get_leases() {
    let machines = ["dhclient", "dhcpcd"].map(Netns::new);
    let [isc, marples] = &machines;
    // Their files are named after interfaces, and shared with all namespaces.
    let names = [format!("i{}", std::process::id()), format!("m{}", std::process::id())];
    let [isc_name, marples_name] = &names;
    let tramad = Tramad::start(&configuration(&[(isc, isc_name), (marples, marples_name)]));
    tramad.gateway_after(0);
    let files = isc.scratch();
    isc.run(&format!("touch {files}/leases; ip link set {isc_name} up"));
    // In the foreground, so that it ends with the test.
    let mut command = isc.command("dhclient");
    command.args(["-d", "-1", "-v", "-sf", "/bin/true", "-lf", &format!("{files}/leases")]);
    command.args(["-pf", &format!("{files}/pid"), isc_name]);
    let mut client = Process::spawn("dhclient", command, &Path::new(files).join("log"));
    client.wait_for_log("bound to 10.1.0.", SOON);
    let lease = isc.run(&format!("cat {files}/leases"));
    for line in [
        "option domain-name \"lab.example\"",
        "option domain-name-servers 10.1.0.1",
        "option dhcp-server-identifier 10.1.0.1",
    ] {
        assert!(lease.contains(line), "{line} in {lease}");
    }
    let said = marples.run(&format!(
        "timeout 50 dhcpcd -4 -1 -d -B --nohook resolv.conf -t 45 {marples_name} 2>&1; \
         rm -f /var/lib/dhcpcd/{marples_name}*"
    ));
    assert!(said.contains("leased 10.1.0."), "{said}");
    let table = tramad.ctl("leases lab");
    assert_eq!(table.matches("bound").count(), 2, "{table}");
    tramad.stop();
}

#[test]
fn networkd_gets_a_lease() {
    let netns = Netns::new("networkd");
    let name = format!("n{}", std::process::id());
    let tramad = Tramad::start(&configuration(&[(&netns, &name)]));
    tramad.gateway_after(0);
    // Its files lie where the machine's own networkd has its: it gets a view of its own.
    // Where /sys cannot be written to, it does not wait for udev.
    let start = format!(
        "mount -o remount,ro,bind /sys && mount -t tmpfs none /run/systemd && \
         mount -t tmpfs none /etc/systemd/network && \
         printf '[Match]\\nName={name}\\n[Network]\\nDHCP=ipv4\\n' >/etc/systemd/network/a.network && \
         exec /lib/systemd/systemd-networkd"
    );
    let mut command = netns.command("unshare");
    command.args(["--mount", "sh", "-c", &start]);
    let _networkd = Process::spawn("networkd", command, &Path::new(netns.scratch()).join("log"));
    wait_until("an address comes", SOON, || {
        netns.run(&format!("ip -4 address show dev {name}")).contains("10.1.0.").then_some(())
    });
    let table = tramad.ctl("leases lab");
    assert_eq!(table.matches("bound").count(), 1, "{table}");
    tramad.stop();
}

#[test]
fn a_linux_guest_keeps_its_address_when_it_renews_and_when_it_reboots() {
    let (network, _) = DHCP.split_once("\n[[port]]").expect("the example has ports");
    let (_, network) = network.split_once("[[network]]").expect("and a network");
    let port = "\n[[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
                path = \"{dir}/guest.sock\"\n";
    let tramad = Tramad::start(&format!("[[network]]{network}{port}"));
    tramad.gateway_after(0);
    let guest =
        Guest::boot("dhcp", Nic::connecting(tramad.path("guest.sock"), "52:54:00:00:00:71"));
    let acknowledged =
        || tramad.metric("trama_dhcp_messages_total", &["network=\"lab\"", "type=\"ack\""]);
    // The client stays; the script writes down what it is told.
    let ask = "ip link set eth0 up; printf '#!/bin/sh\\n[ -n \"$ip\" ] && echo $1 $ip >>/tmp/told\\n' \
               >/tmp/script; chmod +x /tmp/script; rm -f /tmp/told; \
               udhcpc -i eth0 -p /tmp/pid -s /tmp/script -t 10 -T 1 >/dev/null 2>&1 </dev/null";
    let told = |event: &str| {
        wait_until(event, SOON, || {
            let text = guest.try_run("cat /tmp/told").text;
            let line = text.lines().rfind(|line| line.starts_with(event))?;
            Some(line.rsplit(' ').next()?.trim().to_owned())
        })
    };
    guest.run(ask);
    let address = told("bound");
    assert!(address.starts_with("10.1.0."), "{address}");
    wait_until("the acknowledgement is counted", SOON, || (acknowledged() == 1).then_some(()));
    guest.run("kill -USR1 $(cat /tmp/pid)");
    assert_eq!(told("renew"), address);
    wait_until("so is the renewal's", SOON, || (acknowledged() == 2).then_some(()));
    guest.reset();
    guest.run(ask);
    assert_eq!(told("bound"), address);
    tramad.stop();
}

#[test]
fn a_port_that_takes_all_it_can_leaves_the_others_theirs() {
    let machines = ["flood", "guest"].map(Netns::new);
    let [flood, guest] = &machines;
    let tramad = Tramad::start(&configuration(&[(flood, "flood"), (guest, "guest")]));
    tramad.gateway_after(0);
    // perfdhcp listens on an address; thousands of clients, each with an address of its own. Both
    // floods end with the test.
    flood.run("ip address add 10.1.0.9/24 dev flood");
    let mut command = flood.command("perfdhcp");
    command.args(["-4", "-l", "flood", "-r", "3000", "-R", "100000", "-p", "600", "-W", "1"]);
    let flooding = Process::spawn("perfdhcp", command, &Path::new(flood.scratch()).join("log"));
    // Made to take all there is.
    let mut command = flood.command("dhcpstarv");
    command.args(["-i", "flood"]);
    let starving = Process::spawn("dhcpstarv", command, &Path::new(flood.scratch()).join("starv"));
    wait_until("the port has what it may have", SOON, || {
        let refused = tramad.metric("trama_dhcp_refused_total", &["reason=\"port_full\""])
            + tramad.metric("trama_dhcp_refused_total", &["reason=\"probing\""]);
        (refused > 1000).then_some(())
    });
    let began = Instant::now();
    let address = udhcpc(guest, "guest");
    println!("a lease beside a flood after {:?}", began.elapsed());
    assert!(address.starts_with("10.1.0."), "{address}");
    let table = tramad.ctl("leases lab");
    let taken = table.lines().filter(|line| line.contains("flood")).count();
    assert!((1..=16).contains(&taken), "{taken} addresses:\n{table}");
    drop((flooding, starving));
    tramad.stop();
}

#[test]
fn a_namespace_makes_itself_an_address_of_the_advertised_prefix() {
    let netns = Netns::with_ipv6("slaac");
    let tramad = Tramad::start(&configuration(&[(&netns, "slaac")]));
    tramad.gateway_after(0);
    wait_until("an address comes", SOON, || {
        netns.run("ip -6 address show dev slaac scope global").contains("fd00:1::").then_some(())
    });
    netns.wait_for_ping("fd00:1::1", SOON);
    let routes = netns.run("ip -6 route");
    assert!(!routes.contains("default"), "there is no way out: {routes}");
    tramad.stop();
}

#[test]
fn ipxe_boots_from_the_gateway() {
    let dir = tempdir().expect("temporary directory");
    let script = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), format!("#!ipxe\n{text}\n")).expect("script");
    };
    script("first.ipxe", "chain second.ipxe");
    script("second.ipxe", "echo second script heard by ${net0/mac} at ${net0/ip}\nshell");
    let configuration = format!(
        "[[network]]\nname = \"lab\"\nsubnet = [\"10.1.0.0/24\", \"fd00:1::/64\"]\n\
         tftp = \"{}\"\ndhcp = {{ boot-file = {{ ipxe = \"first.ipxe\" }} }}\n\n\
         [[port]]\nname = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
         path = \"{{dir}}/guest.sock\"\n",
        dir.path().display()
    );
    let tramad = Tramad::start(&configuration);
    let mac = "52:54:00:00:00:0b";
    let nic = Nic::connecting(tramad.path("guest.sock"), mac);
    let options = GuestOptions { network_boot: true, ..GuestOptions::new("guest", [nic]) };
    let guest = Guest::launch(&options);
    let said = format!("second script heard by {mac} at 10.1.0.");
    guest.wait_for_console(&said, 2 * SOON);
    let table = tramad.ctl("leases");
    assert!(table.contains(mac) && table.contains("guest"), "{table}");
    tramad.stop();
}

//! Unmodified DHCP clients in namespaces, and their leases.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tempfile::tempdir;
use trama_tests::nat::{SOON, tap_port};
use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Process, Tramad, wait_until};

const DHCP: &str = include_str!("../../../examples/dhcp.toml");

/// Returns the example's network, with a TAP without an address in each namespace.
fn configuration(machines: &[(&Netns, &str)]) -> String {
    let (network, _) = DHCP.split_once("\n[[port]]").expect("the example has ports");
    let (_, network) = network.split_once("[[network]]").expect("and a network");
    let mut text = format!("[[network]]{network}");
    for (netns, name) in machines {
        text += &tap_port("lab", name, netns, &format!("ifname = \"{name}\""));
    }
    text
}

/// Runs busybox's client for one lease; returns the address.
#[track_caller]
fn udhcpc(netns: &Netns, interface: &str) -> String {
    udhcpc_requesting(netns, interface, "0.0.0.0")
}

/// As [`udhcpc`], with a requested address.
#[track_caller]
fn udhcpc_requesting(netns: &Netns, interface: &str, requested: &str) -> String {
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
        "busybox udhcpc -f -n -q -t 25 -T 2 -r {requested} -x hostname:{interface} -i {interface} \
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
    // Another client requests the address while its holder is offline: the lease persists.
    left.run("ip address flush dev left scope global");
    let other = udhcpc_requesting(right, "right", &address);
    assert_ne!(other, address);
    assert_eq!(udhcpc(left, "left"), address, "after the gateway's death");
    tramad.restart(Signal::KILL);
    right.run("ip address flush dev right scope global");
    assert_eq!(udhcpc_requesting(left, "left", &other), address, "after the daemon's death");
    assert_eq!(udhcpc(right, "right"), other);
    left.wait_for_ping(&other, SOON);

    // Other guests resolve their names, and tramactl lists the leases.
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
    // The files are named after interfaces and shared with all namespaces.
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
    // Its files have the same paths as those of the host's own networkd, so it gets a mount
    // namespace. With a read-only /sys it does not wait for udev.
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
    // The client keeps running; the script records its arguments.
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
    // perfdhcp listens on an address; thousands of clients request an address each. Both floods end
    // with the test.
    flood.run("ip address add 10.1.0.9/24 dev flood");
    let mut command = flood.command("perfdhcp");
    command.args(["-4", "-l", "flood", "-r", "3000", "-R", "100000", "-p", "600", "-W", "1"]);
    let flooding = Process::spawn("perfdhcp", command, &Path::new(flood.scratch()).join("log"));
    // Exhausts the pool.
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

/// Malformed messages that other servers answer, too. Each line is a message after the fixed
/// fields; unusual fixed fields precede it.
const MALFORMED: &str = r#"
import os, select, socket, struct, sys, time
COOKIE, DISCOVER = bytes.fromhex("63825363"), bytes.fromhex("350101")
END, PAD = b"\xff", bytes(40)
name = sys.argv[1]
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.bind((name, 0))
number = 0

def frame(options, htype=1, hlen=6, chaddr=None, source="0.0.0.0", ciaddr="0.0.0.0", flags=0, sname=b""):
    global number
    number += 1
    mac = bytes([2, 0, 0, 0x78, 0, number])
    fixed = struct.pack("!BBBBIHH", 1, htype, hlen, 0, number, 0, flags)
    fixed += socket.inet_aton(ciaddr) + bytes(12)
    fixed += (mac if chaddr is None else chaddr).ljust(16, b"\0") + sname.ljust(64, b"\0") + bytes(128)
    body = fixed + options
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                       socket.inet_aton(source), b"\xff" * 4)
    total = sum(struct.unpack("!10H", head))
    total = ~(total + (total >> 16)) & 0xffff
    head = head[:10] + struct.pack("!H", total) + head[12:]
    return b"\xff" * 6 + mac + b"\x08\0" + head + udp

def answered(frame):
    link.send(frame)
    until = time.time() + 10
    while time.time() < until:
        if not select.select([link], [], [], 0.1)[0]:
            continue
        got = link.recv(2000)
        is_reply = got[12:14] == b"\x08\0" and got[34:36] == b"\0\x43" and got[42] == 2
        if is_reply and got[46:50] == frame[46:50]:
            return True
    return False

good = COOKIE + DISCOVER
cases = {
    "no end": frame(good),
    "no end, padded": frame(good + PAD),
    "an option past the end": frame(good + b"\x0c\xff"),
    "overload that lies": frame(good + b"\x34\x01\x02\xff", sname=b"\x0c\xff not options"),
    "overload of no kind": frame(good + b"\x34\x01\x09\xff"),
    "hlen 0": frame(good + END, hlen=0),
    "hlen 16": frame(good + END, hlen=16),
    "no chaddr": frame(good + END, chaddr=b""),
    "htype of IEEE 802": frame(good + END, htype=6),
    "foreign source": frame(good + END, source="192.168.5.5"),
    "foreign ciaddr": frame(good + END, ciaddr="192.168.1.4"),
    "broadcast flag": frame(good + END, flags=0x8000),
}
for code in (12, 50, 51, 52, 54, 55, 57, 60, 61, 77, 80, 81, 82, 93, 97):
    for length in (0, 1):
        cases[f"option {code} of {length}"] = frame(good + bytes([code, length, 7][:2 + length]) + END)
bad = [case for case, message in cases.items() if not answered(message)]
if answered(frame(DISCOVER + END + PAD)):
    bad.append("answered without a cookie")
print("silence:", bad)
"#;

#[test]
fn clients_with_malformed_messages_are_served() {
    let netns = Netns::new("odd");
    // Each message comes from a guest of its own.
    let text = configuration(&[(&netns, "odd")]);
    let text = text.replacen("[network.dhcp]\n", "[network.dhcp]\nleases-per-port = 250\n", 1);
    let tramad = Tramad::start(&text);
    tramad.gateway_after(0);
    let script = format!("{}/odd.py", netns.scratch());
    std::fs::write(&script, MALFORMED).expect("script");
    netns.run("ip link set odd up");
    let limit = Duration::from_secs(120);
    let said = netns.try_run_for(&format!("/usr/bin/python3 {script} odd 2>&1"), limit).text;
    assert_eq!(said.trim(), "silence: []");
    tramad.stop();
}

#[test]
fn firmware_and_system_of_one_machine_have_one_address() {
    let netns = Netns::with_ipv6("one");
    let tramad = Tramad::start(&configuration(&[(&netns, "one")]));
    tramad.gateway_after(0);
    let as_client = |id: &str| {
        netns.run("ip link set one up");
        let command = format!("busybox udhcpc -f -n -q -t 9 -T 2 -i one -s /bin/true {id} 2>&1");
        let said = netns.run(&command);
        let lease = said.lines().find(|line| line.contains("lease of")).expect("a lease");
        lease.split(' ').find(|word| word.starts_with("10.1.0.")).map(str::to_owned)
    };
    let address = as_client("-x 0x3d:00aabbccddeeff");
    assert_eq!(as_client("-C"), address);
    assert_eq!(as_client("-x 0x3d:ff00000001000200001234"), address);
    let table = tramad.ctl("leases lab");
    assert_eq!(table.matches("bound").count(), 1, "{table}");
    // By DHCPv6, each with another DUID.
    let files = netns.scratch();
    for kind in ["LL", "LLT"] {
        netns.run(&format!("touch {files}/leases-{kind}"));
        let mut command = netns.command("dhclient");
        command.args(["-6", "-d", "-1", "-v", "-D", kind, "-sf", "/bin/true"]);
        command.args(["-lf", &format!("{files}/leases-{kind}"), "-pf", &format!("{files}/pid")]);
        command.arg("one");
        let log = Path::new(files).join(format!("log-{kind}"));
        let mut client = Process::spawn("dhclient", command, &log);
        client.wait_for_log("Reply message on one", SOON);
    }
    let table = tramad.ctl("leases lab");
    assert_eq!(table.matches("fd00:1::1").count(), 1, "{table}");
    tramad.stop();
}

#[test]
fn ipv6_clients_lease_renew_release_and_find_their_address_again() {
    let machines = ["isc", "marples"].map(Netns::with_ipv6);
    let [isc, marples] = &machines;
    let names = [format!("x{}", std::process::id()), format!("y{}", std::process::id())];
    let [isc_name, marples_name] = &names;
    let mut tramad = Tramad::start(&configuration(&[(isc, isc_name), (marples, marples_name)]));
    tramad.gateway_after(0);
    let files = isc.scratch();
    isc.run(&format!("touch {files}/leases; ip link set {isc_name} up"));
    let dhclient = |flags: &str| {
        isc.run(&format!(
            "timeout 25 dhclient -6 {flags} -v -sf /bin/true -lf {files}/leases -pf {files}/pid \
             {isc_name} 2>&1"
        ))
    };
    dhclient("-1");
    let lease = isc.run(&format!("cat {files}/leases"));
    assert!(lease.contains("iaaddr fd00:1::1"), "{lease}");
    assert!(lease.contains("option dhcp6.name-servers fd00:1::1"), "{lease}");
    let row = || {
        let table = tramad.ctl("leases lab");
        table.lines().find(|line| line.contains("fd00:1::1")).map(str::to_owned).expect("a row")
    };
    let first = row();
    assert!(first.contains("bound") && first.contains(isc_name.as_str()), "{first}");
    dhclient("-r");
    assert!(row().contains("idle"), "{}", row());
    // It would exit after the first advertisement, so it runs in the foreground and ends with the
    // test.
    let mut command = marples.command("dhcpcd");
    command.args(["-6", "-d", "-B", "--nohook", "resolv.conf", "--ia_na", marples_name]);
    let mut client = Process::spawn("dhcpcd", command, &Path::new(files).join("dhcpcd"));
    client.wait_for_log("adding address fd00:1::1", SOON);
    drop(client);
    marples.run(&format!("rm -f /var/lib/dhcpcd/{marples_name}*"));
    // The client gets its address again although the daemon was killed meanwhile.
    tramad.restart(Signal::KILL);
    dhclient("-1");
    let address = first.split_whitespace().find(|word| word.starts_with("fd00:1::1"));
    let table = tramad.ctl("leases lab");
    let again = table.lines().find(|line| line.contains(isc_name.as_str())).expect("a row");
    assert_eq!(again.split_whitespace().find(|word| word.starts_with("fd00:1::1")), address);
    tramad.stop();
}

#[test]
fn dhcp_goes_on_by_itself_when_a_full_state_folder_has_room_again() {
    let (host, vm) = (Netns::new("host"), Netns::new("vm"));
    let port = tap_port("lab", "vm", &vm, "ifname = \"vm\"");
    let without = format!("[[network]]\nname = \"lab\"\nsubnet = \"10.1.0.0/24\"\n{port}");
    let tramad = Tramad::start_in(&host, &without);
    // The folder is a separate file system, visible to the daemon only.
    let state = tramad.path("state").display().to_string();
    let inside = format!("nsenter --target {} --mount", tramad.id());
    host.run(&format!("{inside} mount -t tmpfs -o size=64k none {state}"));
    // Full at the start, read-only later: a full file system still accepts writes that fit into a
    // file's last page.
    let fill = format!("{inside} sh -c 'cat /dev/zero >{state}/filling; true' 2>/dev/null");
    let empty = format!("{inside} rm {state}/filling");
    let lock = format!("{inside} mount -o remount,ro {state}");
    let unlock = format!("{inside} mount -o remount,rw {state}");
    let ask = || {
        let command = "ip link set vm up; busybox udhcpc -f -n -q -t 2 -T 1 -i vm -s /bin/true";
        vm.try_run(command).status == 0
    };
    let trouble = || tramad.ctl("show").contains("error: ");
    host.run(&fill);
    let with = without.replacen("\n[[port]]", "dhcp = true\n\n[[port]]", 1);
    let daemon = tramad.configuration();
    let (head, _) = daemon.split_once("[[network]]").expect("a network");
    tramad.write_configuration(&format!("{head}{with}"));
    tramad.ctl("reload");
    wait_until("the trouble shows", SOON, || trouble().then_some(()));
    assert!(!ask(), "a lease that is not stored");
    for (cure, next) in [(empty, Some(lock)), (unlock, None)] {
        host.run(&cure);
        wait_until("a lease comes", SOON, || ask().then_some(()));
        wait_until("the trouble is over", SOON, || (!trouble()).then_some(()));
        let Some(trouble_again) = next else { break };
        host.run(&trouble_again);
        assert!(!ask(), "a lease that is not stored");
        wait_until("the trouble shows", SOON, || trouble().then_some(()));
        assert!(!ask(), "a lease that is not stored");
    }
    let log = tramad.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines("no DHCP"), lines("no client gets a lease")), (1, 1), "{log}");
    assert_eq!(lines("the lease store works again"), 2, "{log}");
    tramad.stop();
}

#[test]
fn clients_behind_a_nat_search_what_the_host_searches() {
    let (host, vm) = (Netns::new("host"), Netns::new("vm"));
    let port = tap_port("lab", "vm", &vm, "ifname = \"vm\"");
    let network = "[[network]]\nname = \"lab\"\nmode = \"nat-network\"\nsubnet = \"10.1.0.0/24\"\n";
    let tramad = Tramad::start_inside(&host, &["192.0.2.1"], &format!("{network}{port}"));
    tramad.gateway_after(0);
    let file = tramad.path("etc/resolv.conf");
    let told = || {
        vm.run("ip link set vm up");
        let script = format!("{}/told", vm.scratch());
        std::fs::write(&script, "#!/bin/sh\n[ $1 = bound ] && echo told:$domain:$search:\ntrue\n")
            .expect("script");
        vm.run(&format!("chmod +x {script}"));
        let command = "busybox udhcpc -f -n -q -t 9 -T 2 -O search -O domain -i vm";
        let said = vm.run(&format!("{command} -s {script} 2>&1"));
        said.lines().find(|line| line.starts_with("told:")).map(str::to_owned)
    };
    assert_eq!(told().as_deref(), Some("told:::"));
    for (line, expected) in [
        (
            "search corp.example lab.corp.example",
            "told:corp.example:corp.example lab.corp.example:",
        ),
        ("domain other.example", "told:other.example:other.example:"),
    ] {
        std::fs::write(&file, format!("nameserver 192.0.2.1\n{line}\n")).expect("resolv.conf");
        wait_until(line, SOON, || (told().as_deref() == Some(expected)).then_some(()));
    }
    tramad.stop();
}

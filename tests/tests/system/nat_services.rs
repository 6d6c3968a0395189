//! What the gateway of a network answers itself: DNS over TCP, and fragmented packets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use trama_tests::nat::{GATEWAY, SOON, tap_port};
use trama_tests::{Host, Netns, Process, Tramad, wait_until};

const RESOLVER: &str = "192.0.2.1";
const TYPE_A: u8 = 1;
const TYPE_TXT: u8 = 16;
/// The TC flag, in the second word of a DNS message.
const TRUNCATED: u8 = 2;

/// Returns a network with a gateway, and a guest on it.
fn network(mode: &str, keys: &str, vm: &Netns, address: &str) -> String {
    let port = tap_port("home", "vm", vm, &format!("ifname = \"eth0\"\n{address}"));
    format!(
        "[[network]]\nname = \"home\"\nmode = \"{mode}\"\n\
         subnet = [\"10.7.0.0/24\", \"fd00:7::/64\"]\n{keys}\n{port}"
    )
}

/// Returns a DNS query.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

/// Sends queries at once over one TCP connection; returns the answers in their order of arrival.
fn ask_by_stream(vm: &Netns, server: &str, questions: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let to = SocketAddr::new(server.parse().expect("address"), 53);
    let job = move || {
        let mut stream = TcpStream::connect_timeout(&to, SOON).expect("connect");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        for question in &questions {
            let length = (question.len() as u16).to_be_bytes();
            stream.write_all(&[&length[..], question].concat()).expect("ask");
        }
        let answer = |_| {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("an answer");
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer).expect("an answer");
            answer
        };
        questions.iter().map(answer).collect()
    };
    vm.inside(job).join().expect("a client")
}

fn ask_by_datagram(vm: &Netns, server: &str, question: Vec<u8>) -> Vec<u8> {
    let to = SocketAddr::new(server.parse().expect("address"), 53);
    let job = move || {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any).expect("socket");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        wait_until("an answer", SOON, || {
            socket.send_to(&question, to).expect("ask");
            let mut room = vec![0; 65_535];
            let length = socket.recv(&mut room).ok()?;
            room.truncate(length);
            Some(room)
        })
    };
    vm.inside(job).join().expect("a client")
}

/// Starts a DNS server on the host with an ordinary name and one whose answer exceeds a packet.
fn dns_server(host: &Netns, dir: &Path) -> Process {
    host.run(&format!("ip address add {RESOLVER}/32 dev lo"));
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file"]);
    command.args(["--log-facility=-", "--bind-interfaces", "--no-resolv", "--no-hosts"]);
    command.arg(format!("--listen-address={RESOLVER}"));
    command.arg("--address=/one.test/198.51.100.99");
    let strings = vec!["x".repeat(200); 15].join(",");
    command.arg(format!("--txt-record=long.test,{strings}"));
    let mut server = Process::spawn("dnsmasq", command, &dir.join("dnsmasq.log"));
    server.wait_for_log("started", SOON);
    server
}

#[test]
fn dns_over_tcp_knows_what_dns_over_udp_knows() {
    let [host, vm] = ["host", "vm"].map(Netns::with_ipv6);
    let dir = tempfile::tempdir().expect("temporary directory");
    let _server = dns_server(&host, dir.path());
    let text = network("nat-network", "hosts = { web = \"10.7.0.20\" }", &vm, "");
    // The first server does not answer.
    let tramad = Tramad::start_inside(&host, &["192.0.2.77", RESOLVER], &text);
    vm.run("ip link set eth0 up");
    let lease = "busybox udhcpc -i eth0 -f -n -q -t 10 -T 1 -x hostname:printer -s /bin/true 2>&1";
    let said = wait_until("a lease", SOON, || {
        let answer = vm.try_run(lease);
        (answer.status == 0).then_some(answer.text)
    });
    let address = said.split("lease of ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.expect("an address").to_owned();
    vm.run(&format!("ip addr add {address}/24 dev eth0; ip addr add fd00:7::15/64 dev eth0"));
    let number: std::net::Ipv4Addr = address.parse().expect("address");

    for server in GATEWAY {
        vm.wait_for_ping(server, SOON);
        let names = [("web", [10, 7, 0, 20]), ("printer", number.octets())];
        for (name, wanted) in names.into_iter().chain([("one.test", [198, 51, 100, 99])]) {
            let answers = ask_by_stream(&vm, server, vec![question(name, TYPE_A)]);
            assert!(answers[0].ends_with(&wanted), "{server}, {name}: {:?}", answers[0]);
            let same = ask_by_datagram(&vm, server, question(name, TYPE_A));
            assert_eq!(same[12..], answers[0][12..], "{server}, {name}");
        }
        // An answer too large for UDP is complete over TCP.
        let cut = ask_by_datagram(&vm, server, question("long.test", TYPE_TXT));
        assert_eq!(cut[2] & TRUNCATED, TRUNCATED);
        let questions = vec![question("long.test", TYPE_TXT), question("web", TYPE_A)];
        let answers = ask_by_stream(&vm, server, questions);
        let longest = answers.iter().map(Vec::len).max().expect("answers");
        assert!(longest > 3000, "{longest} bytes");
        assert!(answers.iter().all(|answer| answer[2] & TRUNCATED == 0));
    }
    tramad.stop();
}

#[test]
fn what_is_longer_than_a_packet_is_answered() {
    for mode in ["nat-network", "internal"] {
        let [host, vm] = ["host", "vm"].map(Netns::with_ipv6);
        let address = "address = [\"10.7.0.15/24\", \"fd00:7::15/64\"]";
        let tramad = Tramad::start_in(&host, &network(mode, "", &vm, address));
        for gateway in GATEWAY {
            vm.wait_for_ping(gateway, SOON);
            let ping = format!("ping -c 5 -i 0.2 -W 20 -s 5000 {gateway}");
            let told = vm.try_run(&ping).text;
            assert!(told.contains(" 0% packet loss"), "{mode}: {told}");
            // The largest possible.
            let told = vm.try_run(&format!("ping -c 3 -i 0.2 -W 20 -s 65000 {gateway}")).text;
            assert!(told.contains(" 0% packet loss"), "{mode}: {told}");
        }
        tramad.stop();
    }
}

/// Starts a resolver on the host that answers every A query with 192.0.2.7 after a delay and does
/// not support EDNS. It ends with the test.
fn resolver(host: &Netns, address: SocketAddr, delay: Duration) {
    let socket = host.inside(move || UdpSocket::bind(address).expect("port 53"));
    let socket = socket.join().expect("a resolver");
    let serve = move || {
        let mut room = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut room).expect("a question");
            let (question, socket) = (room[..length].to_vec(), socket.try_clone().expect("socket"));
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                // The client may be gone.
                let _ = socket.send_to(&plain_answer(&question), from);
            });
        }
    };
    std::thread::spawn(serve);
}

/// Returns the answer of a server without EDNS.
fn plain_answer(question: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).expect("a name") + 5;
    let header = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7];
    [&question[..2], &header, &question[12..end], &record].concat()
}

/// Returns dig's output on a guest of the network.
fn dig(vm: &Netns, arguments: &str) -> String {
    vm.try_run(&format!("dig @{} {arguments}", GATEWAY[0])).text
}

/// Waits until dig gets an answer from a resolver.
#[track_caller]
fn wait_for_answer(vm: &Netns, what: &str, address: &str) {
    wait_until(what, SOON, || {
        dig(vm, "+short +timeout=2 +tries=1 one.test").contains(address).then_some(())
    });
}

#[test]
fn resolvers_that_come_later_are_asked() {
    let [host, vm] = ["host", "vm"].map(Netns::with_ipv6);
    let dir = tempfile::tempdir().expect("temporary directory");
    let _server = dns_server(&host, dir.path());
    // Closed to the gateway's user: it asks the daemon for what is in it.
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(dir.path(), closed).expect("chmod");
    let text = network("nat-network", "", &vm, "address = \"10.7.0.15/24\"");
    let tramad = Tramad::start_inside(&host, &[], &text);
    vm.wait_for_ping(GATEWAY[0], SOON);
    assert!(dig(&vm, "+timeout=5 one.test").contains("status: SERVFAIL"));

    // The link leads to another one, in a folder created later.
    let (file, later) = (tramad.path("etc/resolv.conf"), dir.path().join("later/on"));
    std::fs::remove_file(&file).expect("resolv.conf");
    std::os::unix::fs::symlink(later.join("a"), &file).expect("link");
    assert!(dig(&vm, "+timeout=5 one.test").contains("status: SERVFAIL"));
    std::fs::create_dir_all(&later).expect("folder");
    std::os::unix::fs::symlink("b", later.join("a")).expect("link");
    let text = format!("# Z\u{fc}rich \r\nnameserver {RESOLVER} # by hand\r\n");
    let latin1: Vec<u8> = text.chars().map(|letter| letter as u8).collect();
    std::fs::write(later.join("b"), &latin1).expect("resolv.conf");
    wait_for_answer(&vm, "the file is there", "198.51.100.99");

    // A resolver on a link created later.
    std::fs::write(later.join("b"), "nameserver fe80::53%up0").expect("resolv.conf");
    wait_until("no resolver is left", SOON, || {
        dig(&vm, "+timeout=5 one.test").contains("status: SERVFAIL").then_some(())
    });
    host.run("ip link add up0 type veth peer name up1");
    host.run("ip link set up0 up; ip link set up1 up; ip addr add fe80::53/64 dev up0 nodad");
    let index = host.run("cat /sys/class/net/up0/ifindex");
    let address = format!("[fe80::53%{}]:53", index.trim());
    resolver(&host, address.parse().expect("address"), Duration::ZERO);
    wait_for_answer(&vm, "the link is there", "192.0.2.7");

    // The folder is recreated.
    std::fs::remove_dir_all(&later).expect("folder");
    std::fs::create_dir_all(&later).expect("folder");
    std::fs::write(later.join("a"), &latin1).expect("resolv.conf");
    wait_for_answer(&vm, "the folder is there again", "198.51.100.99");

    // A mount hides the file.
    let (mounted, id) = (dir.path().join("mounted"), tramad.id());
    std::fs::write(&mounted, "# none\n").expect("resolv.conf");
    let mount = format!("mount --bind {} /etc/resolv.conf", mounted.display());
    vm.run(&format!("nsenter --target {id} --mount {mount}"));
    wait_until("the mount is seen", SOON, || {
        dig(&vm, "+timeout=5 one.test").contains("status: SERVFAIL").then_some(())
    });
    tramad.stop();
}

#[test]
fn a_slow_resolver_is_waited_for() {
    let [host, vm] = ["host", "vm"].map(Netns::with_ipv6);
    // The second server, asked meanwhile, answers too late.
    for (last, delay) in [(1, 2500), (2, 60_000)] {
        host.run(&format!("ip address add 192.0.2.{last}/32 dev lo"));
        let address = ([192, 0, 2, last], 53).into();
        resolver(&host, address, Duration::from_millis(delay));
    }
    let text = network("internal", "", &vm, "address = \"10.7.0.15/24\"");
    let tramad = Tramad::start_inside(&host, &[RESOLVER, "192.0.2.2"], &text);
    vm.wait_for_ping(GATEWAY[0], SOON);
    for edns in ["+noedns", "+edns=0"] {
        let said = dig(&vm, &format!("+timeout=5 +tries=3 {edns} one.test"));
        assert!(said.contains("status: NOERROR") && said.contains("192.0.2.7"), "{said}");
        assert_eq!(said.contains("EDNS: version: 0"), edns == "+edns=0", "{said}");
    }
    tramad.stop();
}

#[test]
fn a_burst_of_questions_is_answered() {
    const COUNT: u16 = 150;
    let [host, vm] = ["host", "vm"].map(Netns::with_ipv6);
    host.run(&format!("ip address add {RESOLVER}/32 dev lo"));
    let server = SocketAddr::new(RESOLVER.parse().expect("address"), 53);
    resolver(&host, server, Duration::from_millis(150));
    let text = network("nat-network", "", &vm, "address = \"10.7.0.15/24\"");
    let tramad = Tramad::start_inside(&host, &[RESOLVER], &text);
    vm.wait_for_ping(GATEWAY[0], SOON);
    let to = SocketAddr::new(GATEWAY[0].parse().expect("address"), 53);
    let job = vm.inside(move || {
        let open = |_| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
            socket.connect(to).expect("connect");
            socket.set_read_timeout(Some(SOON)).expect("timeout");
            socket
        };
        let sockets: Vec<_> = (0..COUNT).map(open).collect();
        for (number, socket) in sockets.iter().enumerate() {
            socket.send(&question(&format!("n{number}.test"), TYPE_A)).expect("ask");
        }
        let answer = |socket: &UdpSocket| {
            let mut room = [0; 512];
            let length = socket.recv(&mut room).expect("an answer");
            room[..length].ends_with(&[192, 0, 2, 7])
        };
        sockets.iter().filter(|socket| answer(socket)).count()
    });
    assert_eq!(job.join().expect("a client"), usize::from(COUNT));
    tramad.stop();
}

#[test]
fn edns_and_tcp_are_the_same_on_every_network() {
    for mode in ["nat-network", "internal", "host-only"] {
        let [host, vm] = ["host", "vm"].map(Netns::with_ipv6);
        let dir = tempfile::tempdir().expect("temporary directory");
        let _server = dns_server(&host, dir.path());
        let text =
            network(mode, "hosts = { web = \"10.7.0.20\" }", &vm, "address = \"10.7.0.15/24\"");
        let tramad = Tramad::start_inside(&host, &[RESOLVER], &text);
        let gateway = if mode == "host-only" { "10.7.0.100" } else { GATEWAY[0] };
        vm.wait_for_ping(gateway, SOON);
        let dig = |arguments: &str| {
            vm.try_run(&format!("dig @{gateway} +timeout=5 +tries=3 {arguments}")).text
        };
        let says = [
            ("web", "NOERROR", "10.7.0.20"),
            ("web AAAA", "NOERROR", "ANSWER: 0"),
            ("-x 10.7.0.20", "NOERROR", "web."),
            ("-x 10.7.0.21", "NXDOMAIN", "ANSWER: 0"),
            ("one.test", "NOERROR", "198.51.100.99"),
            ("one.test +opcode=status", "NOTIMP", "ANSWER: 0"),
            ("one.test AXFR +onesoa +comments", "", "; Transfer failed."),
            // Too large for UDP; dig then asks again by TCP.
            ("long.test TXT", "NOERROR", "xxxx"),
        ];
        for (asked, status, answer) in says {
            for by in ["", "+tcp"] {
                let said = dig(&format!("{asked} {by}"));
                assert!(said.contains(answer), "{mode}: {asked} {by}: {said}");
                if !status.is_empty() {
                    assert!(said.contains(&format!("status: {status},")), "{mode}: {said}");
                    assert!(said.contains("EDNS: version: 0"), "{mode}: {asked} {by}: {said}");
                    let plain = dig(&format!("{asked} {by} +noedns"));
                    assert!(!plain.contains("EDNS: version"), "{mode}: {asked} {by}: {plain}");
                }
            }
        }
        let said = dig("web +edns=1 +noednsneg");
        assert!(said.contains("status: BADVERS,") && said.contains("EDNS: version: 0"), "{said}");
        assert!(dig("web +dnssec").contains("flags: do;"), "{mode}");
        assert!(dig("web +ednsopt=65001:07").contains("10.7.0.20"), "{mode}");
        tramad.set_resolvers(&[]);
        wait_until("no resolver is left", SOON, || {
            let said = dig("one.test");
            (said.contains("status: SERVFAIL,") && said.contains("EDNS: version")).then_some(())
        });
        // No other TCP port of the gateway or behind it is reachable.
        vm.run(&format!("ip route add default via {gateway}"));
        for (to, port) in [(gateway, 80), (RESOLVER, 53)] {
            let said = vm.try_run(&format!("timeout 1 dig @{to} -p {port} +tcp +tries=1 one.test"));
            let is_open = mode == "nat-network" && to == RESOLVER;
            assert_eq!(said.text.contains("NOERROR"), is_open, "{mode}: {to}: {}", said.text);
        }
        tramad.stop();
    }
}

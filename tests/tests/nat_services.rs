//! What the gateway of a network itself answers: DNS over TCP, and what comes in fragments.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "nobody calls a test; one that cannot go on panics"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use trama_tests::nat::{GATEWAY, SOON, tap_port};
use trama_tests::{Host, Netns, Process, Tramad, wait_until};

const RESOLVER: &str = "192.0.2.1";
const TYPE_A: u8 = 1;
const TYPE_TXT: u8 = 16;
/// In the second word of a message: it was cut.
const TRUNCATED: u8 = 2;

/// A network with a gateway, and a machine on it.
fn network(mode: &str, keys: &str, vm: &Netns, address: &str) -> String {
    let port = tap_port("home", "vm", vm, &format!("ifname = \"eth0\"\n{address}"));
    format!(
        "[[network]]\nname = \"home\"\nmode = \"{mode}\"\n\
         subnet = [\"10.7.0.0/24\", \"fd00:7::/64\"]\n{keys}\n{port}"
    )
}

/// A question for a name.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

/// The answers over one TCP connection to questions that are asked at once, in the order in which they
/// come.
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

/// A DNS server of the host that knows a name, and one whose answer is longer than a packet.
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
    // Nobody answers at the first one.
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
        // What does not fit in a datagram is whole on a stream.
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
            // The longest that there can be.
            let told = vm.try_run(&format!("ping -c 3 -i 0.2 -W 20 -s 65000 {gateway}")).text;
            assert!(told.contains(" 0% packet loss"), "{mode}: {told}");
        }
        tramad.stop();
    }
}

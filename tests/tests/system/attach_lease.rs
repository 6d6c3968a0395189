//! Ports that state their guest's addresses and names, and addresses that the daemon chooses: what
//! DHCP, DNS and forwards make of them.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use trama_tests::nat::{listen, tap_port};
use trama_tests::tramad::free_address;
use trama_tests::{Host, Netns, SOON, Tramad, wait_until};

use crate::attach::{ask, attach};

/// A network with ten addresses for DHCP clients and attached ports together.
const LAB: &str = "[[network]]\nname = \"lab\"\nmode = \"nat-network\"\nsubnet = \"10.1.0.0/24\"\n\
                   [network.dhcp]\nrange = \"10.1.0.20-10.1.0.29\"\ndomain = \"lab.example\"\n";

/// Attaches a vhost-user port with an address of the daemon's choice; returns the answer, or why it
/// is refused.
fn lease(tramad: &Tramad, port: &str, columns: &[&str]) -> Result<Value, String> {
    let body = json!({"version": 1, "network": "lab", "port": port, "columns": columns,
                      "lease": true, "device": "vhost-user"});
    // A user's connections are limited, and those beyond wait for a second only.
    let answer = wait_until("a connection is free", SOON, || {
        let answer = ask(tramad, &body.to_string(), &[]);
        (!answer.starts_with("HTTP/1.1 503")).then_some(answer)
    });
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let body: Value = serde_json::from_str(body).expect("JSON");
    match head.starts_with("HTTP/1.1 200") {
        true => Ok(body),
        false => Err(body["error"].as_str().expect("a reason").to_owned()),
    }
}

/// The IPv4 address of an answer, without its prefix length.
fn ipv4(answer: &Value) -> String {
    let first = answer["addresses"][0].as_str().expect("an address");
    first.split_once('/').expect("a length").0.to_owned()
}

/// Asks DHCP for an address; returns the one that it leases.
fn udhcpc(netns: &Netns, requested: &str) -> Option<String> {
    let said = netns.try_run(&format!(
        "ip link set s up; busybox udhcpc -f -n -q -t 25 -T 1 -r {requested} -i s -s /bin/true 2>&1"
    ));
    let (_, rest) = said.text.split_once("lease of ")?;
    Some(rest.split([' ', ',']).next()?.to_owned())
}

fn station(netns: &Netns, name: &str) -> String {
    tap_port("lab", name, netns, "ifname = \"s\"")
}

#[test]
fn no_address_is_given_to_a_port_and_to_a_dhcp_client() {
    let [a, b] = ["a", "b"].map(Netns::new);
    let tramad = Tramad::start(&[LAB, &station(&a, "a"), &station(&b, "b")].concat());
    tramad.wait_for_gateway("lab");
    assert_eq!(udhcpc(&a, "10.1.0.29").as_deref(), Some("10.1.0.29"));
    let first = lease(&tramad, "p0", &["names=web"]).expect("an address");
    assert_eq!(
        first["addresses"],
        json!(["10.1.0.28/24", "fd17:625c:f037:100::1fff/64"]),
        "the last that no client has"
    );
    assert_eq!(first["gateways"], json!(["10.1.0.1", "fd17:625c:f037:100::1"]));
    assert_eq!(first["dns"], first["gateways"]);
    assert_eq!((&first["ifname"], &first["mtu"]), (&json!(""), &json!(1500)));
    let socket = first["socket"].as_str().expect("a socket");
    assert!(std::fs::metadata(socket).is_ok() && socket.ends_with("/p0.sock"), "{socket}");
    assert_eq!(tramad.ctl("get Port p0 ephemeral"), "true\n");
    let stated = lease(&tramad, "s", &["addresses=10.1.0.200"]).expect("one is stated");
    let addresses = json!(["10.1.0.200/24", "fd17:625c:f037:100::1ffe/64"]);
    assert_eq!(stated["addresses"], addresses);

    let other = udhcpc(&b, "10.1.0.28").expect("a lease");
    assert_ne!(other, "10.1.0.28");
    let mut given = HashSet::from(["10.1.0.29".to_owned(), "10.1.0.28".to_owned(), other]);
    for number in 1..8 {
        let answer = lease(&tramad, &format!("p{number}"), &[]).expect("an address");
        assert!(given.insert(ipv4(&answer)), "{answer} is given twice");
    }
    assert_eq!(
        lease(&tramad, "late", &[]),
        Err("network lab has no free address left in 10.1.0.0/24; enlarge the range of its dhcp, \
             or detach ports that are not needed"
            .to_owned())
    );
    assert!(!tramad.ctl("list-ports lab").contains("late"));

    // Names, with the domain and without, forward and reverse, and nothing after the port's end.
    a.run("ip address add 10.1.0.29/24 dev s");
    let dig = |question: &str| {
        a.run(&format!("dig @10.1.0.1 +short +timeout=5 {question}")).trim().to_owned()
    };
    assert_eq!(dig("web.lab.example"), "10.1.0.28");
    assert_eq!(dig("web"), "10.1.0.28");
    assert_eq!(dig("web AAAA"), "fd17:625c:f037:100::1fff");
    assert_eq!(dig("-x 10.1.0.28"), "web.lab.example.");
    // The next switch goes on with the port, and so does its gateway.
    let mut tramad = tramad;
    tramad.kill_and_follow();
    assert_eq!(dig("web"), "10.1.0.28");
    tramad.ctl("detach p0");
    wait_until("the name is gone", SOON, || (dig("-x 10.1.0.28").is_empty()).then_some(()));
    // A client that has no lease yet.
    b.run("ip link set s down address 02:00:00:00:00:77");
    assert_eq!(udhcpc(&b, "10.1.0.28").as_deref(), Some("10.1.0.28"));
    drop(tramad);
}

#[test]
fn fifty_leases_at_once_are_distinct_and_none_is_a_clients() {
    let spaces: Vec<Netns> = (0..4).map(|_| Netns::new("c")).collect();
    let mut text = LAB.replace("10.1.0.29", "10.1.0.90");
    for (number, space) in spaces.iter().enumerate() {
        text += &station(space, &format!("s{number}"));
    }
    let tramad = Tramad::start(&text);
    let given: Vec<String> = std::thread::scope(|scope| {
        let tramad = &tramad;
        // They ask for what is chosen next.
        let clients: Vec<_> = spaces
            .iter()
            .enumerate()
            .map(|(number, space)| {
                scope.spawn(move || {
                    let ask =
                        |round| udhcpc(space, &format!("10.1.0.{}", 89 - number * 10 - round));
                    let leases: HashSet<String> = (0..3).filter_map(ask).collect();
                    assert_eq!(leases.len(), 1, "it keeps its lease: {leases:?}");
                    leases.into_iter().next()
                })
            })
            .collect();
        let ports: Vec<_> = (0..50)
            .map(|number| scope.spawn(move || lease(tramad, &format!("p{number}"), &[])))
            .collect();
        let ports = ports.into_iter().map(|it| it.join().expect("a thread").expect("an address"));
        let ports: Vec<String> = ports.map(|answer| ipv4(&answer)).collect();
        let clients = clients.into_iter().map(|it| it.join().expect("a thread").expect("a lease"));
        clients.chain(ports).collect()
    });
    let distinct: HashSet<&String> = given.iter().collect();
    assert_eq!(distinct.len(), 54, "{given:?}\n{}", tramad.ctl("leases"));
    tramad.stop();
}

#[test]
fn a_forward_of_a_port_leads_to_its_address_and_ends_with_it() {
    let space = Netns::new("c");
    let tramad = Tramad::start(LAB);
    let host = free_address();
    attach(
        &tramad,
        &format!(
            "web --netns {} --address 10.1.0.7/24 --gateway 10.1.0.1 addresses=10.1.0.7 \
             forward=web,tcp,{},{},,80",
            space.name(),
            host.ip(),
            host.port()
        ),
    );
    let server = listen(&space, "10.1.0.7:80");
    wait_until("it listens", SOON, || {
        tramad.ctl("forward list web").contains("listening").then_some(())
    });
    let mut client = TcpStream::connect(host).expect("the forward");
    client.write_all(b"hello").expect("send");
    let (mut stream, _) = server.accept().expect("a client");
    let mut said = [0; 5];
    stream.read_exact(&mut said).expect("what it said");
    assert_eq!(&said, b"hello");
    assert_eq!(tramad.ctl("forward list lab"), tramad.ctl("forward list web"));
    tramad.ctl("detach web");
    assert!(!tramad.ctl("forward list").contains("web"));
    wait_until("it no longer listens", SOON, || TcpStream::connect(host).is_err().then_some(()));
    tramad.stop();
}

#[test]
fn what_cannot_be_leased_is_refused() {
    let tramad = Tramad::start("[[network]]\nname = \"lab\"\n");
    assert_eq!(
        lease(&tramad, "p", &[]),
        Err("network lab has no subnet to take an address from; add one, as in tramactl set \
             Bridge lab subnet=10.1.0.0/24, or give the port addresses"
            .to_owned())
    );
    let device = std::fs::File::open("/dev/null").expect("a file");
    let body = "{\"version\":1,\"network\":\"lab\",\"port\":\"p\",\"device\":\"vhost-user\"}";
    let answer = ask(&tramad, body, &[std::os::fd::AsFd::as_fd(&device)]);
    assert!(answer.contains("pass none"), "{answer}");
    assert_eq!(tramad.ctl("list-ports lab"), "");
    let answer = ask(&tramad, body, &[]);
    assert!(answer.contains("\"addresses\":[]") && answer.contains("/p.sock\""), "{answer}");
    tramad.stop();
}

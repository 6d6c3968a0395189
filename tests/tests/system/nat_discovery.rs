//! Machines behind a NAT discover services on the host's link by mDNS and SSDP, if the network
//! allows it.
//!
//! The responder and the clients are scripted after RFC 6762 (6, 6.7 and 11) and the UPnP Device
//! Architecture (1.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use trama_tests::nat::{NETWORK, SOON, guest_port, route};
use trama_tests::{Host, Netns, Tramad, wait_until};

const DEVICE: &str = "203.0.113.9";
const MDNS4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);
const MDNS6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)), 5353);
const SSDP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
const NAME: &[u8] = b"\x07printer\x05local\0\0\x01";
const SEARCH: &[u8] =
    b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n";
const FOUND: &[u8] = b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nUSN: uuid:1\r\nLOCATION: http://203.0.113.9/\r\n\r\n";
const ALIVE: &[u8] =
    b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nUSN: uuid:1\r\n\r\n";

/// A guest's own announcement.
const OWN_ALIVE: &[u8] =
    b"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nUSN: uuid:2\r\n\r\n";

fn own_answer() -> Vec<u8> {
    let mut bytes = answer();
    bytes[13..20].copy_from_slice(b"machine");
    bytes
}

/// Returns the mDNS query for printer.local with an id.
fn question(id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], NAME, &[0, 1]].concat()
}

/// Returns the multicast answer: printer.local is 203.0.113.9.
fn answer() -> Vec<u8> {
    let record = [NAME, &[0x80, 1, 0, 0, 0, 120, 0, 4, 203, 0, 113, 9]].concat();
    [&[0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], &record].concat()
}

/// Returns the unicast answer to a legacy querier, with its id and question (RFC 6762, 6.7).
fn legacy_answer(asked: &[u8]) -> Vec<u8> {
    let record = [NAME, &[0, 1, 0, 0, 0, 10, 0, 4, 203, 0, 113, 9]].concat();
    [&asked[..2], &[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0], &asked[12..], &record].concat()
}

/// Returns the index of `eth0` in the thread's namespace.
fn eth0() -> u32 {
    let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    rustix::net::netdevice::name_to_index(&any, "eth0").unwrap()
}

/// Returns a socket that is a member of a group on `eth0`.
fn join(group: SocketAddr) -> UdpSocket {
    let socket = match group.ip() {
        IpAddr::V4(address) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, group.port())).unwrap();
            socket.join_multicast_v4(&address, &Ipv4Addr::UNSPECIFIED).unwrap();
            socket
        }
        IpAddr::V6(address) => {
            // IPv6 only, as the IPv4 socket has the same port.
            let socket = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None);
            let socket = UdpSocket::from(socket.unwrap());
            rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port()));
            rustix::net::bind(&socket, &any).unwrap();
            rustix::net::sockopt::set_ipv6_multicast_if(&socket, eth0()).unwrap();
            socket.join_multicast_v6(&address, eth0()).unwrap();
            socket
        }
    };
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut room = [0; 2000];
    let (length, from) = socket.recv_from(&mut room).ok()?;
    Some((room[..length].to_vec(), from))
}

/// A device on the host's link that answers, announces itself, and records what it receives. It
/// echoes datagrams to its port 7000.
struct Device {
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    _end: mpsc::Sender<()>,
}

impl Device {
    fn start(netns: &Netns) -> Device {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel();
        let memory = Arc::clone(&heard);
        netns.inside(move || {
            let sockets = [MDNS4, MDNS6, SSDP].map(|group| (group, join(group)));
            let echo = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7000)).unwrap();
            echo.set_nonblocking(true).unwrap();
            while ended.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                for (group, socket) in &sockets {
                    let Some((said, from)) = receive(socket) else { continue };
                    memory.lock().unwrap().push(said.clone());
                    let result = match (*group, from.port()) {
                        (SSDP, _) if said == SEARCH => socket.send_to(FOUND, from),
                        (MDNS4 | MDNS6, 5353) if said == question(0) => {
                            socket.send_to(&answer(), group)
                        }
                        (MDNS4 | MDNS6, _) => socket.send_to(&legacy_answer(&said), from),
                        _ => continue,
                    };
                    result.unwrap();
                }
                sockets[2].1.send_to(ALIVE, SSDP).unwrap();
                if let Some((said, from)) = receive(&echo) {
                    echo.send_to(&said, from).unwrap();
                }
            }
        });
        Device { heard, _end: end }
    }

    fn has_heard(&self, said: &[u8]) -> bool {
        self.heard.lock().unwrap().iter().any(|heard| heard == said)
    }
}

/// Sends a message from a port to a group, until an answer arrives or `tries` are used up.
fn ask(
    socket: &UdpSocket,
    group: SocketAddr,
    said: &[u8],
    tries: usize,
) -> Vec<(Vec<u8>, SocketAddr)> {
    for _ in 0..tries {
        socket.send_to(said, group).unwrap();
        let answers: Vec<_> = std::iter::from_fn(|| receive(socket)).collect();
        // A member of the group receives its own query, too.
        let answers: Vec<_> = answers.into_iter().filter(|(bytes, _)| bytes != said).collect();
        if !answers.is_empty() {
            return answers;
        }
    }
    Vec::new()
}

/// Returns each kind of answer that a guest gets, with its source.
fn discover(vm: &Netns, tries: usize) -> [Vec<(Vec<u8>, SocketAddr)>; 5] {
    let job = move || {
        let port = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let announced = join(SSDP);
        [
            ask(&join(MDNS4), MDNS4, &question(0), tries),
            ask(&join(MDNS6), MDNS6, &question(0), tries),
            ask(&port(), MDNS4, &question(7), tries),
            ask(&port(), SSDP, SEARCH, tries),
            // A member receives its own search, too.
            (0..tries)
                .filter_map(|_| receive(&announced))
                .find(|(said, _)| said != SEARCH)
                .into_iter()
                .collect(),
        ]
    };
    vm.inside(job).join().unwrap()
}

/// Sends a datagram through the gateway and waits for its echo: all earlier ones have been handled.
fn echo(vm: &Netns) {
    let job = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        wait_until("the device echoes", SOON, || {
            socket.send_to(b"done", (DEVICE, 7000)).unwrap();
            receive(&socket).map(drop)
        });
    };
    vm.inside(job).join().unwrap();
}

#[test]
fn machines_find_what_is_on_the_hosts_link_where_the_network_says_so() {
    for (mode, gateway) in [("nat-network", "10.7.0.1"), ("nat", "10.7.0.2")] {
        let [host, lan, vm] = ["host", "lan", "vm"].map(Netns::with_ipv6);
        host.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", lan.name()));
        host.run("ip addr add 203.0.113.1/24 dev eth0; ip link set eth0 up");
        lan.run(&format!(
            "ip addr add {DEVICE}/24 dev eth0; ip link set eth0 up; ip route add 224.0.0.0/4 dev eth0"
        ));
        let network = NETWORK.replace("nat-network", mode);
        let text = format!("{network}{}", guest_port(&vm, "vm", &["10.7.0.15", "fd00:7::15"]));
        let tramad = Tramad::start_in(&host, &text);
        route(&vm, &[gateway]);
        host.wait_for_ping(DEVICE, SOON);
        let device = Device::start(&lan);

        // Off: nothing passes in either direction.
        echo(&vm);
        assert_eq!(discover(&vm, 5), [const { Vec::new() }; 5], "{mode}");
        echo(&vm);
        assert!(!device.has_heard(&question(0)) && !device.has_heard(SEARCH), "{mode}: it got out");

        // Enabled live.
        tramad.ctl("set Bridge home reflect=mdns,ssdp");
        assert!(tramad.configuration().contains("reflect = [\"mdns\", \"ssdp\"]"));
        let [mdns4, mdns6, legacy, found, alive] = discover(&vm, 200);
        let gateway4: SocketAddr = format!("{gateway}:5353").parse().unwrap();
        let of_device = |port: u16| SocketAddr::new(DEVICE.parse().unwrap(), port);
        assert!(mdns4.contains(&(answer(), gateway4)), "{mode}: {mdns4:?}");
        let is_near = |from: &SocketAddr| {
            matches!(from.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()) && from.port() == 5353
        };
        assert!(mdns6.iter().any(|(said, from)| *said == answer() && is_near(from)), "{mdns6:?}");
        // A query may be repeated after a slow answer, and then get two.
        let wanted = (legacy_answer(&question(7)), gateway4);
        assert!(!legacy.is_empty() && legacy.iter().all(|answer| *answer == wanted), "{legacy:?}");
        assert_eq!(found[0], (FOUND.to_vec(), of_device(1900)));
        assert_eq!(alive[0], (ALIVE.to_vec(), of_device(1900)));

        // The guest's own announcements stay inside.
        let boast = || {
            let (mdns, ssdp) = (join(MDNS4), join(SSDP));
            mdns.send_to(&own_answer(), MDNS4).unwrap();
            ssdp.send_to(OWN_ALIVE, SSDP).unwrap();
        };
        vm.inside(boast).join().unwrap();
        echo(&vm);
        let drops = |reason: &str| {
            let text = host.run(&format!("curl -s http://{}/metrics", tramad.metrics_address()));
            let line = text.lines().find(|line| {
                line.starts_with("trama_gateway_drops_total") && line.contains(reason)
            });
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        wait_until("both are counted", SOON, || (drops("\"reflect_withheld\"") == 2).then_some(()));
        let has_heard = device.has_heard(&own_answer()) || device.has_heard(OWN_ALIVE);
        assert!(!has_heard, "{mode}: it got out");
        tramad.stop();
    }
}

//! Ports at all addresses of the host: which source address an answer has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};

use nix::net::if_::if_nametoindex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tests::*;
use super::*;
use crate::drop_reason::DropReason;
use crate::host_socket::SendOptions;
use crate::test_world::*;
use crate::testing::{GUEST4, GUEST6};

const OTHER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77));
const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77));
const LOOPBACK4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// Several addresses of both IP versions.
const SEVERAL: &str = "ip addr add 198.51.100.1/32 dev lo; ip addr add 198.51.100.77/32 dev lo; \
                       ip addr add 2001:db8::77/128 dev lo nodad; \
                       ip addr add 2001:db8::1/128 dev lo nodad";
/// A link to another host, on which this one has a second address.
const LINK: &str = "ip addr add 192.0.2.1/24 dev l0; ip addr add 192.0.2.9/24 dev l0; \
                    ip addr add fe80::1/64 dev l0 nodad; ip link set l0 up";

/// A world with a port of the host at all addresses, whose guest is resolved.
fn world_anywhere(hides_client: bool) -> World {
    let rule = Forward { host: None, hides_client, ..rule(LOOPBACK4, GUEST4.into()) };
    let mut world = world(&[rule]);
    assert_eq!(world.nat.take_warnings(), Vec::<String>::new());
    client(LOOPBACK4).send_to(b"where?", (LOOPBACK4, 5000)).unwrap();
    world.frame();
    announce(&mut world);
    world.frame();
    world
}

/// Sends to an address of the host. Returns the client's address that the guest sees.
#[track_caller]
fn ask(world: &mut World, socket: &UdpSocket, address: impl Into<SocketAddr>) -> SocketAddr {
    socket.send_to(b"hello", address.into()).unwrap();
    let (visible, _, said) = read_datagram(&world.frame());
    assert_eq!(said, b"hello");
    visible
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    if !is_isolated(SEVERAL) {
        return;
    }
    let mut world = world_anywhere(false);
    for addresses in [[WORLD4, OTHER4, LOOPBACK4], [WORLD6, OTHER6, LOOPBACK6]] {
        // One port queries all addresses, and the guest answers in another order.
        let socket = client(addresses[0]);
        let visible = addresses.map(|address| ask(&mut world, &socket, (address, 5000)));
        let again = addresses.map(|address| ask(&mut world, &socket, (address, 5000)));
        assert_eq!(visible, again, "the same for the same address");
        for (visible, address) in visible.into_iter().zip(addresses).rev() {
            world.send(&[datagram(visible, 64, b"welcome")]);
            assert_eq!(receive(&socket), (b"welcome".to_vec(), SocketAddr::new(address, 5000)));
        }
        // A burst for two of them in turn: no datagram leaves in a batch of the other.
        let burst = |payload: &[u8]| [0, 1].map(|at| datagram(visible[at], 64, payload));
        world.send(&[burst(b"1"), burst(b"2")].concat());
        let mut heard: Vec<_> = (0..4).map(|_| receive(&socket)).collect();
        heard.sort();
        let from = |payload: &[u8]| [0, 1].map(|at| (payload.to_vec(), addresses[at]));
        let mut wanted: Vec<_> = [from(b"1"), from(b"2")].concat();
        wanted.sort();
        let heard = heard.into_iter().map(|(payload, from)| (payload, from.ip()));
        assert_eq!(heard.collect::<Vec<_>>(), wanted);
    }
    assert_eq!(world.counters.drops().len(), 0);
}

#[test]
fn gso_batches_keep_to_the_address_that_was_asked() {
    if !is_isolated(SEVERAL) {
        return;
    }
    let mut world = world_anywhere(true);
    for (from, address) in [(WORLD4, OTHER4), (WORLD6, OTHER6)] {
        // A GRO batch from a client arrives as one, with its local address.
        let mut sender = HostSocket::udp(address.is_ipv6()).unwrap();
        let to = SocketAddr::new(address, 5000);
        let options = SendOptions { hop_limit: 64, may_fragment: false };
        sender.send((to, None), options, &[&[7; 3000]], Some(1000)).unwrap();
        let (header, frame) = world.frames(1).remove(0);
        let frames = segments(&header, &frame);
        let (visible, _, said) = read_datagram(&frames[0]);
        assert_eq!((frames.len(), said.len()), (3, 1000));
        // And so does a GSO batch of the guest.
        let socket = client(from);
        let known = ask(&mut world, &socket, to);
        assert_ne!(known, visible);
        world.send(&[1, 2, 3].map(|byte| datagram(known, 64, &[byte; 1000])));
        for byte in 1..=3 {
            let mut room = [0; 2000];
            let (length, from) = socket.recv_from(&mut room).unwrap();
            assert_eq!((&room[..length], from), (&[byte; 1000][..], to));
        }
    }
    assert_eq!(world.counters.drops().len(), 0);
}

#[test]
fn an_address_that_is_taken_away_costs_its_own_clients_alone() {
    if !is_isolated(SEVERAL) {
        return;
    }
    let mut world = world_anywhere(false);
    for (stays, goes, length) in [(WORLD4, OTHER4, 32), (WORLD6, OTHER6, 128)] {
        let (one, two) = (client(stays), client(stays));
        let visible = [ask(&mut world, &one, (stays, 5000)), ask(&mut world, &two, (goes, 5000))];
        shell(&format!("ip addr del {goes}/{length} dev lo"));
        world.send(&[datagram(visible[1], 64, b"lost"), datagram(visible[0], 64, b"welcome")]);
        assert_eq!(receive(&one), (b"welcome".to_vec(), SocketAddr::new(stays, 5000)));
        assert_eq!(read_icmp(&world.frame()).kind, (3, 0));
        // The other client continues at another address.
        let visible = ask(&mut world, &two, (stays, 5000));
        world.send(&[datagram(visible, 64, b"welcome")]);
        assert_eq!(receive(&two), (b"welcome".to_vec(), SocketAddr::new(stays, 5000)));
    }
    assert_eq!(world.dropped(DropReason::Unreachable), 2);
}

#[test]
fn a_client_that_is_gone_is_reported_to_the_guest() {
    if !is_isolated(SEVERAL) {
        return;
    }
    let mut world = world_anywhere(true);
    for address in [WORLD4, OTHER4] {
        let socket = client(address);
        let visible = ask(&mut world, &socket, (address, 5000));
        drop(socket);
        let sent = datagram(visible, 64, b"still there?");
        world.send(std::slice::from_ref(&sent));
        let applied = read_icmp(&world.frame());
        // Quoted with the address and port that the guest knows.
        assert_eq!((applied.kind, &applied.body[12..24]), ((3, 3), &sent[26..38]), "{address}");
    }
    // For IPv6, too.
    world.config.nat.as_mut().unwrap().forwards[0].guest = SocketAddr::new(GUEST6.into(), 4000);
    world.turn(Duration::ZERO);
    let socket = client(OTHER6);
    socket.send_to(b"where?", (OTHER6, 5000)).unwrap();
    world.frame();
    world.send(&[advertisement()]);
    let (visible, ..) = read_datagram(&world.frame());
    drop(socket);
    let sent = datagram(visible, 64, b"still there?");
    world.send(std::slice::from_ref(&sent));
    let applied = read_icmp(&world.frame());
    assert_eq!((applied.kind, &applied.body[8..44]), ((1, 4), &sent[22..58]));
}

/// A socket of the other host on a link.
fn there(neighbour: &Neighbour, address: &str, device: &'static str) -> (UdpSocket, u32) {
    let path = format!("/proc/{}/ns/net", neighbour.pid());
    let address: IpAddr = address.parse().unwrap();
    let job = move || {
        let namespace = std::fs::File::open(path).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        let link = if_nametoindex(device).unwrap();
        let socket = match address {
            IpAddr::V4(_) => UdpSocket::bind((address, 6000)),
            IpAddr::V6(address) => UdpSocket::bind(SocketAddrV6::new(address, 6000, 0, link)),
        };
        (socket.unwrap(), link)
    };
    let (socket, link) = std::thread::spawn(job).join().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.set_broadcast(true).unwrap();
    (socket, link)
}

/// Another host at the far end of `link`.
fn neighbour(link: &str, setup: &str) -> Neighbour {
    let neighbour = Neighbour::new();
    let pid = neighbour.pid();
    shell(&format!("ip link add {link} type veth peer name far netns {pid}; {setup}"));
    neighbour.run(
        "ip addr add 192.0.2.2/24 dev far; ip addr add fe80::2/64 dev far nodad; \
         ip link set far up; ip route add default dev far",
    );
    neighbour
}

#[test]
fn a_link_local_address_is_answered_on_its_link() {
    if !is_isolated(SEVERAL) {
        return;
    }
    let mut world = world_anywhere(false);
    // Two links with the same two addresses, and clients with the same port.
    let links = ["l0", "l1"].map(|link| {
        let add = |last| format!("ip addr add fe80::{last}/64 dev {link} nodad");
        neighbour(link, &format!("{}; {}; ip link set {link} up", add(1), add(5)))
    });
    let mut visible = Vec::new();
    let sockets = links.each_ref().map(|link| there(link, "fe80::2", "far"));
    for last in [1, 5] {
        for (socket, scope) in &sockets {
            let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
            let to = SocketAddrV6::new(address, 5000, 0, *scope);
            visible.push((socket, ask(&mut world, socket, to), to));
        }
    }
    for (socket, visible, to) in visible.into_iter().rev() {
        world.send(&[datagram(visible, 64, b"welcome")]);
        assert_eq!(receive(socket), (b"welcome".to_vec(), to.into()));
    }
    assert_eq!(world.counters.drops().len(), 0);
}

#[test]
fn a_broadcast_is_answered_from_the_hosts_address_there() {
    if !is_isolated(SEVERAL) {
        return;
    }
    let mut world = world_anywhere(false);
    let neighbour = neighbour("l0", LINK);
    let (socket, _) = there(&neighbour, "192.0.2.2", "far");
    for group in ["192.0.2.255", "255.255.255.255", "224.0.0.1"] {
        let to = SocketAddr::new(group.parse().unwrap(), 5000);
        let visible = ask(&mut world, &socket, to);
        assert_eq!(visible, SocketAddr::new("192.0.2.2".parse().unwrap(), 6000), "{group}");
        world.send(&[datagram(visible, 64, b"welcome")]);
        assert_eq!(receive(&socket).1, "192.0.2.1:5000".parse().unwrap(), "{group}");
    }
    let (socket, scope) = there(&neighbour, "fe80::2", "far");
    let to = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 5000, 0, scope);
    let visible = ask(&mut world, &socket, to);
    world.send(&[datagram(visible, 64, b"welcome")]);
    let from = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 5000, 0, scope);
    assert_eq!(receive(&socket).1, from.into());
    assert_eq!(world.counters.drops().len(), 0);
}

//! Clients of the host's ports on one side, a scripted guest that serves them on the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol, NdiscNeighborFlags,
    NdiscRepr,
};

use super::*;
use crate::drop_reason::DropReason;
use crate::packet::{checksums, ip_frame};
use crate::test_world::*;
use crate::testing::{GATEWAY, GATEWAY4, GUEST, GUEST4, GUEST6};

pub(super) const WORLD4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
pub(super) const WORLD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const SETUP: &str = "ip addr add 198.51.100.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo nodad";

/// A rule that leads port 5000 of `host` to port 4000 of the guest.
pub(super) fn rule(host: IpAddr, guest: IpAddr) -> Forward {
    Forward {
        name: "game".to_owned(),
        transport: Transport::Udp,
        host: Some(host),
        host_port: 5000,
        guest: SocketAddr::new(guest, 4000),
        count: 1,
        hides_client: false,
    }
}

pub(super) fn world(rules: &[Forward]) -> World {
    let mut world = World::new();
    world.config.nat.as_mut().unwrap().forwards = rules.to_vec();
    world.turn(Duration::ZERO);
    world
}

pub(super) fn client(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

pub(super) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut room = [0; 100];
    let (length, from) = socket.recv_from(&mut room).expect("a datagram");
    (room[..length].to_vec(), from)
}

#[test]
fn the_guest_is_resolved_and_sees_the_client() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = world(&[rule(WORLD4, GUEST4.into())]);
    let (one, two) = (client(WORLD4), client(WORLD4));
    one.send_to(b"hello", (WORLD4, 5000)).unwrap();
    let question = world.frame();
    let question = EthernetFrame::new_checked(&question[..]).unwrap();
    assert_eq!(question.ethertype(), EthernetProtocol::Arp);
    assert!(question.dst_addr().is_broadcast());
    announce_station(&mut world, MacAddr([2, 0, 0, 0, 0, 9]));
    assert!(world.wire.0.is_empty(), "an advertisement for another station is accepted");
    assert_eq!(world.dropped(DropReason::BadArp), 1);
    announce(&mut world);

    let to = SocketAddr::new(GUEST4.into(), 4000);
    assert_eq!(read_datagram(&world.frame()), (one.local_addr().unwrap(), to, b"hello".to_vec()));
    two.send_to(b"me too", (WORLD4, 5000)).unwrap();
    assert_eq!(read_datagram(&world.frame()), (two.local_addr().unwrap(), to, b"me too".to_vec()));

    for socket in [&one, &two] {
        world.send(&[datagram(socket.local_addr().unwrap(), 64, b"welcome")]);
        assert_eq!(receive(socket), (b"welcome".to_vec(), SocketAddr::new(WORLD4, 5000)));
    }
    assert_eq!(world.counters.drops().values().sum::<u64>(), 1, "that advertisement");
    // A client that is gone is reported to the guest.
    let gone = one.local_addr().unwrap();
    drop(one);
    world.send(&[datagram(gone, 64, b"still there?")]);
    assert_eq!(read_icmp(&world.frame()).kind, (3, 3));
}

#[test]
fn a_client_that_the_guest_cannot_or_must_not_see_is_masqueraded() {
    if !is_isolated(SETUP) {
        return;
    }
    let hidden = Forward { hides_client: true, ..rule(WORLD4, GUEST4.into()) };
    let other_version = Forward { name: "six".to_owned(), ..rule(WORLD6, GUEST4.into()) };
    let loopback = Ipv4Addr::LOCALHOST.into();
    let local = Forward { name: "local".to_owned(), ..rule(loopback, GUEST4.into()) };
    let mut world = world(&[hidden, other_version, local]);
    let mut masqueraded = Vec::new();
    client(WORLD4).send_to(b"where?", (WORLD4, 5000)).unwrap();
    world.frame();
    announce(&mut world);
    world.frame();
    for address in [WORLD4, WORLD6, loopback] {
        let socket = client(address);
        for word in [b"one", b"two"] {
            socket.send_to(word, (address, 5000)).unwrap();
            let (visible, to, said) = read_datagram(&world.frame());
            assert_eq!((visible.ip(), to.port(), &said[..]), (GATEWAY4.into(), 4000, &word[..]));
            masqueraded.push(visible);
            world.send(&[datagram(visible, 64, b"welcome")]);
            assert_eq!(receive(&socket), (b"welcome".to_vec(), SocketAddr::new(address, 5000)));
        }
    }
    let (even, odd): (Vec<_>, Vec<_>) =
        masqueraded.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    assert_eq!(even, odd, "the same one for the same client");
    assert!(even[0] != even[1] && even[1] != even[2] && even[0] != even[2]);
    // Masquerade ports without a client lead nowhere.
    let free = MASQUERADE_PORTS.map(|port| SocketAddr::new(GATEWAY4.into(), port));
    let free = free.into_iter().find(|visible| !even.contains(visible)).unwrap();
    world.send(&[datagram(free, 64, b"anybody?")]);
    assert_eq!(world.dropped(DropReason::OtherAddress), 1);
}

#[test]
fn a_client_with_an_address_of_the_guests_network_is_masqueraded() {
    if !is_isolated(&format!("{SETUP}; ip addr add 10.0.2.77/32 dev lo")) {
        return;
    }
    let mut world = world(&[rule(WORLD4, GUEST4.into())]);
    let socket = client(Ipv4Addr::new(10, 0, 2, 77).into());
    socket.send_to(b"hello", (WORLD4, 5000)).unwrap();
    world.frame();
    announce(&mut world);
    // The guest would resolve that address on its own network.
    let (visible, _, said) = read_datagram(&world.frame());
    assert_eq!((visible.ip(), &said[..]), (GATEWAY4.into(), &b"hello"[..]));
    world.send(&[datagram(visible, 64, b"welcome")]);
    assert_eq!(receive(&socket), (b"welcome".to_vec(), SocketAddr::new(WORLD4, 5000)));
}

#[test]
fn a_client_is_known_after_another_rule_has_come() {
    if !is_isolated(SETUP) {
        return;
    }
    let stays = rule(WORLD4, GUEST4.into());
    let mut world = world(std::slice::from_ref(&stays));
    let socket = client(WORLD4);
    socket.send_to(b"subscribe", (WORLD4, 5000)).unwrap();
    world.frame();
    announce(&mut world);
    let (visible, ..) = read_datagram(&world.frame());
    let mut comes = Forward { name: "new".to_owned(), ..rule(WORLD6, GUEST4.into()) };
    comes.count = 3;
    world.config.nat.as_mut().unwrap().forwards = vec![comes, stays];
    world.turn(Duration::ZERO);
    world.send(&[datagram(visible, 64, b"news")]);
    assert_eq!(receive(&socket), (b"news".to_vec(), SocketAddr::new(WORLD4, 5000)));
    world.config.nat.as_mut().unwrap().forwards.truncate(1);
    world.turn(Duration::ZERO);
    assert_eq!(world.nat.udp.forwards.clients.len(), 0, "its rule is gone");
}

#[test]
fn a_port_that_is_taken_is_pending_until_it_is_free() {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let holder = UdpSocket::bind((loopback, 0)).unwrap();
    let host = holder.local_addr().unwrap();
    let rule = Forward { host_port: host.port(), ..rule(loopback, GUEST4.into()) };
    let mut world = world(&[rule]);
    let warnings = world.nat.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("game") && warnings[0].contains("in use"), "{warnings:?}");
    let pending = |world: &World| {
        let pending = world.nat.udp.forwards.pending();
        pending.map(|(name, host, _)| (name.to_owned(), host)).collect::<Vec<_>>()
    };
    assert_eq!(pending(&world), [("game".to_owned(), host)]);
    // An advertisement gives all listeners a turn.
    world.nat.udp.guest_resolved();
    world.turn(Duration::ZERO);
    announce(&mut world);
    let reason = world.nat.udp.forwards.pending().next().map(|(.., error)| error);
    assert_eq!(reason, Some(Errno::EADDRINUSE));
    assert_eq!(world.nat.deadline(world.now), Some(RETRY));
    drop(holder);
    world.now = RETRY;
    world.turn(Duration::ZERO);
    assert_eq!(pending(&world), []);
    assert!(UdpSocket::bind(host).is_err(), "the gateway has it");
    assert_eq!(world.nat.take_warnings(), Vec::<String>::new());
}

#[test]
fn rules_change_while_others_go_on() {
    if !is_isolated(SETUP) {
        return;
    }
    let range = Forward { count: 3, ..rule(WORLD6, GUEST6.into()) };
    let mut world = world(std::slice::from_ref(&range));
    let at = |port| SocketAddr::new(WORLD6, port);
    assert!((5000..5003).all(|port| UdpSocket::bind(at(port)).is_err()));
    UdpSocket::bind(at(5003)).unwrap();
    let socket = client(WORLD6);
    // What arrived before the change is there after it, in a socket that stays open.
    socket.send_to(b"early", at(5002)).unwrap();
    let kept =
        Forward { host_port: 5002, guest: SocketAddr::new(GUEST6.into(), 4002), count: 1, ..range };
    world.config.nat.as_mut().unwrap().forwards = vec![kept];
    world.turn(Duration::ZERO);
    assert!((5000..5002).all(|port| UdpSocket::bind(at(port)).is_ok()), "given back");
    assert_eq!(read_icmp_target(&world.frame()), GUEST6, "solicited");
    world.send(&[advertisement()]);
    let (from, to, said) = read_datagram(&world.frame());
    assert_eq!((from, to.port(), &said[..]), (socket.local_addr().unwrap(), 4002, &b"early"[..]));
    world.config.nat = None;
    world.turn(Duration::ZERO);
    UdpSocket::bind(at(5002)).unwrap();
}

/// The guest's neighbour advertisement.
pub(super) fn advertisement() -> Vec<u8> {
    let (guest, gateway) = (GUEST6, crate::testing::GATEWAY6);
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::SOLICITED,
        target_addr: guest,
        lladdr: None,
    });
    let (ips, kind) = ((guest.into(), gateway.into()), (IpProtocol::Icmpv6, 255));
    ip_frame((GUEST, GATEWAY), ips, kind, advertisement.buffer_len(), |bytes| {
        let mut packet = Icmpv6Packet::new_unchecked(bytes);
        advertisement.emit(&guest, &gateway, &mut packet, &checksums());
    })
    .unwrap()
}

/// The target of a neighbour solicitation.
fn read_icmp_target(frame: &[u8]) -> Ipv6Addr {
    let message = read_icmp(frame);
    assert_eq!(message.kind, (135, 0));
    Ipv6Addr::from(*message.body.first_chunk::<16>().unwrap())
}

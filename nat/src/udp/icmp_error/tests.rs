//! Real sockets of the host on one side, a scripted guest that sends ICMP errors on the other.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::drop_reason::DropReason;
use crate::rules::{Forward, Transport};
use crate::test_world::*;
use crate::testing::GUEST4;

const WORLD4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const OTHER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const WORLD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
const SETUP: &str = "ip addr add 198.51.100.1/32 dev lo; ip addr add 198.51.100.2/32 dev lo
    ip addr add 2001:db8::1/128 dev lo nodad; ip addr add 2001:db8::2/128 dev lo nodad";

fn closed(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() { (3, 3) } else { (1, 4) }
}

fn too_big(address: IpAddr) -> (u8, u8) {
    if address.is_ipv4() { (3, 4) } else { (2, 0) }
}

fn server(address: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A server that has answered the guest's first datagram. Returns the server, the guest's outside
/// address, and the answer as the guest received it.
fn answered(world: &mut World, address: IpAddr) -> (UdpSocket, SocketAddr, Vec<u8>) {
    let (server, to) = server(address);
    world.send(&[datagram(to, 64, b"hello")]);
    let (_, from) = server.recv_from(&mut [0; 9]).expect("a datagram");
    server.send_to(b"welcome", from).unwrap();
    (server, from, world.frame())
}

#[test]
fn port_unreachable_removes_a_peer_and_the_last_one_ends_the_flow() {
    if !is_isolated(SETUP) {
        return;
    }
    for (here, there) in [(WORLD4, OTHER4), (WORLD6, OTHER6)] {
        let mut world = World::new();
        let (one, from, welcome) = answered(&mut world, here);
        let (two, same, also) = answered(&mut world, there);
        assert_eq!(from.port(), same.port(), "one flow");
        world.send(&[icmp_error(&welcome, closed(here), 0)]);
        assert_eq!((world.nat.udp.len(), world.counters.drops().len()), (1, 0));
        one.send_to(b"are you there?", from).unwrap();
        world.until("a stranger's datagram", |world| world.dropped(DropReason::UdpUnasked) == 1);
        two.send_to(b"and you?", same).unwrap();
        assert_eq!(read_datagram(&world.frame()).2, b"and you?");

        world.send(&[icmp_error(&also, closed(there), 0)]);
        assert_eq!(world.nat.udp.len(), 0);
        two.connect(same).unwrap();
        two.send(b"hello?").unwrap();
        let applied = two.recv(&mut [0; 9]).map_err(|error| error.kind());
        assert_eq!(applied, Err(ErrorKind::ConnectionRefused), "the host's kernel says it");
    }
}

#[test]
fn an_error_counts_for_flows_of_its_port_and_for_their_peers() {
    if !is_isolated(SETUP) {
        return;
    }
    for address in [WORLD4, WORLD6] {
        let mut world = World::new();
        let (server, from, welcome) = answered(&mut world, address);
        let refusal = icmp_error(&welcome, closed(address), 0);
        world.send_from(2, &refusal);
        assert_eq!(world.dropped(DropReason::IcmpUnmatched), 1, "of another port");
        let ip = if address.is_ipv4() { 14 + 20 } else { 14 + 40 };
        let mut of_another = welcome.clone();
        of_another[ip + 3] ^= 1;
        world.send(&[icmp_error(&of_another, closed(address), 0)]);
        assert_eq!(world.dropped(DropReason::IcmpUnmatched), 2, "about a flow that is none");
        let mut broken = refusal;
        broken[ip + 2] ^= 1;
        world.send(&[broken]);
        assert_eq!(world.dropped(DropReason::BadIcmp), 1, "of a wrong checksum");
        let passing = if address.is_ipv4() { (11, 0) } else { (3, 0) };
        world.send(&[icmp_error(&welcome, passing, 0)]);
        assert_eq!(world.dropped(DropReason::IcmpSoft), 1);
        server.send_to(b"still here?", from).unwrap();
        assert_eq!(read_datagram(&world.frame()).2, b"still here?");
    }
}

#[test]
fn datagrams_are_fragmented_to_the_path_mtu() {
    if !is_isolated(SETUP) {
        return;
    }
    // Sizes below the minimum are not accepted.
    for (address, said, mtu) in
        [(WORLD4, 1000, 1000), (WORLD4, 0, 552), (WORLD6, 1300, 1300), (WORLD6, 100, 1280)]
    {
        let mut world = World::new();
        let (server, from, _) = answered(&mut world, address);
        server.send_to(&[7; 1400], from).unwrap();
        let whole = world.frame();
        world.send(&[icmp_error(&whole, too_big(address), said)]);
        server.send_to(&[7; 1400], from).unwrap();
        world.until("all fragments", |world| {
            let bytes: usize = world.wire.0.iter().map(|(_, frame)| frame.len()).sum();
            bytes > 1400 + 8
        });
        let longest = world.wire.0.iter().map(|(_, frame)| frame.len() - 14).max().unwrap();
        assert!(world.wire.0.len() > 1 && longest <= mtu, "{longest} bytes in place of {mtu}");
        world.wire.0.clear();
        // A packet that fits is not fragmented.
        server.send_to(&[7; 400], from).unwrap();
        assert_eq!(read_datagram(&world.frame()).2.len(), 400);
        // An error cannot raise the MTU again.
        world.send(&[icmp_error(&whole, too_big(address), 1500)]);
        assert_eq!(world.dropped(DropReason::IcmpSoft), 1);
    }
}

#[test]
fn the_port_of_a_forward_stays_open_and_fragments_to_the_path_mtu() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = World::new();
    let rule = Forward {
        name: "game".to_owned(),
        transport: Transport::Udp,
        host: Some(WORLD4),
        host_port: 5000,
        guest: SocketAddr::new(GUEST4.into(), 4000),
        count: 1,
        hides_client: false,
    };
    world.config.nat.as_mut().unwrap().forwards.push(rule);
    world.turn(Duration::ZERO);
    let (client, _) = server(WORLD4);
    client.send_to(&[7; 1400], (WORLD4, 5000)).unwrap();
    world.frame();
    announce(&mut world);
    let whole = world.frame();
    world.send(&[icmp_error(&whole, (3, 3), 0)]);
    assert_eq!(world.dropped(DropReason::IcmpSoft), 1);
    world.send_from(2, &icmp_error(&whole, (3, 4), 1000));
    assert_eq!(world.dropped(DropReason::IcmpUnmatched), 1, "of another port");
    client.send_to(&[7; 1400], (WORLD4, 5000)).unwrap();
    assert_eq!(world.frame().len(), whole.len());
    world.send(&[icmp_error(&whole, (3, 4), 1000)]);
    client.send_to(&[7; 1400], (WORLD4, 5000)).unwrap();
    world.frames(2);
}

//! Pings and traces through a chain of network namespaces: the host's, a router's and a server's.
//! The guest is scripted.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::test_world::*;
use crate::testing::{GATEWAY4, GATEWAY6};

/// Allows pings, as distributions do.
const PINGS: &str = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range";
const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));

/// The router and the server behind it; the MTU between them is `mtu`.
fn chain(mtu: u32) -> (Neighbour, Neighbour) {
    let (router, server) = (Neighbour::new(), Neighbour::new());
    shell(&format!(
        "ip link add wan0 type veth peer name lan0 netns {}
         ip addr add 192.0.2.2/24 dev wan0; ip addr add 2001:db8::2/64 dev wan0 nodad
         ip link set wan0 up",
        router.pid()
    ));
    router.run(&format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip addr add 192.0.2.1/24 dev lan0; ip addr add 2001:db8::1/64 dev lan0 nodad
         ip link set lan0 up
         ip link add wan0 mtu {mtu} type veth peer name srv0 mtu {mtu} netns {}
         ip addr add 198.51.100.1/24 dev wan0; ip addr add 2001:db8:1::1/64 dev wan0 nodad
         ip link set wan0 up",
        server.pid()
    ));
    server.run(
        "ip addr add 198.51.100.2/24 dev srv0; ip addr add 2001:db8:1::2/64 dev srv0 nodad
         ip link set srv0 up
         ip route add default via 198.51.100.1; ip route add default via 2001:db8:1::1",
    );
    shell("ip route add default via 192.0.2.1; ip route add default via 2001:db8::1");
    (router, server)
}

#[test]
fn a_ping_gets_the_reply_of_its_destination() {
    if !is_isolated(PINGS) {
        return;
    }
    let _chain = chain(1500);
    let mut world = World::new();
    for (to, kind) in [(SERVER4, (0, 0)), (SERVER6, (129, 0))] {
        for (sequence, length) in [(1, 0), (2, 56), (3, 1400)] {
            let data: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            world.send(&[echo(to, 64, sequence, &data)]);
            let reply = read_icmp(&world.frame());
            assert_eq!((reply.from, reply.kind), (to, kind));
            assert_eq!(reply.rest, [0, 7, 0, sequence as u8], "identifier and sequence number");
            assert_eq!(reply.body, data);
        }
    }
    assert_eq!(world.nat.icmp.table.len(), 2);
    world.now += LIFETIMES[0];
    world.turn(Duration::ZERO);
    assert_eq!(world.nat.icmp.table.len(), 0);
    // An address that may not be reached gets no answer.
    let loopback = IpAddr::from(Ipv4Addr::new(127, 0, 0, 1));
    world.send(&[echo(loopback, 64, 4, b"")]);
    assert_eq!(world.dropped(DropReason::PolicyLoopback), 1);
    assert!(world.wire.0.is_empty());
}

#[test]
fn where_pings_are_forbidden_nothing_is_answered_and_one_warning_says_why() {
    let setup = "echo '1 0' > /proc/sys/net/ipv4/ping_group_range; ip addr add 198.51.100.2 dev lo";
    if !is_isolated(setup) {
        return;
    }
    let mut world = World::new();
    world.send(&[echo(SERVER4, 64, 1, b""), echo(SERVER4, 64, 2, b"")]);
    assert_eq!(world.dropped(DropReason::PingForbidden), 2);
    assert!(world.wire.0.is_empty());
    let warning = world.nat.icmp.take_warning().expect("a warning");
    assert!(warning.contains("net.ipv4.ping_group_range"), "{warning}");
    assert_eq!(world.nat.icmp.take_warning(), None);
    shell(PINGS);
    world.send(&[echo(SERVER4, 64, 3, b"")]);
    assert_eq!(read_icmp(&world.frame()).kind, (0, 0));
}

#[test]
fn a_trace_shows_each_hop() {
    if !is_isolated(PINGS) {
        return;
    }
    let _chain = chain(1500);
    let kinds = |is_v6| if is_v6 { ((3, 0), (1, 4), (129, 0)) } else { ((11, 0), (3, 3), (0, 0)) };
    for (gateway, router, to) in
        [(IpAddr::from(GATEWAY4), ROUTER4, SERVER4), (IpAddr::from(GATEWAY6), ROUTER6, SERVER6)]
    {
        let (exceeded, closed, reply) = kinds(to.is_ipv6());
        let head = if to.is_ipv4() { 20 } else { 40 };
        let mut world = World::new();
        for (hops, from) in [(1, gateway), (2, router), (3, to)] {
            // Like traceroute, with datagrams.
            let probe = datagram(SocketAddr::new(to, 33_434 + u16::from(hops)), hops, b"probe");
            world.send(std::slice::from_ref(&probe));
            let said = read_icmp(&world.frame());
            let kind = if hops == 3 { closed } else { exceeded };
            assert_eq!((said.from, said.kind), (from, kind), "datagram, {hops} hops");
            assert_eq!(said.body[head..head + 6], probe[14 + head..][..6], "which one it was");

            // Like ping and mtr.
            let probe = echo(to, hops, hops.into(), b"probe");
            world.send(std::slice::from_ref(&probe));
            let said = read_icmp(&world.frame());
            let kind = if hops == 3 { reply } else { exceeded };
            assert_eq!((said.from, said.kind), (from, kind), "echo, {hops} hops");
            if hops < 3 {
                let (quoted, sent) = (&said.body[head..], &probe[14 + head..]);
                assert_eq!((&quoted[..2], &quoted[4..]), (&sent[..2], &sent[4..]), "its own");
                if to.is_ipv4() {
                    assert_eq!(quoted[2..4], sent[2..4], "checksum");
                }
            }
        }
        assert_eq!(world.dropped(DropReason::HopLimit), 2);
    }
}

#[test]
fn the_guest_learns_the_path_mtu() {
    if !is_isolated(PINGS) {
        return;
    }
    let _chain = chain(1400);
    for (router, to, too_big) in [(ROUTER4, SERVER4, (3, 4)), (ROUTER6, SERVER6, (2, 0))] {
        let gateway = if to.is_ipv4() { IpAddr::from(GATEWAY4) } else { GATEWAY6.into() };
        let mut world = World::new();
        let long = [7; 1420];
        // The first error comes from the router, the others from the host, which has learnt the
        // path MTU.
        let datagram = datagram(SocketAddr::new(to, 9), 64, &long);
        let probes =
            [(router, datagram.clone()), (gateway, datagram), (gateway, echo(to, 64, 1, &long))];
        for (from, frame) in probes {
            world.send(&[frame]);
            let said = read_icmp(&world.frame());
            assert_eq!((said.from, said.kind), (from, too_big));
            assert_eq!(u32::from_be_bytes(said.rest) & 0xffff, 1400);
        }
        // Packets that fit pass, and so do those that may be fragmented.
        world.send(&[echo(to, 64, 2, &long[..1300])]);
        assert_eq!(read_icmp(&world.frame()).body.len(), 1300);
        if to.is_ipv4() {
            let mut frame = echo(to, 64, 3, &long);
            let ip = &mut frame[14..34];
            ip[6] = 0;
            ip[10..12].fill(0);
            let sum = checksum::internet(ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            world.send(&[frame]);
            assert_eq!(read_icmp(&world.frame()).body.len(), 1420);
        }
    }
}

#[test]
fn errors_are_limited_for_each_port() {
    let mut world = World::new();
    let probe = datagram(SocketAddr::new(SERVER4, 9), 1, b"probe");
    for _ in 0..200 {
        world.send_from(1, &probe);
    }
    assert_eq!((world.wire.0.len(), world.dropped(DropReason::IcmpLimit)), (50, 150));
    world.send_from(2, &probe);
    assert_eq!(world.wire.0.len(), 51, "another port has its own");
    world.now += Duration::from_millis(10);
    for _ in 0..200 {
        world.send_from(1, &probe);
    }
    assert_eq!(world.wire.0.len(), 61);
}

#[test]
fn no_error_is_answered_with_an_error() {
    let mut world = World::new();
    let mut message = echo(SERVER4, 1, 1, b"");
    let icmp = &mut message[34..];
    (icmp[0], icmp[1]) = (3, 1);
    icmp[2..4].fill(0);
    let sum = checksum::internet(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    world.send(&[message]);
    assert_eq!(world.dropped(DropReason::IcmpUnanswered), 1);
    assert!(world.wire.0.is_empty());
}

//! What the NAT handles on a network without NAT.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use super::*;
use crate::station::Service;
use crate::test_world::{World, segments};
use crate::testing::{GATEWAY, GATEWAY4, GATEWAY6, GUEST, GUEST4, GUEST6};

const GUEST_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 15);

/// A SYN of the guest.
fn syn(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(GUEST.0, GATEWAY.0);
    let packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} to {to}"),
    };
    let mut frame = Vec::new();
    packet.tcp(4000, port, 1, 65_535).syn().write(&mut frame, &[]).unwrap();
    frame
}

fn closed() -> World {
    let mut world = World::new();
    world.config.nat = None;
    world
}

#[test]
fn dns_over_tcp_is_served_without_nat() {
    let link_local = closed().config.station.link_local();
    for (from, to) in [
        (IpAddr::from(GUEST4), IpAddr::from(GATEWAY4)),
        (GUEST6.into(), GATEWAY6.into()),
        (GUEST_LINK.into(), link_local.into()),
        (GUEST_LINK.into(), GATEWAY6.into()),
    ] {
        let mut world = closed();
        assert!(!world.leaves(&syn(from, to, 53)));
        world.turn(Duration::ZERO);
        let (header, frame) = world.frames(1).remove(0);
        let frame = segments(&header, &frame).remove(0);
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(&frame).unwrap().transport
        else {
            panic!("{from}: {frame:?}")
        };
        assert!(tcp.syn() && tcp.ack() && tcp.source_port() == 53, "{from}");
    }
}

#[test]
fn nothing_else_is_served_without_nat() {
    let mut world = closed();
    let elsewhere = "192.0.2.1".parse().unwrap();
    let other6 = "2001:db8::1".parse().unwrap();
    for (from, to, port) in [
        (IpAddr::from(GUEST4), IpAddr::from(GATEWAY4), 80),
        (GUEST6.into(), GATEWAY6.into(), 5353),
        (GUEST4.into(), elsewhere, 53),
        (GUEST4.into(), [10, 0, 2, 99].into(), 53),
        (GUEST4.into(), [127, 0, 0, 1].into(), 53),
        (GUEST6.into(), other6, 53),
    ] {
        assert!(world.leaves(&syn(from, to, port)), "{to}:{port}");
    }
    // DNS has an address of its own.
    let dns = IpAddr::from([10, 0, 2, 3]);
    world.config.station.service_addresses = vec![(dns, Service::Dns)];
    assert!(world.leaves(&syn(GUEST4.into(), GATEWAY4.into(), 53)));
    assert_eq!(world.counters.received, 0);
    assert!(!world.leaves(&syn(GUEST4.into(), dns, 53)));
    assert!(world.leaves(&syn([192, 0, 2, 9].into(), dns, 53)));
    let own = world.config.station.link_local().into();
    world.config.station.service_addresses.clear();
    assert!(world.leaves(&syn(own, own, 53)), "from ourselves");
    assert_eq!(world.nat.census(), [1, 0, 0]);
}

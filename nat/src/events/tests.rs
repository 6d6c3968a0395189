//! Real sockets of the host on one side, a scripted guest on the other.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::ops::Range;

use super::*;
use crate::LoopbackMap;
use crate::rules::{Rules, Transport};
use crate::test_world::{World, datagram, tcp};
use crate::testing::{GATEWAY4, GUEST, GUEST4};

const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// A NAT whose UDP port 5300 is a socket of the host; also returns that.
fn world() -> (World, UdpSocket, SocketAddr) {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let guest = SocketAddr::from((GATEWAY4, 5300));
    let map = LoopbackMap { transport: Transport::Udp, guest, host: server.local_addr().unwrap() };
    let mut world = World::new();
    world.config.nat = Some(Rules { loopback: vec![map], ..Rules::default() });
    (world, server, guest)
}

/// Has a flow open, carry data both ways, and expire.
fn exchange(world: &mut World, server: &UdpSocket, to: SocketAddr) {
    world.send(&[datagram(to, 64, b"hello"), datagram(to, 64, b"again")]);
    let mut room = [0; 64];
    let (_, from) = server.recv_from(&mut room).unwrap();
    server.send_to(b"welcome", from).unwrap();
    world.frames(1);
    world.now += Duration::from_secs(200);
    world.turn(Duration::ZERO);
}

#[test]
fn a_flow_opens_and_closes_with_what_it_carried() {
    let (mut world, server, to) = world();
    world.events.want(true);
    exchange(&mut world, &server, to);
    let (events, lost) = world.events.take();
    let flow = |change| {
        let from = SocketAddr::from((GUEST4, 4000));
        FlowEvent { port: 1, mac: GUEST.0, protocol: Protocol::Udp, from, to, change }
    };
    let closed = FlowChange::Closed { up: 10, down: 7, millis: 200_000 };
    assert_eq!(events, [flow(FlowChange::Opened), flow(closed)]);
    assert!(lost == 0 && world.events.is_empty());
}

#[test]
fn nothing_is_noted_unless_it_is_wanted() {
    let (mut world, server, to) = world();
    world.events.want(true);
    world.events.want(false);
    exchange(&mut world, &server, to);
    world.send(&[tcp(SocketAddr::new(METADATA, 80), 1, None)]);
    assert!(world.events.is_empty() && world.events.refused.is_empty());
    world.events.note(Duration::ZERO, PortMark(1), || unreachable!("no event is made"));
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut events = FlowEvents::default();
    events.want(true);
    let ends = (SocketAddr::from((GUEST4, 1)), SocketAddr::from((GATEWAY4, 2)));
    for number in 0..WAITING as u64 + 3 {
        let port = PortMark(number);
        let opened = || flow_event((port, GUEST), Protocol::Tcp, ends, FlowChange::Opened);
        events.note(Duration::ZERO, port, opened);
    }
    let (taken, lost) = events.take();
    assert_eq!((taken.len(), lost), (WAITING, 3));
}

#[test]
fn a_port_with_too_many_events_has_its_rate_and_others_have_theirs() {
    let mut events = FlowEvents::default();
    events.want(true);
    let ends = (SocketAddr::from((GUEST4, 1)), SocketAddr::from((GATEWAY4, 2)));
    let mut told = |port: u64, millis: Range<u64>, each: u64| {
        let flow = (PortMark(port), GUEST);
        for at in millis.flat_map(|millis| (0..each).map(move |_| Duration::from_millis(millis))) {
            let opened = || flow_event(flow, Protocol::Tcp, ends, FlowChange::Opened);
            events.note(at, flow.0, opened);
        }
        let (taken, lost) = events.take();
        (taken.len() as u64, lost)
    };
    assert_eq!(told(1, 0..1, 519), (512, 7));
    assert_eq!(told(1, 1..101, 10), (200, 800), "2,000 a second");
    assert_eq!(told(2, 100..101, 5), (5, 0), "another port does not pay for it");
    assert_eq!(told(1, 1000..1001, 513), (512, 1), "after a while it has all again");
}

#[test]
fn a_refused_destination_is_told_once_a_second_with_its_packets() {
    let (mut world, ..) = world();
    world.events.want(true);
    let syn = || tcp(SocketAddr::new(METADATA, 80), 1, None);
    let refused = |world: &mut World| -> Vec<(u16, u64)> {
        let (events, _) = world.events.take();
        let count = |event: FlowEvent| match event.change {
            FlowChange::Refused { reason, count } if reason == "policy_metadata" => {
                (event.to.port(), count)
            }
            other => panic!("{other:?}"),
        };
        events.into_iter().map(count).collect()
    };
    world.send(&[syn(), syn(), syn(), tcp(SocketAddr::new(METADATA, 443), 1, None)]);
    assert_eq!(refused(&mut world), [(80, 1), (443, 1)]);
    world.now += PAUSE;
    world.send(&[syn()]);
    assert_eq!(refused(&mut world), [(80, 3)]);
    // Groups are no destination of a refusal.
    world.send(&[datagram((Ipv4Addr::new(239, 255, 255, 250), 1900).into(), 64, b"search")]);
    assert!(world.events.is_empty());
}

//! A scripted guest on one side; on the other a link of the host that leads nowhere, where all
//! sockets of the host that listen receive multicasts. Each test has its own namespace.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{NetSlice, SlicedPacket};

use super::groups::{MDNS6, SSDP4};
use super::*;
use crate::host_socket::HostDatagram;
use crate::test_world::*;
use crate::testing::Lab;
use crate::testing::{GATEWAY, GATEWAY4, GUEST4};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const SETUP: &str = "ip link add lan0 type veth peer name nowhere
    echo 1 >/proc/sys/net/ipv6/conf/nowhere/disable_ipv6
    ip link set nowhere up; ip link set lan0 up
    ip addr add 192.0.2.9/24 dev lan0; ip addr add fe80::9/64 dev lan0 nodad";
const SEARCH: &[u8] = b"M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\nST: ssdp:all\r\n\r\n";
const FOUND: &[u8] = b"HTTP/1.1 200 OK\r\nST: ssdp:all\r\nLOCATION: http://192.0.2.9/\r\n\r\n";
const NOTIFY: &[u8] = b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nNT: upnp:rootdevice\r\n\r\n";
/// A question for a.local with the unicast-response bit, and what is sent for it.
const QUESTION: &[u8] = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x01a\x05local\0\0\x01\x80\x01";
const ASKED: &[u8] = b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x01a\x05local\0\0\x01\0\x01";
const ANSWER: &[u8] =
    b"\0\0\x84\0\0\0\0\x01\0\0\0\0\x01a\x05local\0\0\x01\x80\x01\0\0\0\x78\0\x04\xc0\0\x02\x09";

fn world(reflect: &[Discovery]) -> World {
    let mut world = World::new();
    world.config.nat.as_mut().unwrap().reflect = reflect.to_vec();
    world.with(|nat, context| nat.configure(context));
    world.turn(Duration::ZERO);
    assert_eq!(world.nat.take_warnings(), [""; 0]);
    world
}

/// A program on the host's link.
fn neighbour(group: SocketAddr) -> HostSocket {
    let links = Links::default().scan();
    assert_eq!(links.len(), 1, "{links:?}");
    HostSocket::multicast(group, 255, (links[0].index, "lan0")).unwrap()
}

/// The datagrams that a program has received, with their sources.
fn received(socket: &HostSocket) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    let keep = |datagram: HostDatagram<'_>| all.push((datagram.bytes.to_vec(), datagram.from));
    let _ = ReceiveBuffers::default().receive(socket, BATCH, keep);
    all
}

/// A datagram of the guest to a group.
fn to_group(group: SocketAddr, from: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = datagram_from(from, group, 1, payload);
    frame[..6].copy_from_slice(&group_mac(group.ip()).0);
    frame
}

fn is_local(config: &Lab, frame: &[u8]) -> bool {
    let mut world = World::new();
    world.config = config.clone();
    world.leaves(frame)
}

#[test]
fn mdns_questions_go_out_and_responses_come_in_to_the_group() {
    if !is_isolated(SETUP) {
        return;
    }
    for group in [MDNS4, MDNS6] {
        let mut world = world(&[Discovery::Mdns]);
        let mut responder = neighbour(group);
        world.send(&[to_group(group, 5353, QUESTION)]);
        let asked = received(&responder);
        assert_eq!(asked.len(), 1);
        assert_eq!((&asked[0].0[..], asked[0].1.port()), (ASKED, 5353));

        responder.send((group, None), SEND_OPTIONS, &[ANSWER], None).unwrap();
        let frame = world.frame();
        assert_eq!((&frame[..6], &frame[6..12]), (&group_mac(group.ip()).0[..], &GATEWAY.0[..]));
        let (from, to, payload) = read_datagram(&frame);
        let own: IpAddr = match group {
            SocketAddr::V4(_) => GATEWAY4.into(),
            SocketAddr::V6(_) => world.config.station.link_local().into(),
        };
        assert_eq!((from, to), (SocketAddr::new(own, 5353), group));
        assert_eq!(payload, ANSWER);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let hops = match packet.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => ip.header().ttl(),
            NetSlice::Ipv6(ip) => ip.header().hop_limit(),
            other => panic!("{other:?}"),
        };
        assert_eq!(hops, 255);
        assert_eq!(world.counters.drops().len(), 0, "{:?}", world.counters.drops());
    }
}

#[test]
fn responses_to_a_search_return_to_its_port() {
    if !is_isolated(SETUP) {
        return;
    }
    let device = SocketAddr::new(HERE, 1900);
    let gateway = SocketAddr::new(GATEWAY4.into(), 5353);
    for (group, question, asked, answer, shown) in
        [(SSDP4, SEARCH, SEARCH, FOUND, None), (MDNS4, QUESTION, ASKED, ANSWER, Some(gateway))]
    {
        let mut world = world(&Discovery::ALL);
        let responder = neighbour(group);
        world.send(&[to_group(group, 4000, question)]);
        let got = received(&responder);
        assert_eq!(got.len(), 1);
        assert_eq!((&got[0].0[..], got[0].1.ip()), (asked, HERE));
        let socket = std::net::UdpSocket::bind((HERE, 0)).unwrap();
        socket.send_to(b"rubbish", got[0].1).unwrap();
        socket.send_to(answer, got[0].1).unwrap();
        let from = shown.unwrap_or(socket.local_addr().unwrap());
        let guest = SocketAddr::new(GUEST4.into(), 4000);
        assert_eq!(read_datagram(&world.frame()), (from, guest, answer.to_vec()));
        assert_eq!(world.dropped(DropReason::ReflectMalformed), 1);
        // The search expires.
        assert_eq!(world.nat.reflector.searches.len(), 1);
        world.now += LIFETIME[0];
        world.turn(Duration::ZERO);
        assert_eq!(world.nat.reflector.searches.len(), 0);
    }
    // A device announces itself.
    let mut world = world(&[Discovery::Ssdp]);
    let mut announcer = neighbour(SSDP4);
    announcer.send((SSDP4, None), SEND_OPTIONS, &[SEARCH], None).unwrap();
    announcer.send((SSDP4, None), SEND_OPTIONS, &[NOTIFY], None).unwrap();
    assert_eq!(read_datagram(&world.frame()), (device, SSDP4, NOTIFY.to_vec()));
    assert_eq!(world.counters.drops().len(), 0, "others' searches are ignored");
}

#[test]
fn announcements_of_guests_are_withheld_and_malformed_messages_counted() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = world(&Discovery::ALL);
    let listeners = [MDNS4, MDNS6, SSDP4].map(neighbour);
    world.send(&[
        to_group(MDNS4, 5353, ANSWER),
        to_group(MDNS6, 5353, ANSWER),
        to_group(SSDP4, 1900, NOTIFY),
    ]);
    assert_eq!(world.dropped(DropReason::ReflectWithheld), 3);
    world.send(&[
        to_group(MDNS4, 5353, &QUESTION[..20]),
        to_group(SSDP4, 4000, b"GET / HTTP/1.1\r\n\r\n"),
    ]);
    assert_eq!(world.dropped(DropReason::ReflectMalformed), 2);
    assert!(listeners.iter().all(|listener| received(listener).is_empty()), "nothing is sent");
    assert!(world.wire.0.is_empty());
}

#[test]
fn questions_are_limited_for_each_port() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = world(&Discovery::ALL);
    let question = to_group(MDNS4, 5353, QUESTION);
    for _ in 0..50 {
        world.send_from(1, &question);
    }
    assert_eq!(world.dropped(DropReason::ReflectLimit), 20);
    world.send_from(2, &question);
    assert_eq!(world.dropped(DropReason::ReflectLimit), 20, "another port has its own");
    // A port cannot take all sockets either.
    world.now += Duration::from_secs(10);
    for port in 0..20 {
        world.send_from(1, &to_group(SSDP4, 4000 + port, SEARCH));
    }
    assert_eq!(world.dropped(DropReason::FlowEvicted), 4);
    assert_eq!(world.nat.reflector.searches.len(), LIMITS.port);
}

#[test]
fn without_the_setting_nothing_is_reflected() {
    let mut config = World::new().config;
    let frames = [to_group(MDNS4, 5353, QUESTION), to_group(SSDP4, 4000, SEARCH)];
    assert!(frames.iter().all(|frame| is_local(&config, frame)));
    config.nat.as_mut().unwrap().reflect = vec![Discovery::Mdns];
    assert!(!is_local(&config, &frames[0]) && is_local(&config, &frames[1]));
    // A source address that a guest cannot have.
    let mut foreign = frames[0].clone();
    foreign[14 + 12..14 + 16].copy_from_slice(&[192, 0, 2, 1]);
    foreign[24..26].fill(0);
    let sum = trama_frame::checksum::internet(&foreign[14..34]);
    foreign[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(is_local(&config, &foreign));
}

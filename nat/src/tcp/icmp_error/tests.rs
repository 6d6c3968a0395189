//! Servers and clients of the host on one side, a scripted guest that sends ICMP errors on the
//! other.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};

use crate::drop_reason::DropReason;
use crate::rules::{Forward, Transport};
use crate::test_world::*;
use crate::testing::GUEST4;

const WORLD4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const WORLD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const SETUP: &str = "ip addr add 198.51.100.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo nodad";

/// The sequence number and the data of a segment.
fn read(frame: &[u8]) -> (u32, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("{packet:?}") };
    (tcp.sequence_number(), tcp.payload().to_vec())
}

/// An established connection of the guest with a server. Returns the server's end, its address, and
/// the sequence number of its first byte.
fn connected(world: &mut World, address: IpAddr) -> (TcpStream, SocketAddr, u32) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    world.send(&[tcp(to, 100, None)]);
    let (initial, _) = read(&world.frame());
    let first = initial.wrapping_add(1);
    world.send(&[tcp(to, 101, Some(first))]);
    let (server, _) = listener.accept().unwrap();
    (server, to, first)
}

/// The packets that the guest receives until it has all data up to `end`.
#[track_caller]
fn packets(world: &mut World, end: u32) -> Vec<Vec<u8>> {
    let all = |world: &World| {
        let cut = world.wire.0.iter().flat_map(|(header, frame)| segments(header, frame));
        cut.collect::<Vec<_>>()
    };
    let is_last = |frame: &Vec<u8>| {
        let (sequence, data) = read(frame);
        !data.is_empty() && sequence.wrapping_add(data.len() as u32) == end
    };
    world.until("all data", |world| all(world).iter().any(is_last));
    let packets = all(world);
    world.wire.0.clear();
    packets
}

// spec-test: rfc9293 SHLD-6 MUST-54, rfc5927 sequence
#[test]
fn a_smaller_path_mtu_makes_segments_shorter_and_nothing_is_lost() {
    if !is_isolated(SETUP) {
        return;
    }
    for (address, kind, mtu, least) in [(WORLD4, (3, 4), 1000, 552), (WORLD6, (2, 0), 1400, 1280)] {
        let mut world = World::new();
        let (mut server, to, first) = connected(&mut world, address);
        let stream: Vec<u8> = (0..4000).map(|at| (at / 7) as u8).collect();
        server.write_all(&stream).unwrap();
        let end = first.wrapping_add(4000);
        let sent = packets(&mut world, end);
        let longest = |packets: &[Vec<u8>]| packets.iter().map(|packet| packet.len() - 14).max();
        assert_eq!(longest(&sent), Some(1500));

        // Errors that match no flow change nothing.
        let error = icmp_error(&sent[0], kind, mtu);
        world.send_from(2, &error);
        let mut probe = sent[0].clone();
        probe[if address.is_ipv4() { 38 } else { 58 }] ^= 0x80;
        world.send(&[icmp_error(&probe, kind, mtu)]);
        assert_eq!(world.dropped(DropReason::IcmpUnmatched), 2);
        assert!(world.wire.0.is_empty(), "it was believed");

        for (said, believed) in [(mtu, mtu), (68, least)] {
            world.send(&[icmp_error(&sent[0], kind, said)]);
            let again = packets(&mut world, end);
            assert_eq!(longest(&again), Some(believed as usize));
            let mut received = Vec::new();
            for packet in &again {
                let (sequence, data) = read(packet);
                assert_eq!(sequence, first.wrapping_add(received.len() as u32));
                received.extend(data);
            }
            assert!(received == stream, "other data");
        }
        // The segment is not in flight any more.
        world.send(&[tcp(to, 101, Some(end)), icmp_error(&sent[0], kind, 1300)]);
        assert_eq!(world.dropped(DropReason::IcmpUnmatched), 3);
    }
}

// spec-test: rfc9293 MUST-56, rfc5927 hard-as-soft
#[test]
fn no_icmp_error_ends_an_established_connection() {
    if !is_isolated(SETUP) {
        return;
    }
    for (address, kinds) in [(WORLD4, [(3, 3), (3, 2), (3, 1)]), (WORLD6, [(1, 4), (4, 1), (1, 3)])]
    {
        let mut world = World::new();
        let (mut server, _, first) = connected(&mut world, address);
        server.write_all(b"hello").unwrap();
        let end = first.wrapping_add(5);
        let sent = packets(&mut world, end);
        for kind in kinds {
            world.send(&[icmp_error(&sent[0], kind, 0)]);
        }
        assert_eq!(world.dropped(DropReason::IcmpSoft), 3);
        server.write_all(b"still here?").unwrap();
        packets(&mut world, end.wrapping_add(11));
    }
}

// spec-test: rfc9293 SHLD-26
#[test]
fn port_unreachable_resets_the_client_of_a_forward() {
    if !is_isolated(SETUP) {
        return;
    }
    let mut world = World::new();
    let host = SocketAddr::new(WORLD4, 5000);
    let rule = Forward {
        name: "web".to_owned(),
        transport: Transport::Tcp,
        host: Some(host.ip()),
        host_port: host.port(),
        guest: SocketAddr::new(GUEST4.into(), 80),
        count: 1,
        hides_client: false,
    };
    world.config.nat.as_mut().unwrap().forwards.push(rule);
    world.with(|nat, context| nat.configure(context));
    let mut client = TcpStream::connect(host).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    world.frame();
    announce(&mut world);
    let syn = world.frame();
    // Host unreachable may be temporary.
    world.send(&[icmp_error(&syn, (3, 1), 0)]);
    assert_eq!((world.dropped(DropReason::IcmpSoft), world.nat.tcp.len()), (1, 1));
    world.send(&[icmp_error(&syn, (3, 3), 0)]);
    assert_eq!(world.nat.tcp.len(), 0);
    let result = client.read(&mut [0; 9]).map_err(|error| error.kind());
    assert_eq!(result, Err(ErrorKind::ConnectionReset));
}

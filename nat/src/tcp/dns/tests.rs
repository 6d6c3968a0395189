//! Guests that ask the gateway's DNS over TCP, through the NAT.

use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};

use super::*;
use crate::dns::framing::framed;
use crate::io::PortMark;
use crate::test_world::{World, ip, segments};
use crate::testing::{GATEWAY4, GUEST, GUEST4};

/// A segment of the guest for the gateway's DNS: a SYN if it acknowledges nothing.
fn segment(port: u16, sequence: u32, ack: Option<u32>, rst: bool, data: &[u8]) -> Vec<u8> {
    let mut step = ip(GUEST4.into(), GATEWAY4.into(), 64).tcp(port, 53, sequence, 60_000);
    step = match ack {
        Some(ack) => step.ack(ack),
        None => step.syn(),
    };
    let mut frame = Vec::new();
    if rst { step.rst() } else { step }.write(&mut frame, data).unwrap();
    frame
}

/// Opens a connection from the guest's port, and asks. Returns the next sequence number for the
/// guest, and the query's stream.
#[track_caller]
fn ask(world: &mut World, port: u16, query: &[u8]) -> (u32, u64) {
    world.send(&[segment(port, 100, None, false, &[])]);
    let next = read(&world.frame()).0.wrapping_add(1);
    let framed = framed(query);
    world.send(&[segment(port, 101, Some(next), false, &framed)]);
    world.wire.0.clear();
    let questions = world.nat.take_questions();
    let [(client, message)] = &questions[..] else { panic!("{questions:?}") };
    assert_eq!(message, query);
    assert_eq!((client.port, client.mac), (PortMark(1), GUEST));
    assert_eq!(client.remote, (GUEST4.into(), port));
    assert_eq!(client.local, (GATEWAY4.into(), 53));
    (next, client.stream.unwrap())
}

/// The sequence number and the data of a segment.
fn read(frame: &[u8]) -> (u32, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("{packet:?}") };
    (tcp.sequence_number(), tcp.payload().to_vec())
}

#[test]
fn a_late_answer_does_not_reach_the_next_connection() {
    let mut world = World::new();
    let (_, old) = ask(&mut world, 4000, b"old");
    world.send(&[segment(4000, 106, Some(0), true, &[])]);
    assert_eq!(world.nat.tcp.len(), 0, "the guest has reset it");
    let (next, new) = ask(&mut world, 4000, b"new");
    assert_eq!(old as u32, new as u32, "it has the same flow number");
    world.nat.answer(old, Some(b"late"));
    world.nat.answer(old, None);
    world.nat.answer(u64::MAX, Some(b"stray"));
    world.nat.answer(new, Some(b"right"));
    world.turn(Duration::ZERO);
    let (header, frame) = world.frames(1).remove(0);
    assert_eq!(read(&segments(&header, &frame)[0]), (next, b"\0\x05right".to_vec()));
}

#[test]
fn connections_count_as_flows_of_their_port() {
    let mut world = World::new();
    world.nat.tcp.quotas.max_flows = 4;
    for port in 4000..4004 {
        ask(&mut world, port, b"?");
    }
    world.send(&[segment(4004, 100, None, false, &[])]);
    assert_eq!((world.nat.tcp.len(), world.dropped(DropReason::FlowLimit)), (4, 1));
    world.send_from(2, &segment(4004, 100, None, false, &[]));
    assert_eq!(world.nat.tcp.len(), 5, "another port may have some");
}

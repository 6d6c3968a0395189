//! Packets of every protocol with arbitrary faults: nothing panics, and refusals are counted. The
//! host is a namespace with a server on its loopback, so that no packet leaves it.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use trama_frame::VnetHeader;

use crate::test_world::*;
use crate::testing::mend_checksums;

const SETUP: &str = "ip addr add 198.51.100.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo nodad; \
                     echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range";
const SERVERS: [&str; 2] = ["198.51.100.1:7000", "[2001:db8::1]:7000"];

/// A packet and its faults.
#[derive(Clone, Debug)]
struct Wrong {
    protocol: u8,
    is_v6: bool,
    hops: u8,
    payload: usize,
    /// TCP: flags, options, sequence number.
    tcp: (u8, Vec<u8>, u32),
    /// Bytes that are overwritten; offsets count from the end of the Ethernet header.
    changes: Vec<(usize, u8)>,
    cut: Option<usize>,
    is_mended: bool,
    offload: VnetHeader,
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let tcp = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), any::<u32>());
    let changes = prop::collection::vec((0usize..80, any::<u8>()), 0..3);
    let offload = prop_oneof![
        Just(VnetHeader::default()),
        (any::<u8>(), any::<u8>(), any::<[u16; 4]>()).prop_map(|(flags, gso_type, fields)| {
            let [hdr_len, gso_size, csum_start, csum_offset] = fields;
            let header = VnetHeader::default();
            VnetHeader { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, ..header }
        }),
    ];
    let cut = prop::option::weighted(0.1, 0usize..100);
    (0u8..4, any::<bool>(), 0u8..4, 0usize..2000, tcp, changes, cut, any::<bool>(), offload)
        .prop_map(|(protocol, is_v6, hops, payload, tcp, changes, cut, is_mended, offload)| Wrong {
            protocol,
            is_v6,
            hops,
            payload,
            tcp,
            changes,
            cut,
            is_mended,
            offload,
        })
}

impl Wrong {
    fn frame(&self) -> Vec<u8> {
        let to: SocketAddr = SERVERS[usize::from(self.is_v6)].parse().unwrap();
        let bytes = vec![7; self.payload];
        let mut frame = match self.protocol {
            0 => datagram(to, self.hops, &bytes),
            1 => echo(to.ip(), self.hops, 1, &bytes),
            2 => tcp_segment(to, self.hops, &self.tcp, &bytes),
            // An error about a packet of the guest.
            _ => {
                let mut frame = echo(to.ip(), self.hops, 1, &datagram(to, 9, &bytes)[14..]);
                frame[if self.is_v6 { 54 } else { 34 }] = if self.is_v6 { 1 } else { 3 };
                frame
            }
        };
        for (at, byte) in &self.changes {
            if let Some(place) = frame.get_mut(14 + at) {
                *place = *byte;
            }
        }
        frame.truncate(self.cut.unwrap_or(usize::MAX));
        if self.is_mended {
            // Otherwise length and checksum would hide the other faults.
            mend_lengths(&mut frame);
            mend_checksums(&mut frame);
        }
        frame
    }
}

/// Sets the length field of the IP header.
fn mend_lengths(frame: &mut [u8]) {
    let (is_v6, len) = (frame.get(12) == Some(&0x86), frame.len());
    let (at, headers) = if is_v6 { (18, 54) } else { (16, 14) };
    if let (Some(place), Some(len)) = (frame.get_mut(at..at + 2), len.checked_sub(headers)) {
        place.copy_from_slice(&(len as u16).to_be_bytes());
    }
}

/// A segment with these flags and options, and a right checksum.
fn tcp_segment(
    to: SocketAddr,
    hops: u8,
    (flags, options, sequence): &(u8, Vec<u8>, u32),
    data: &[u8],
) -> Vec<u8> {
    let from: IpAddr = guest_for(to.ip());
    let mut header = etherparse::TcpHeader::new(4000, to.port(), *sequence, 60_000);
    let options = &options[..options.len() / 4 * 4];
    let mut padded = [0; 40];
    padded[..options.len()].copy_from_slice(options);
    header.set_options_raw(&padded[..options.len()]).unwrap();
    let mut frame = Vec::new();
    ip(from, to.ip(), hops).tcp_header(header).write(&mut frame, data).unwrap();
    let flags_at = if from.is_ipv4() { 47 } else { 67 };
    let old = frame[flags_at];
    frame[flags_at] = *flags;
    // Updates the checksum (RFC 1624).
    let sum_at = flags_at + 3;
    let sum = u32::from(!u16::from_be_bytes([frame[sum_at], frame[sum_at + 1]]));
    let sum = sum + u32::from(!u16::from(old)) + u32::from(*flags);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Sends packets to a new NAT. Checks that each packet without effect was counted.
fn feed(packets: &[Wrong]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let mut taken = 0;
    for packet in packets {
        let frame = packet.frame();
        let before: u64 = world.counters.drops().values().sum();
        let sent = world.wire.0.len();
        let is_taken = !world.leaves_with(packet.offload, &frame);
        world.turn(Duration::ZERO);
        taken += u64::from(is_taken);
        let dropped = world.counters.drops().values().sum::<u64>() > before;
        let flows: usize = world.nat.census().iter().sum();
        let waits = world.nat.reassembly.deadline().is_some();
        let shows = dropped || flows > 0 || waits || world.wire.0.len() > sent;
        prop_assert!(shows || !is_taken, "not counted: {packet:?}: {frame:x?}");
    }
    prop_assert_eq!(world.counters.received, taken);
    // Their flows expire, too.
    world.now += Duration::from_secs(86_400);
    world.turn(Duration::ZERO);
    Ok(())
}

// spec-test: rfc9293 MUST-7
#[test]
fn no_packet_makes_it_panic_and_refusals_are_counted() {
    if !is_isolated(SETUP) {
        return;
    }
    let _tcp = SERVERS.map(|server| TcpListener::bind(server).unwrap());
    let _udp = SERVERS.map(|server| UdpSocket::bind(server).unwrap());
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() };
    let packets = prop::collection::vec(wrong(), 1..6);
    TestRunner::new(config).run(&packets, |packets| feed(&packets)).unwrap();
    // The packets do reach flows: without faults, there are some of each protocol.
    let mut world = World::new();
    let syn = (2, Vec::new(), 5);
    for server in SERVERS.map(|server| server.parse::<SocketAddr>().unwrap()) {
        world.send(&[datagram(server, 9, b"x"), echo(server.ip(), 9, 1, b"x")]);
        world.send(&[tcp_segment(server, 9, &syn, &[])]);
    }
    assert_eq!(world.nat.census(), [2, 2, 2], "{:?}", world.counters.drops());
}

//! Every set of offloads that a driver can negotiate, as sender and as receiver, against every
//! other: what arrives carries no header that its receiver did not negotiate, is whole where it may
//! be, and has right checksums, says tcpdump.
//!
//! One port for each set, 192 of them, and each sends to each. A receiver with GUEST_CSUM first
//! completes a checksum that comes unfinished, as drivers do; a wrong partial sum gives a wrong
//! checksum.
#![cfg(test)]

mod frames;
mod tcpdump;

use etherparse::{SlicedPacket, TransportSlice};
use frames::{Sent, complete};
use tcpdump::TcpdumpCheck;
use trama_frame::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM};
use trama_frame::{MacAddr, VnetHeader};
use trama_switch::{Engine, Time};
use trama_test_kit::{Guest, PLAIN, frame, mac, network, port, trunk};
use trama_vhost_net_backend::features::*;
use trama_virtqueue::{ChainShape, DriverOptions, HEADER_LEN};

/// The features of the matrix.
const OFFLOADS: [(u64, &str); 10] = [
    (NET_F_CSUM, "CSUM"),
    (NET_F_HOST_TSO4, "HOST_TSO4"),
    (NET_F_HOST_TSO6, "HOST_TSO6"),
    (NET_F_HOST_ECN, "HOST_ECN"),
    (NET_F_GUEST_CSUM, "GUEST_CSUM"),
    (NET_F_GUEST_TSO4, "GUEST_TSO4"),
    (NET_F_GUEST_TSO6, "GUEST_TSO6"),
    (NET_F_GUEST_ECN, "GUEST_ECN"),
    (NET_F_MRG_RXBUF, "MRG_RXBUF"),
    (VERSION_1, "VERSION_1"),
];

/// The other features: they change nothing in a frame.
const OTHERS: u64 = NET_F_MTU
    | NET_F_MAC
    | NET_F_STATUS
    | NET_F_CTRL_VQ
    | NET_F_MQ
    | RING_INDIRECT_DESC
    | RING_EVENT_IDX
    | LOG_ALL
    | VHOST_USER_PROTOCOL_FEATURES
    | IN_ORDER;

/// Which features need which others (virtio 1.2, section 5.1.3.1): any one of them. With mergeable
/// buffers, VERSION_1 changes nothing, and the sets without it are left out.
const REQUIRED: [(u64, u64); 7] = [
    (NET_F_MRG_RXBUF, VERSION_1),
    (NET_F_HOST_TSO4, NET_F_CSUM),
    (NET_F_HOST_TSO6, NET_F_CSUM),
    (NET_F_HOST_ECN, NET_F_HOST_TSO4 | NET_F_HOST_TSO6),
    (NET_F_GUEST_TSO4, NET_F_GUEST_CSUM),
    (NET_F_GUEST_TSO6, NET_F_GUEST_CSUM),
    (NET_F_GUEST_ECN, NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6),
];

/// All sets of offloads that a driver may negotiate.
fn negotiable() -> Vec<u64> {
    let all = OFFLOADS.iter().fold(0, |set, (bit, _)| set | bit);
    assert_eq!(all | OTHERS, ALL, "a feature is offered that this test does not know");
    let subsets = (0..1 << OFFLOADS.len()).map(|choice: u64| {
        let chosen = OFFLOADS.iter().enumerate().filter(|(i, _)| choice & (1 << i) != 0);
        chosen.fold(0, |set, (_, (bit, _))| set | bit)
    });
    let allowed = |set: &u64| {
        REQUIRED.iter().all(|(feature, needed)| set & feature == 0 || set & needed != 0)
    };
    subsets.filter(allowed).collect()
}

fn name(set: u64) -> String {
    let named = OFFLOADS.iter().filter(|(bit, _)| set & bit != 0).map(|(_, name)| *name);
    format!("[{}]", named.collect::<Vec<_>>().join(" "))
}

/// A port, the driver on it, and what it has negotiated.
struct Station {
    set: u64,
    mac: MacAddr,
    guest: Guest,
    /// What it sends to each other.
    frames: Vec<Sent>,
}

struct Lab {
    engine: Engine,
    clock: u64,
    stations: Vec<Station>,
}

impl Lab {
    fn new(sets: &[u64]) -> Lab {
        let mut engine = Engine::new(3);
        let network = network(&mut engine, 1500);
        let stations = sets.iter().zip(1..).map(|(&set, number)| {
            let set = acknowledge(offered(ALL, 1, false), set).unwrap();
            let (tx, rx) = (ring(set, HEADER_LEN + 8192), ring(set, receive_buffer(set)));
            let guest = Guest::add(&mut engine, port(network, trunk()), tx, rx);
            engine.set_offloads(guest.id, offloads(set));
            Station { set, mac: mac(number), guest, frames: frames::frames_of(set, mac(number)) }
        });
        let stations = stations.collect();
        Lab { engine, clock: 0, stations }
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            self.clock += 1_000_000;
            if !self.engine.poll(Time(self.clock)) {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }

    /// Lets the switch learn where every station is.
    fn introduce(&mut self) {
        for i in 0..self.stations.len() {
            let hello = frame(MacAddr::BROADCAST, self.stations[i].mac, 60);
            self.stations[i].guest.send(&PLAIN, &hello);
            self.settle();
            self.stations.iter_mut().for_each(|station| drop(station.guest.frames()));
        }
    }

    /// Sends all that `from` sends to `to`; gives what arrives there.
    fn exchange(&mut self, from: usize, to: usize) -> Vec<(VnetHeader, Vec<u8>)> {
        let destination = self.stations[to].mac;
        let Station { guest, frames, .. } = &mut self.stations[from];
        for sent in frames {
            sent.bytes[..6].copy_from_slice(&destination.0);
            guest.send(&sent.header.to_bytes(), &sent.bytes);
        }
        self.settle();
        self.stations[to].guest.frames()
    }
}

fn ring(set: u64, buffer_size: usize) -> DriverOptions {
    let features = ring_features(set);
    // Drivers before virtio 1.0 have the header apart.
    let is_modern = set & VERSION_1 != 0;
    let (size, shape) =
        if is_modern { (64, ChainShape::Single) } else { (128, ChainShape::HeaderSplit) };
    DriverOptions { size, features, shape, buffer_size }
}

/// The smallest buffer that a driver may post (virtio 1.2, section 5.1.6.3.1).
fn receive_buffer(set: u64) -> usize {
    let takes_large = set & (NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6) != 0;
    if takes_large && set & NET_F_MRG_RXBUF == 0 { 65_562 } else { 1526 }
}

#[test]
fn every_set_of_offloads_gets_what_it_takes_from_every_other() {
    let sets = negotiable();
    assert_eq!(sets.len(), 8 * 8 * 3, "ways to send, to receive, and to lay out buffers");
    let alike = |set| assert_eq!(ring_features(set), ring_features(set | VERSION_1));
    alike(NET_F_MRG_RXBUF);
    let mut lab = Lab::new(&sets);
    lab.introduce();
    let mut checked = 0;
    for to in 0..sets.len() {
        let mut tcpdump = TcpdumpCheck::new(&name(sets[to]));
        for from in (0..sets.len()).filter(|from| *from != to) {
            let got = lab.exchange(from, to);
            let Station { set: sender, frames, .. } = &lab.stations[from];
            let flow = format!("from {} to {}", name(*sender), name(sets[to]));
            check(&flow, frames, sets[to], got, &mut tcpdump);
        }
        checked += tcpdump.finish();
    }
    println!("{} senders and receivers, {checked} frames checked by tcpdump", sets.len());
}

/// Checks what arrived of `frames` at a receiver with this set, and adds it to the frames that
/// tcpdump checks.
fn check(
    flow: &str,
    frames: &[Sent],
    receiver: u64,
    got: Vec<(VnetHeader, Vec<u8>)>,
    tcpdump: &mut TcpdumpCheck,
) {
    let mut got = got.into_iter();
    for sent in frames {
        let what = format!("{} {flow}", sent.what);
        let whole = is_negotiated(&sent.header, receiver);
        let (expected, pieces) =
            if whole { (sent.header, 1) } else { (VnetHeader::default(), sent.segments()) };
        let mut payload: Vec<u8> = Vec::new();
        for _ in 0..pieces {
            let (header, mut bytes) = got.next().unwrap_or_else(|| panic!("{what}: lost"));
            assert!(is_negotiated(&header, receiver), "{what}: {header:?} was not negotiated");
            let num_buffers = buffers(receiver, bytes.len());
            assert_eq!(header, VnetHeader { num_buffers, ..expected }, "{what}");
            assert!(header.is_gso() || bytes.len() <= 1514, "{what}: {} bytes", bytes.len());
            complete(&header, &mut bytes);
            let place = Place::of(&bytes);
            assert_eq!(place.port, sent.port, "{what}: another frame");
            assert_eq!(place.sequence, sent.sequence(payload.len()), "{what}: out of order");
            payload.extend(place.payload);
            tcpdump.add(&bytes);
        }
        assert!(payload == sent.payload(), "{what}: the payload changed");
    }
    assert_eq!(got.next(), None, "{flow}: more than was sent");
}

/// Whether a driver with this set may be given this header.
fn is_negotiated(header: &VnetHeader, set: u64) -> bool {
    let flags = match header.flags {
        0 => 0,
        NEEDS_CSUM => NET_F_GUEST_CSUM,
        _ => return false,
    };
    let large = match header.gso_type & !GSO_ECN {
        GSO_NONE => 0,
        GSO_TCPV4 => NET_F_GUEST_TSO4,
        GSO_TCPV6 => NET_F_GUEST_TSO6,
        _ => return false,
    };
    let ecn = if header.gso_type & GSO_ECN == 0 { 0 } else { NET_F_GUEST_ECN };
    let needed = flags | large | ecn;
    set & needed == needed
}

/// How many buffers a frame fills at a receiver with this set.
fn buffers(set: u64, len: usize) -> u16 {
    (ring_features(set).header_len() + len).div_ceil(receive_buffer(set)) as u16
}

/// Where a frame belongs, read by an independent parser that checks all lengths.
struct Place<'a> {
    /// Source port, another for each frame that is sent.
    port: u16,
    /// TCP's sequence number.
    sequence: Option<u32>,
    payload: &'a [u8],
}

impl Place<'_> {
    fn of(bytes: &[u8]) -> Place<'_> {
        match SlicedPacket::from_ethernet(bytes).unwrap().transport {
            Some(TransportSlice::Tcp(tcp)) => Place {
                port: tcp.source_port(),
                sequence: Some(tcp.sequence_number()),
                payload: tcp.payload(),
            },
            Some(TransportSlice::Udp(udp)) => {
                Place { port: udp.source_port(), sequence: None, payload: udp.payload() }
            }
            other => panic!("neither TCP nor UDP: {other:?}"),
        }
    }
}

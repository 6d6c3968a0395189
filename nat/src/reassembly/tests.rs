//! Reassembly against a slow reference model, and what the NAT does with its packets.

use std::net::UdpSocket;

use proptest::prelude::*;

use super::*;
use crate::classify::FrameClass;
use crate::packet::inbound::read;
use crate::packet::outbound::fragments as cut;
use crate::rules::{LoopbackMap, Rules, Transport};
use crate::test_world::*;
use crate::testing::{GATEWAY, GATEWAY4, GATEWAY6, GUEST, GUEST4, GUEST6, ping};

/// A frame with a fragment of a guest's packet to an outside address.
fn frame(is_v6: bool, id: u32, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY.0, GUEST.0].concat();
    let field = (offset | usize::from(more)) as u16;
    if is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((8 + bytes.len() as u16).to_be_bytes());
        frame.extend([44, 64]);
        frame.extend(GUEST6.octets());
        frame.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame.extend([17, 0]);
        frame.extend(field.to_be_bytes());
        frame.extend(id.to_be_bytes());
    } else {
        let mut header = etherparse::Ipv4Header::new(
            bytes.len() as u16,
            64,
            17.into(),
            GUEST4.octets(),
            [198, 51, 100, 1],
        )
        .unwrap();
        header.identification = id as u16;
        header.more_fragments = more;
        header.fragment_offset = etherparse::IpFragOffset::try_new((offset / 8) as u16).unwrap();
        header.header_checksum = header.calc_header_checksum();
        frame.extend([8, 0]);
        frame.extend(header.to_bytes());
    }
    frame.extend_from_slice(bytes);
    frame
}

/// What becomes of a frame with a fragment. Returns the payload of a whole packet.
fn take(
    reassembly: &mut Reassembly,
    port: u64,
    frame: &[u8],
) -> Result<Option<Vec<u8>>, DropReason> {
    let Ok(FrameClass::Fragment(part)) = class_of(port, frame) else { panic!("no fragment") };
    let packet = reassembly.add(Duration::ZERO, &part, &mut Counters::default())?;
    Ok(packet.map(|packet| {
        let whole = parse_whole(&packet, &part).expect("a well-formed packet");
        assert_eq!((whole.protocol, whole.source), (IpProtocol::Udp, part.source));
        assert!(whole.may_fragment());
        whole.payload.to_vec()
    }))
}

/// The fragments of one packet in order of arrival: (offset, more, bytes).
#[derive(Default)]
struct Obvious {
    parts: Vec<(usize, bool, Vec<u8>)>,
    is_given_up: bool,
}

impl Obvious {
    fn take(&mut self, offset: usize, more: bool, bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        if self.is_given_up {
            return Err(());
        }
        if self.parts.iter().any(|part| part.0 == offset && part.2 == bytes) {
            return Ok(None);
        }
        self.parts.push((offset, more, bytes.to_vec()));
        let covers = |at: usize| {
            self.parts.iter().filter(|part| (part.0..part.0 + part.2.len()).contains(&at)).count()
        };
        let longest = self.parts.iter().map(|part| part.0 + part.2.len()).max().unwrap();
        let mut ends = self.parts.iter().filter(|part| !part.1).map(|part| part.0 + part.2.len());
        let (end, other) = (ends.next(), ends.next());
        let overlap = (0..longest).any(|at| covers(at) > 1);
        if overlap || other.is_some() || end.is_some_and(|end| end < longest) {
            self.is_given_up = true;
            return Err(());
        }
        let Some(end) = end.filter(|end| (0..*end).all(|at| covers(at) == 1)) else {
            return Ok(None);
        };
        let mut whole = vec![0; end];
        for (offset, _, bytes) in std::mem::take(&mut self.parts) {
            whole[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(Some(whole))
    }
}

/// Fragments of a packet, some of them duplicated, out of order, or with another offset.
fn fragments() -> impl Strategy<Value = Vec<(usize, bool, Vec<u8>)>> {
    let piece = (1..5usize, 0..12u8, 0..40usize, any::<u8>());
    (prop::collection::vec(piece, 1..12), any::<u64>()).prop_map(|(pieces, seed)| {
        let mut parts = Vec::new();
        let (mut offset, count) = (0, pieces.len());
        for (index, (words, trick, away, filler)) in pieces.into_iter().enumerate() {
            let more = index + 1 < count;
            let length = if more { words * 8 } else { words * 8 - away % 8 };
            let bytes: Vec<u8> = (0..length).map(|at| at as u8 ^ filler).collect();
            let part = (offset, more, bytes);
            offset += length;
            match trick {
                0 => parts.push((away * 8, part.1, part.2.clone())),
                1 => parts.push((part.0, true, vec![filler; 8])),
                2..5 => parts.push(part.clone()),
                _ => {}
            }
            parts.push(part);
        }
        let place = |index: usize| seed.rotate_left(index as u32 * 7).wrapping_mul(0x9e37_79b9);
        let mut places: Vec<_> = (0..parts.len()).collect();
        places.sort_by_key(|index| place(*index) >> 40);
        places.into_iter().map(|index| parts[index].clone()).collect()
    })
}

proptest! {
    #[test]
    fn it_equals_the_reference_model(parts in fragments(), is_v6 in any::<bool>()) {
        let (mut reassembly, mut obvious) = (Reassembly::default(), Obvious::default());
        for (offset, more, bytes) in parts {
            if more && bytes.len() % 8 != 0 {
                continue;
            }
            let frame = frame(is_v6, 7, offset, more, &bytes);
            // IPv4 has no atomic fragments.
            if !is_v6 && offset == 0 && !more {
                continue;
            }
            let result = take(&mut reassembly, 1, &frame).map_err(|_| ());
            prop_assert_eq!(result, obvious.take(offset, more, &bytes));
        }
    }
}

#[test]
fn packets_are_not_mixed_and_malformed_fragments_are_refused() {
    let mut reassembly = Reassembly::default();
    let mut take = |port, frame: Vec<u8>| take(&mut reassembly, port, &frame);
    for is_v6 in [false, true] {
        assert_eq!(take(1, frame(is_v6, 1, 0, true, &[1; 8])), Ok(None));
        assert_eq!(take(1, frame(is_v6, 2, 8, false, &[2; 5])), Ok(None), "another packet's");
        assert_eq!(take(2, frame(is_v6, 1, 8, false, &[3; 5])), Ok(None), "another port's");
        let whole = [[1; 8].to_vec(), [4; 5].to_vec()].concat();
        assert_eq!(take(1, frame(is_v6, 1, 8, false, &[4; 5])), Ok(Some(whole)));

        let bad = Err(DropReason::BadFragment);
        assert_eq!(take(3, frame(is_v6, 1, 8, true, &[0; 9])), bad, "not in words of 8 bytes");
        assert_eq!(take(3, frame(is_v6, 1, 8, true, &[])), bad, "empty");
        assert_eq!(take(3, frame(is_v6, 1, 65_528, false, &[0; 16])), bad, "the ping of death");
    }
}

#[test]
fn a_port_that_never_finishes_takes_only_its_own_memory_and_that_not_for_long() {
    let mut world = World::new();
    world.send_from(1, &frame(false, 1, 0, true, &[1; 8]));
    for id in 0..10_000 {
        world.send_from(2, &frame(false, id, 65_400, true, &[1; 8]));
    }
    assert_eq!(world.nat.reassembly.table.len(), 65);
    assert_eq!(world.dropped(DropReason::FragmentLimit), 10_000 - 64);
    world.send_from(1, &frame(false, 1, 8, false, &[1; 8]));
    assert_eq!(world.nat.reassembly.table.len(), 64, "the other port's became whole");
    assert_eq!(world.nat.deadline(world.now), Some(TIMEOUT));
    world.now = TIMEOUT;
    world.turn(Duration::ZERO);
    assert_eq!(world.nat.reassembly.table.len(), 0);
    assert_eq!(world.dropped(DropReason::FragmentTimeout), 64);
}

#[test]
fn a_datagram_in_fragments_goes_out_as_one() {
    let setup = "ip addr add 198.51.100.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo nodad";
    if !is_isolated(setup) {
        return;
    }
    for to in ["198.51.100.1:0", "[2001:db8::1]:0"] {
        let server = UdpSocket::bind(to).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let to = server.local_addr().unwrap();
        let payload: Vec<u8> = (0..4000).map(|at| (at / 5) as u8).collect();
        let whole = datagram(to, 64, &payload);
        let udp = &whole[whole.len() - payload.len() - 8..];
        let mut world = World::new();
        let cuts = udp
            .chunks(1480)
            .enumerate()
            .map(|(index, bytes)| frame(to.is_ipv6(), 9, index * 1480, bytes.len() == 1480, bytes));
        let cuts: Vec<_> = cuts.collect();
        world.send(&[cuts[2].clone(), cuts[0].clone(), cuts[1].clone()]);
        let mut room = [0; 5000];
        let length = server.recv(&mut room).expect("the datagram");
        assert!(room[..length] == payload);
        assert_eq!(world.counters.drops().len(), 0);
    }
}

#[test]
fn packets_for_the_gateway_are_reassembled_for_its_services() {
    let data: Vec<u8> = (0..3000).map(|at| at as u8).collect();
    let link_local = "fe80::15".parse().unwrap();
    let pings: [(IpAddr, IpAddr); 3] = [
        (GUEST4.into(), GATEWAY4.into()),
        (GUEST6.into(), GATEWAY6.into()),
        (IpAddr::V6(link_local), GATEWAY6.into()),
    ];
    // With NAT, and without.
    for nat in [Some(Rules::default()), None] {
        for (guest, gateway) in pings {
            let mut world = World::new();
            world.config.nat = nat.clone();
            let sent = ping(guest, gateway, &data);
            let cut = cut(sent.clone(), 1500, 7).unwrap();
            assert_eq!(cut.len(), 3);
            let wholes: Vec<_> = cut.iter().filter_map(|frame| world.reassembled(frame)).collect();
            assert_eq!(wholes.len(), 1);
            let payload = |frame| read(frame).unwrap().0.payload.to_vec();
            assert_eq!(payload(&wholes[0]), payload(&sent), "{guest}");
            assert_eq!(world.counters.drops().len(), 0);
        }
    }
}

#[test]
fn fragments_of_flows_behind_the_gateway_s_address_reach_them() {
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    let guest = (GATEWAY4, 5300).into();
    let map = LoopbackMap { transport: Transport::Udp, guest, host: host.local_addr().unwrap() };
    let mut world = World::new();
    world.config.nat.as_mut().unwrap().loopback.push(map);
    let mut whole = datagram(guest, 64, &[7; 4000]);
    // The packet may be fragmented.
    whole[20] = 0;
    for frame in cut(whole, 1500, 9).unwrap() {
        world.send(&[frame]);
    }
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(host.recv(&mut [0; 5000]).unwrap(), 4000, "{:?}", world.counters.drops());
    // The services see a packet of a foreign source as it is.
    let stranger = "192.0.2.1".parse().unwrap();
    let fragments = cut(ping(stranger, GATEWAY4.into(), &[7; 2000]), 1500, 9).unwrap();
    assert_eq!(fragments.iter().filter_map(|frame| world.reassembled(frame)).count(), 1);
}

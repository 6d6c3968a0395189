use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{Flow, FlowTransport};
use crate::vnet::{GSO_ECN, validate};

fn cut(frame: &[u8], header: &VnetHeader) -> Vec<Vec<u8>> {
    let mut segments = vec![];
    let mut scratch = vec![0xee; 70_000];
    let count = segment(frame, header, &mut scratch, |bytes| segments.push(bytes.to_vec()));
    assert_eq!(count, Ok(segments.len()));
    segments
}

/// The headers that the sender's network card would give segment `index`.
fn flow_of_segment(flow: &Flow, index: usize, count: usize, gso_size: usize) -> Flow {
    let mut own = flow.clone();
    own.identification = flow.identification.wrapping_add(index as u16);
    if let FlowTransport::Tcp(tcp) = &mut own.transport {
        tcp.sequence = tcp.sequence.wrapping_add((index * gso_size) as u32);
        tcp.cwr &= index == 0;
        tcp.fin &= index == count - 1;
        tcp.psh &= index == count - 1;
    }
    own
}

/// Compares every byte of every segment with what etherparse builds for it.
fn check(flow: &Flow, payload: &[u8], gso_size: u16) {
    let (frame, header) = flow.large(payload, gso_size);
    let parts: Vec<_> = payload.chunks(gso_size.into()).collect();
    let segments = cut(&frame, &header);
    assert_eq!(segments.len(), parts.len());
    assert_eq!(segments.len(), header.segments(frame.len()));
    for (index, (segment, part)) in segments.iter().zip(&parts).enumerate() {
        let own = flow_of_segment(flow, index, parts.len(), gso_size.into());
        assert_eq!(segment, &own.frame(part), "segment {index} of {}", parts.len());
    }
}

/// Most VLAN tags that etherparse looks behind.
const ETHERPARSE_TAGS: usize = 3;

/// A segment as a stranger sees it: it parses, carries no surplus byte, and its checksums hold.
fn payload_by_etherparse(segment: &[u8]) -> Vec<u8> {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let packet = SlicedPacket::from_ethernet(segment).unwrap();
    let net = packet.net.unwrap();
    if let NetSlice::Ipv4(ip) = &net {
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    match (packet.transport.unwrap(), net) {
        (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            assert_eq!(tcp.calc_checksum_ipv4(from, to).unwrap(), tcp.checksum());
            tcp.payload().to_vec()
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ip)) => {
            let (from, to) = (ip.header().source(), ip.header().destination());
            assert_eq!(tcp.calc_checksum_ipv6(from, to).unwrap(), tcp.checksum());
            tcp.payload().to_vec()
        }
        (TransportSlice::Udp(udp), NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
            assert_eq!(expected.unwrap(), udp.checksum());
            udp.payload().to_vec()
        }
        (TransportSlice::Udp(udp), NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            let expected = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
            assert_eq!(expected.unwrap(), udp.checksum());
            udp.payload().to_vec()
        }
        other => panic!("unexpected packet {other:?}"),
    }
}

#[test]
fn largest_frames() {
    for flow in [Flow::tcp(false), Flow::tcp(true), Flow::udp(false), Flow::udp(true)] {
        let transport_len = if flow.is_v6 { 65535 } else { 65535 - 20 };
        let payload_len = transport_len - (flow.payload_at() - flow.transport_at());
        let payload: Vec<u8> = (0..payload_len).map(|at| (at * 7 + at / 251) as u8).collect();
        check(&flow, &payload, 1448);
        check(&flow, &payload, u16::MAX);
    }
}

#[test]
fn payload_shorter_than_a_segment_stays_whole() {
    check(&Flow::tcp(false), b"few", 1448);
    check(&Flow::udp(true), b"few", 3);
}

#[test]
fn flags_stand_where_they_belong() {
    let mut flow = Flow::tcp(false);
    if let FlowTransport::Tcp(tcp) = &mut flow.transport {
        (tcp.fin, tcp.psh, tcp.ece, tcp.cwr) = (true, true, true, true);
    }
    let (frame, mut header) = flow.large(&[1; 250], 100);
    header.gso_type |= GSO_ECN;
    let at = flow.transport_at() + 13;
    let flags: Vec<u8> = cut(&frame, &header).iter().map(|segment| segment[at]).collect();
    const ACK: u8 = 0x10;
    const ECE: u8 = 0x40;
    let all = ACK | ECE;
    let last = all | tcp_flag::FIN | tcp_flag::PSH;
    assert_eq!(flags, [all | tcp_flag::CWR, all, last]);
}

#[test]
fn identification_and_sequence_wrap() {
    let mut flow = Flow::tcp(false);
    flow.identification = u16::MAX;
    if let FlowTransport::Tcp(tcp) = &mut flow.transport {
        tcp.sequence = u32::MAX - 10;
    }
    check(&flow, &[9; 400], 100);
}

#[test]
fn udp_sum_of_zero_is_sent_as_ones() {
    // Let the last payload word run through all values: one of them makes the sum 0xffff.
    let flow = Flow::udp(true);
    let mut seen = false;
    for word in 0..=u16::MAX {
        let (frame, header) = flow.large(&word.to_be_bytes(), 100);
        let segment = cut(&frame, &header).remove(0);
        let at = flow.transport_at() + 6;
        let checksum = [segment[at], segment[at + 1]];
        assert_ne!(checksum, [0, 0]);
        seen |= checksum == [0xff, 0xff];
    }
    assert!(seen);
}

#[test]
fn scratch_must_hold_one_segment() {
    let flow = Flow::tcp(false);
    let (frame, header) = flow.large(&[5; 250], 100);
    let mut scratch = vec![0; flow.payload_at() + 100];
    assert_eq!(segment(&frame, &header, &mut scratch, |_| ()), Ok(3));
    scratch.pop();
    let refused = segment(&frame, &header, &mut scratch, |_| panic!("nothing to emit"));
    assert_eq!(refused, Err(GsoError::ScratchTooSmall));
}

#[test]
fn frame_that_is_not_large_is_refused() {
    let (frame, header) = Flow::tcp(false).large(&[5; 250], 100);
    let plain = VnetHeader { gso_type: 0, ..header };
    let refused = segment(&frame, &plain, &mut [0; 2000], |_| panic!("nothing to emit"));
    assert_eq!(refused, Err(GsoError::Header(HeaderError::GsoType)));
}

proptest! {
    #[test]
    fn segments_are_what_the_sender_would_have_sent(
        flow in Flow::any(),
        payload in vec(any::<u8>(), 1..6000),
        gso_size in prop_oneof![1u16..64, 64u16..1500, Just(1448), Just(u16::MAX)],
    ) {
        // At a byte a segment, six thousand segments say no more than two hundred.
        let payload = &payload[..payload.len().min(200 * usize::from(gso_size))];
        check(&flow, payload, gso_size);
    }

    #[test]
    fn segments_parse_and_join(
        flow in Flow::any(),
        payload in vec(any::<u8>(), 1..6000),
        gso_size in 300u16..1500,
    ) {
        let mut flow = flow;
        flow.tags.truncate(ETHERPARSE_TAGS);
        let (frame, mut header) = flow.large(&payload, gso_size);
        validate(&mut header, &frame, frame.len()).unwrap();
        let joined: Vec<u8> =
            cut(&frame, &header).iter().flat_map(|bytes| payload_by_etherparse(bytes)).collect();
        prop_assert_eq!(joined, payload);
    }
}

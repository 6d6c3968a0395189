use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::checksum::complete;
use crate::gso::segment;
use crate::offload::Offloads;
use crate::retag;
use crate::testing::{Flow, FlowTransport};
use crate::vlan::VlanTag;

fn any_header() -> impl Strategy<Value = VnetHeader> {
    any::<[u8; LEN]>().prop_map(|bytes| VnetHeader::from_bytes(&bytes))
}

/// Validates against the private head alone, as the data path does.
fn check(header: VnetHeader, frame: &[u8]) -> Result<(VnetHeader, Offloads), HeaderError> {
    let mut header = header;
    let head = &frame[..frame.len().min(PRIVATE_HEAD)];
    validate(&mut header, head, frame.len()).map(|needs| (header, needs))
}

fn refusal(header: VnetHeader, frame: &[u8]) -> Option<HeaderError> {
    check(header, frame).err()
}

#[test]
fn form_on_the_ring() {
    assert_eq!(size_of::<VnetHeader>(), LEN);
    let bytes = [1, 0x81, 0x36, 0, 0xa8, 5, 0x22, 0, 0x10, 0, 3, 0];
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4 | GSO_ECN,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 3,
    };
    assert_eq!(VnetHeader::from_bytes(&bytes), header);
    assert_eq!(header.to_bytes(), bytes);
}

#[test]
fn what_is_unused_or_unknown_becomes_zero() {
    let junk = VnetHeader {
        flags: 0,
        gso_type: 0,
        hdr_len: 1,
        gso_size: 2,
        csum_start: 3,
        csum_offset: 4,
        num_buffers: 5,
    };
    // A plain header fits any frame, even none.
    assert_eq!(check(junk, &[]), Ok((VnetHeader::default(), Offloads::NONE)));
    for flags in [RSC_INFO, 0xf8] {
        let header = VnetHeader { flags, ..junk };
        assert_eq!(check(header, &[0; 60]), Ok((VnetHeader::default(), Offloads::NONE)));
    }
    let valid = VnetHeader { flags: DATA_VALID, ..VnetHeader::default() };
    let header = VnetHeader { flags: DATA_VALID | RSC_INFO, ..junk };
    assert_eq!(check(header, &[0; 60]), Ok((valid, Offloads::NONE)));
    let header = VnetHeader { flags: 0xff, csum_start: 14, csum_offset: 4, ..junk };
    let only_csum =
        VnetHeader { flags: NEEDS_CSUM, csum_start: 14, csum_offset: 4, ..VnetHeader::default() };
    assert_eq!(check(header, &[0; 60]), Ok((only_csum, Offloads::CSUM)));
}

#[test]
fn checksum_bounds() {
    let out = Some(HeaderError::ChecksumOutOfFrame);
    let untagged = [0; 60];
    let mut tagged = [0; 60];
    tagged[12] = 0x81;
    for (frame, start, offset, expected) in [
        (&untagged, 14, 0, None),
        (&untagged, 13, 0, out),
        (&tagged, 18, 0, None),
        (&tagged, 17, 0, out),
        (&untagged, 34, 24, None),
        (&untagged, 34, 25, out),
        (&untagged, 58, 0, None),
        (&untagged, 59, 0, out),
        (&untagged, 34, u16::MAX, out),
        (&untagged, u16::MAX, u16::MAX, out),
    ] {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: start,
            csum_offset: offset,
            ..VnetHeader::default()
        };
        assert_eq!(refusal(header, frame), expected, "{start} {offset}");
    }
    // So far out that a shift would not be exact.
    let large = vec![0; 1 << 17];
    for (csum_start, expected) in [(u16::MAX - 4, None), (u16::MAX - 3, out)] {
        let header = VnetHeader { flags: NEEDS_CSUM, csum_start, ..VnetHeader::default() };
        assert_eq!(refusal(header, &large), expected, "{csum_start}");
    }
    let header = VnetHeader { flags: NEEDS_CSUM, ..VnetHeader::default() };
    assert_eq!(refusal(header, &[0; 13]), Some(HeaderError::HeadersTruncated));
    assert_eq!(refusal(header, &tagged[..17]), Some(HeaderError::HeadersTruncated));
}

#[test]
fn large_frames_need_what_they_are() {
    let csum = Offloads::CSUM;
    for (flow, ecn, needs) in [
        (Flow::tcp(false), 0, Offloads::TSO4 | csum),
        (Flow::tcp(true), 0, Offloads::TSO6 | csum),
        (Flow::tcp(false), GSO_ECN, Offloads::TSO4 | Offloads::ECN | csum),
        (Flow::tcp(true), GSO_ECN, Offloads::TSO6 | Offloads::ECN | csum),
        (Flow::udp(false), 0, Offloads::USO | csum),
        (Flow::udp(true), 0, Offloads::USO | csum),
    ] {
        let (frame, expected) = flow.large(&[0; 3000], 1000);
        let expected = VnetHeader { gso_type: expected.gso_type | ecn, ..expected };
        let lying = VnetHeader { flags: 0xff, hdr_len: 9, num_buffers: 4, ..expected };
        assert_eq!(check(lying, &frame), Ok((expected, needs)));
        assert_eq!(expected.segments(frame.len()), 3);
    }
}

#[test]
fn header_fields_that_lie() {
    let (frame, good) = Flow::tcp(false).large(&[0; 3000], 1000);
    for (header, expected) in [
        (VnetHeader { flags: 0, ..good }, HeaderError::GsoWithoutChecksum),
        (VnetHeader { flags: DATA_VALID, ..good }, HeaderError::GsoWithoutChecksum),
        (VnetHeader { gso_size: 0, ..good }, HeaderError::GsoSize),
        (VnetHeader { gso_type: GSO_UDP, ..good }, HeaderError::GsoType),
        (VnetHeader { gso_type: GSO_ECN, ..good }, HeaderError::GsoType),
        (VnetHeader { gso_type: GSO_UDP_L4 | GSO_ECN, ..good }, HeaderError::GsoType),
        (VnetHeader { gso_type: 2, ..good }, HeaderError::GsoType),
        (VnetHeader { gso_type: GSO_TCPV6, ..good }, HeaderError::ProtocolMismatch),
        (VnetHeader { gso_type: GSO_UDP_L4, ..good }, HeaderError::ProtocolMismatch),
        (VnetHeader { csum_start: 33, ..good }, HeaderError::GsoChecksumPlace),
        (VnetHeader { csum_start: u16::MAX, ..good }, HeaderError::GsoChecksumPlace),
        (VnetHeader { csum_offset: 6, ..good }, HeaderError::GsoChecksumPlace),
    ] {
        assert_eq!(refusal(header, &frame), Some(expected), "{header:?}");
    }
}

#[test]
fn frame_fields_that_lie() {
    let patch = |flow: &Flow, at: usize, value: u8| {
        let (mut frame, header) = flow.large(&[0; 3000], 1000);
        frame[at] = value;
        refusal(header, &frame)
    };
    let (tcp4, tcp6, udp6) = (Flow::tcp(false), Flow::tcp(true), Flow::udp(true));
    let mut tagged = tcp4.clone();
    tagged.tags = vec![(0x88a8, 5)];
    let mut stacked = tcp4.clone();
    stacked.tags = vec![(0x8100, 5); MAX_TAGS];
    let behind = 14 + 4 * MAX_TAGS;
    for (flow, at, value, expected) in [
        (&tcp4, 12, 0x86, HeaderError::ProtocolMismatch), // EtherType 0x8600
        // A second tag, and behind it the IP header's first bytes as an EtherType.
        (&tagged, 16, 0x81, HeaderError::ProtocolMismatch),
        (&stacked, behind - 2, 0x81, HeaderError::TooManyTags),
        (&stacked, behind, 0x44, HeaderError::ProtocolMismatch),
        (&stacked, behind + 3, 0x01, HeaderError::LengthMismatch),
        (&tcp4, 14, 0x44, HeaderError::ProtocolMismatch), // IPv4 header of 16 bytes
        (&tcp4, 14, 0x65, HeaderError::ProtocolMismatch), // version 6 under IPv4's EtherType
        (&tcp4, 14, 0x4f, HeaderError::ProtocolMismatch), // zeros of the payload as TCP header
        (&tcp4, 17, 0x01, HeaderError::LengthMismatch),
        (&tcp4, 20, 0x20, HeaderError::Fragment), // more fragments
        (&tcp4, 21, 0x01, HeaderError::Fragment), // offset 8
        (&tcp4, 23, 17, HeaderError::ProtocolMismatch),
        (&tcp4, 46, 0x40, HeaderError::ProtocolMismatch), // TCP header of 16 bytes
        (&tcp4, 47, 0x12, HeaderError::TcpFlags),         // SYN
        (&tcp4, 47, 0x14, HeaderError::TcpFlags),         // RST
        (&tcp4, 47, 0x30, HeaderError::TcpFlags),         // URG
        (&tcp6, 14, 0x45, HeaderError::ProtocolMismatch),
        (&tcp6, 19, 0x01, HeaderError::LengthMismatch),
        (&tcp6, 20, 0, HeaderError::ExtensionHeaders), // hop-by-hop
        (&tcp6, 20, 44, HeaderError::ExtensionHeaders), // fragment
        (&tcp6, 20, 17, HeaderError::ProtocolMismatch),
        (&udp6, 59, 0x01, HeaderError::LengthMismatch), // UDP length
    ] {
        assert_eq!(patch(flow, at, value), Some(expected), "byte {at} = {value:#x} of {flow:?}");
    }
    // Don't-fragment and the reserved bit are no fragment.
    assert_eq!(patch(&tcp4, 20, 0xc0), None);
}

/// An IPv4 header of 16 bytes with all the rest made to agree with it.
#[test]
fn short_ipv4_header_that_hangs_together() {
    let mut flow = Flow::tcp(false);
    if let FlowTransport::Tcp(tcp) = &mut flow.transport {
        // Stands where a TCP header that begins 4 bytes early has data offset and flags.
        tcp.acknowledgement = 0x5010_0000;
    }
    let (mut frame, header) = flow.large(&[0; 3000], 1000);
    frame[14] = 0x44;
    let header = VnetHeader { csum_start: 30, ..header };
    assert_eq!(refusal(header, &frame), Some(HeaderError::ProtocolMismatch));
}

#[test]
fn a_head_longer_than_the_stated_frame_is_refused() {
    let (frame, header) = Flow::tcp(true).large(&[0; 3000], 1000);
    for len in 0..74 {
        assert!(validate(&mut header.clone(), &frame[..PRIVATE_HEAD], len).is_err(), "{len}");
    }
}

#[test]
fn no_payload_to_cut() {
    for flow in [Flow::tcp(false), Flow::udp(true)] {
        let (frame, header) = flow.large(&[], 1000);
        assert_eq!(refusal(header, &frame), Some(HeaderError::GsoSize));
    }
    // Options that reach over the end of the frame.
    let (mut frame, header) = Flow::tcp(true).large(&[0; 10], 1000);
    frame[14 + 40 + 12] = 0xf0;
    assert_eq!(refusal(header, &frame), Some(HeaderError::HeadersTruncated));
}

#[test]
fn private_head_that_ends_early() {
    let flow = Flow::tcp(false);
    let (frame, header) = flow.large(&[0; 3000], 1000);
    for shown in 0..frame.len().min(PRIVATE_HEAD) {
        let mut header = header;
        let result = validate(&mut header, &frame[..shown], frame.len());
        let needed = flow.transport_at() + 20;
        assert_eq!(result.is_ok(), shown >= needed, "{shown}");
        if shown < needed {
            assert_eq!(result, Err(HeaderError::HeadersTruncated));
        }
    }
}

#[test]
fn more_than_ip_can_say() {
    // A length that agrees with its field modulo 2^16 is still no length.
    let (mut frame, header) = Flow::tcp(true).large(&[0; 1000], 1000);
    frame.resize(frame.len() + 0x1_0000, 0);
    assert_eq!(refusal(header, &frame), Some(HeaderError::LengthMismatch));
}

#[test]
fn greatest_headers_fit_the_private_head() {
    let mut flow = Flow::tcp(false);
    flow.tags = vec![(0x8100, 1); MAX_TAGS];
    flow.ip_options = vec![[1; 4]; 10];
    if let FlowTransport::Tcp(tcp) = &mut flow.transport {
        tcp.options = vec![[1; 4]; 10];
    }
    let (frame, header) = flow.large(&[0; 3000], 1000);
    assert_eq!(check(header, &frame), Ok((header, Offloads::TSO4 | Offloads::CSUM)));
    assert_eq!(header.hdr_len, 166);
}

/// What an accepted header promises: the fallbacks succeed and stay inside the frame.
fn use_accepted(header: VnetHeader, frame: &[u8]) {
    let mut frame = frame.to_vec();
    if header.is_gso() {
        let mut scratch = vec![0; usize::from(header.hdr_len) + usize::from(header.gso_size)];
        let mut total = 0;
        let count = segment(&frame, &header, &mut scratch, |bytes| {
            total += bytes.len() - usize::from(header.hdr_len);
        });
        assert_eq!(count, Ok(header.segments(frame.len())));
        assert_eq!(total, frame.len() - usize::from(header.hdr_len));
    } else if header.needs_csum() {
        let mut header = header;
        complete(&mut frame, &mut header);
        assert!(header.is_plain());
    }
}

proptest! {
    #[test]
    fn bytes_round_trip(header in any_header()) {
        prop_assert_eq!(VnetHeader::from_bytes(&header.to_bytes()), header);
    }

    #[test]
    fn anything_is_judged_without_panic(
        header in any_header(),
        frame in vec(any::<u8>(), 0..300),
        shown in 0usize..300,
        claimed in 0usize..70_000,
    ) {
        let mut copy = header;
        let _ = validate(&mut copy, &frame[..shown.min(frame.len())], claimed);
        let _ = segment(&frame, &header, &mut [0; 500], |_| ());
        if let Ok((accepted, _)) = check(header, &frame) {
            use_accepted(accepted, &frame);
        }
        complete(&mut frame.clone(), &mut copy);
    }

    /// Nearly right frames reach far deeper than random ones.
    #[test]
    fn damaged_frames_are_judged_without_panic(
        flow in Flow::any(),
        payload in vec(any::<u8>(), 0..1500),
        gso_size in prop_oneof![0u16..4, 100u16..1500, any::<u16>()],
        frame_damage in vec((0usize..150, any::<u8>()), 0..3),
        header_damage in vec((0usize..LEN, any::<u8>()), 0..2),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..200],
    ) {
        let (mut frame, header) = flow.large(&payload, gso_size);
        for (at, value) in frame_damage {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut);
        let mut bytes = header.to_bytes();
        for (at, value) in header_damage {
            bytes[at] = value;
        }
        let header = VnetHeader::from_bytes(&bytes);
        let by_head = check(header, &frame);
        let mut by_frame = header;
        let needs = validate(&mut by_frame, &frame, frame.len());
        prop_assert_eq!(by_head, needs.map(|needs| (by_frame, needs)));
        if let Ok((accepted, needs)) = by_head {
            // What was said once is what is said again.
            prop_assert_eq!(check(accepted, &frame), Ok((accepted, needs)));
            use_accepted(accepted, &frame);
        }
    }

    #[test]
    fn shift_follows_the_tag(
        flow in Flow::any(),
        payload in vec(any::<u8>(), 1..1500),
        only_csum: bool,
    ) {
        let mut flow = flow;
        flow.tags.truncate(MAX_TAGS - 1);
        let (frame, header) = flow.large(&payload, 500);
        let header =
            if only_csum { VnetHeader { gso_type: 0, gso_size: 0, hdr_len: 0, ..header } } else { header };
        let (before, needs) = check(header, &frame).unwrap();

        let mut room = vec![0; frame.len() + 4];
        let tag = VlanTag { tpid: 0x8100, tci: 7 };
        let pushed = retag::write(&frame, false, Some(tag), &mut room);
        let shifted = before.shifted(4);
        prop_assert_eq!(check(shifted, pushed), Ok((shifted, needs)));

        prop_assert_eq!(shifted.shifted(-4), before);
        let mut room = vec![0; frame.len()];
        prop_assert_eq!(retag::write(pushed, true, None, &mut room), &frame);
    }

    #[test]
    fn plain_headers_never_shift(delta in -20i16..20) {
        let mut header = VnetHeader::default();
        header.shift(delta);
        prop_assert_eq!(header, VnetHeader::default());
    }
}

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::gso;
use crate::testing::{Flow, FlowTransport};
use crate::vnet::validate;

/// A frame, and how many it was made of.
struct Made {
    frame: Vec<u8>,
    header: VnetHeader,
    count: usize,
}

/// Joins frames as a receiver does.
fn joined(frames: &[Vec<u8>]) -> Vec<Made> {
    let mut all = Vec::new();
    let mut rest = frames;
    while let Some((first, behind)) = rest.split_first() {
        let mut made = Made { frame: first.clone(), header: VnetHeader::default(), count: 1 };
        if let Some(mut merge) = Merge::begin(first) {
            while behind.get(made.count - 1).is_some_and(|next| merge.join(first, next)) {
                made.count += 1;
            }
            assert_eq!(merge.count(), made.count);
            made.header = merge.finish(&mut made.frame);
            for next in &behind[..made.count - 1] {
                made.frame.extend_from_slice(&next[merge.payload_start()..]);
            }
            assert_eq!(merge.frame_len(), made.frame.len());
        }
        rest = &behind[made.count - 1..];
        all.push(made);
    }
    all
}

fn cut(frame: &[u8], header: &VnetHeader) -> Vec<Vec<u8>> {
    let mut segments = vec![];
    let count = gso::segment(frame, header, &mut [0; 70_000], |bytes| segments.push(bytes.into()));
    count.map(|_| segments).unwrap_or_default()
}

/// The model: frames may become one if cutting that one gives them back.
fn may_be_one(frames: &[Vec<u8>]) -> bool {
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return false };
    let Some(Layout { ip_version, ip, transport, payload, .. }) = [Ip::V4, Ip::V6]
        .iter()
        .find_map(|it| Layout::parse(first, first.len(), Some(*it), Transport::Tcp).ok())
    else {
        return false;
    };
    if frames.iter().any(|it| it.len() <= payload) || first[transport + 13] & tcp_flag::CWR != 0 {
        return false;
    }
    let mut large = first.clone();
    frames[1..].iter().for_each(|it| large.extend_from_slice(&it[payload..]));
    large[transport + 13] = last[transport + 13];
    let (at, len, gso_type) = match ip_version {
        Ip::V4 => (ip + 2, large.len() - ip, GSO_TCPV4),
        Ip::V6 => (ip + 4, large.len() - transport, GSO_TCPV6),
    };
    let Ok(field) = u16::try_from(len) else { return false };
    large[at..at + 2].copy_from_slice(&field.to_be_bytes());
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type,
        hdr_len: payload as u16,
        gso_size: (first.len() - payload) as u16,
        csum_start: transport as u16,
        csum_offset: 16,
        num_buffers: 0,
    };
    large.len() - ip <= LONGEST && cut(&large, &header) == frames
}

/// As many frames at a time as may be one.
fn expected(frames: &[Vec<u8>]) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut done = 0;
    while done < frames.len() {
        let mut count = 1;
        while done + count < frames.len() && may_be_one(&frames[done..=done + count]) {
            count += 1;
        }
        counts.push(count);
        done += count;
    }
    counts
}

/// Checks that frames are joined where they may be, and that nothing else changes.
#[track_caller]
fn check(frames: &[Vec<u8>]) -> Vec<usize> {
    let made = joined(frames);
    let counts: Vec<usize> = made.iter().map(|it| it.count).collect();
    assert_eq!(counts, expected(frames));
    let mut again = Vec::new();
    for Made { frame, header, count } in made {
        if count == 1 {
            assert_eq!(header, VnetHeader::default());
            again.push(frame);
            continue;
        }
        let mut checked = header;
        validate(&mut checked, &frame, frame.len()).unwrap();
        assert_eq!(checked, header);
        // A receiver finds the sum of the pseudo-header in place of the checksum (virtio 1.2,
        // 5.1.6.2), so that summing up makes it right.
        let mut complete = frame.clone();
        checksum::complete(&mut complete, &mut checked);
        assert!(Merge::begin(&frame).is_none_or(|it| !it.is_intact(&frame)));
        let segment = &complete[usize::from(header.csum_start)..];
        let layout = Layout::of(&header, &frame, frame.len()).unwrap();
        let merge = Merge { layout, size: 1, payload: 1, count: 1, flags: 0, is_ended: false };
        assert!(merge.is_intact(&complete), "{} bytes of TCP", segment.len());
        again.extend(cut(&frame, &header));
    }
    assert!(again == frames);
    counts
}

fn segments(flow: &Flow, payload: &[u8], size: u16) -> Vec<Vec<u8>> {
    let (frame, header) = flow.large(payload, size);
    cut(&frame, &header)
}

#[test]
fn segments_of_a_large_frame_become_one_again() {
    for is_v6 in [false, true] {
        let whole = segments(&Flow::tcp(is_v6), &[7; 64_000], 1398);
        assert_eq!(check(&whole), [46]);
    }
}

#[test]
fn a_large_frame_is_no_longer_than_a_packet() {
    for is_v6 in [false, true] {
        let flow = Flow::tcp(is_v6);
        let mut all = segments(&flow, &[1; 60_000], 1000);
        let mut further = flow;
        let FlowTransport::Tcp(tcp) = &mut further.transport else { unreachable!() };
        tcp.sequence += 60_000;
        further.identification += 60;
        all.extend(segments(&further, &[2; 60_000], 1000));
        assert_eq!(check(&all), [65, 55]);
    }
}

#[test]
fn a_short_segment_is_the_last() {
    for is_v6 in [false, true] {
        let mut all = segments(&Flow::tcp(is_v6), &[1; 250], 100);
        let mut further = Flow::tcp(is_v6);
        let FlowTransport::Tcp(tcp) = &mut further.transport else { unreachable!() };
        tcp.sequence += 250;
        further.identification += 3;
        all.extend(segments(&further, &[2; 100], 50));
        assert_eq!(check(&all), [3, 2]);
    }
}

/// Segments of 100 bytes, and what is changed in the third.
fn with_change(change: impl Fn(&mut Flow, &mut Vec<u8>)) -> Vec<usize> {
    let frames = (0..5u16).map(|i| {
        let mut flow = Flow::tcp(false);
        flow.identification += i;
        let FlowTransport::Tcp(tcp) = &mut flow.transport else { unreachable!() };
        tcp.sequence += u32::from(i) * 100;
        let mut payload = vec![i as u8; 100];
        if i == 2 {
            change(&mut flow, &mut payload);
        }
        flow.frame(&payload)
    });
    check(&frames.collect::<Vec<_>>())
}

fn with_tcp(change: impl Fn(&mut crate::testing::FlowTcp)) -> Vec<usize> {
    with_change(|flow, _| {
        if let FlowTransport::Tcp(tcp) = &mut flow.transport {
            change(tcp);
        }
    })
}

#[test]
fn what_differs_ends_a_large_frame() {
    assert_eq!(with_change(|_, _| {}), [5]);
    assert_eq!(with_tcp(|tcp| tcp.psh = true), [3, 2]);
    assert_eq!(with_tcp(|tcp| tcp.fin = true), [3, 2]);
    assert_eq!(with_change(|_, payload| payload.truncate(99)), [3, 2]);
    assert_eq!(with_change(|_, payload| payload.push(0)), [2, 1, 2]);
    assert_eq!(with_change(|_, payload| payload.clear()), [2, 1, 2]);
    assert_eq!(with_tcp(|tcp| tcp.cwr = true), [2, 1, 2]);
    assert_eq!(with_tcp(|tcp| tcp.ece = true), [2, 1, 2]);
    assert_eq!(with_tcp(|tcp| tcp.window += 1), [2, 1, 2]);
    assert_eq!(with_tcp(|tcp| tcp.acknowledgement += 1), [2, 1, 2]);
    assert_eq!(with_tcp(|tcp| tcp.sequence += 1), [2, 1, 2]);
    assert_eq!(with_tcp(|tcp| tcp.options.push([1; 4])), [2, 1, 2]);
    assert_eq!(with_change(|flow, _| flow.identification += 1), [2, 1, 2]);
    assert_eq!(with_change(|flow, _| flow.ports.0 += 1), [2, 1, 2]);
    assert_eq!(with_change(|flow, _| flow.tags.push((0x8100, 7))), [2, 1, 2]);
    assert_eq!(with_change(|flow, _| flow.ip_options.push([1; 4])), [2, 1, 2]);
}

#[test]
fn a_wrong_checksum_is_left_to_the_receiver() {
    for is_v6 in [false, true] {
        let flow = Flow::tcp(is_v6);
        for broken in [0, 1, 3] {
            let mut all = segments(&flow, &[3; 500], 100);
            *all[broken].last_mut().unwrap() ^= 1;
            let counts = check(&all);
            assert!(counts.contains(&1) && counts.len() > 1, "{counts:?}");
        }
    }
    let mut all = segments(&Flow::tcp(false), &[3; 200], 100);
    all[1][14 + 10] ^= 1;
    assert_eq!(check(&all), [1, 1]);
}

/// A change of a byte of one of the frames.
fn any_change() -> impl Strategy<Value = (Index, Index, u8)> {
    // Mostly within the headers.
    (any::<Index>(), any::<Index>(), prop_oneof![Just(1u8), Just(0x80), any::<u8>()])
}

/// Makes the TCP checksum right again.
fn mend(frame: &mut [u8]) {
    let Some(merge) = Merge::begin(frame) else { return };
    let (ip, tcp) = frame.split_at_mut(merge.layout.transport);
    let ip = &mut ip[merge.layout.ip..];
    if merge.layout.ip_version == Ip::V4 {
        put16(ip, 10, ipv4_checksum(ip));
    }
    let sum = merge.pseudo_sum(ip, tcp.len()) + sum_all(&[&tcp[..16], &tcp[18..]]);
    put16(tcp, 16, !fold(sum));
}

proptest! {
    #[test]
    fn cutting_gives_back_what_was_joined(
        flow in Flow::any(),
        payload in vec(any::<u8>(), 1..4000),
        size in 1u16..1500,
        changes in vec(any_change(), 0..4),
        mends: bool,
    ) {
        let payload = &payload[..payload.len().min(60 * usize::from(size))];
        let mut all = segments(&flow, payload, size);
        for (frame, at, bits) in changes {
            let place = frame.index(all.len());
            let len = all[place].len().min(flow.payload_at() + 2);
            all[place][at.index(len)] ^= bits;
            if mends {
                mend(&mut all[place]);
            }
        }
        check(&all);
    }

    #[test]
    fn any_bytes_are_left_as_they_are(all in vec(vec(any::<u8>(), 0..200), 1..8)) {
        check(&all);
    }

    /// What begins as a frame, and ends anywhere.
    #[test]
    fn truncated_frames_are_left_as_they_are(flow in Flow::any(), len: Index, repeat in 1..4usize) {
        let frame = flow.frame(&[5; 60]);
        let frame = frame[..len.index(frame.len())].to_vec();
        check(&vec![frame; repeat]);
    }
}

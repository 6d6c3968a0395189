//! One frame: its headers, its tag, its offloads.

use trama_frame::ethernet::{self, ETHERTYPE_QINQ, ETHERTYPE_VLAN};
use trama_frame::gro::Merge;
use trama_frame::vnet::{self, PRIVATE_HEAD, validate};
use trama_frame::{VlanTag, VnetHeader, gso, retag, vxlan};

use super::packets::mend_checksums;
use crate::input::Input;

/// A virtio-net header, then the frame.
pub(super) fn frames(bytes: &[u8]) {
    let mut input = Input(bytes);
    let header = VnetHeader::from_bytes(&input.array());
    let frame = input.rest();
    let head = &frame[..frame.len().min(PRIVATE_HEAD)];
    let _ = vxlan::parse(frame);
    if let Some((at, _)) = ethernet::behind_tags(head) {
        assert!(at <= head.len(), "the payload begins behind the frame");
    }
    let Some(parsed) = ethernet::parse(head) else { return };
    assert!(parsed.header_len() <= head.len(), "the header is longer than the frame");
    retagged(head, parsed.tag);
    offloaded(header, head, frame);
}

/// A tag that was written is read again, and taking it off gives back the frame.
fn retagged(head: &[u8], old: Option<VlanTag>) {
    let mut room = [0; PRIVATE_HEAD + 4];
    for tpid in [ETHERTYPE_VLAN, ETHERTYPE_QINQ] {
        let tag = VlanTag { tpid, tci: 0x2fff };
        let written = retag::write(head, old.is_some(), Some(tag), &mut room);
        assert_eq!(ethernet::parse(written).and_then(|it| it.tag), Some(tag));
        let mut again = [0; PRIVATE_HEAD + 4];
        assert_eq!(retag::write(written, true, old, &mut again), head);
    }
}

fn offloaded(mut header: VnetHeader, head: &[u8], frame: &[u8]) {
    let Ok(needed) = validate(&mut header, head, frame.len()) else { return };
    let mut twice = header;
    assert_eq!(validate(&mut twice, head, frame.len()), Ok(needed));
    assert_eq!(twice, header, "a checked header changes when it is checked again");
    if header.needs_csum() {
        let field = usize::from(header.csum_start) + usize::from(header.csum_offset);
        assert!(field + 2 <= frame.len(), "the checksum lies behind the frame");
    }
    if !header.is_gso() {
        return;
    }
    let (headers, mut scratch) = (usize::from(header.hdr_len), vec![0; 2 * 65536]);
    let (mut count, mut payload) = (0, 0);
    let cut = gso::segment(frame, &header, &mut scratch, |segment| {
        count += 1;
        payload += segment.len() - headers;
        assert!(segment.len() <= headers + usize::from(header.gso_size));
    });
    assert_eq!(cut, Ok(count));
    assert_eq!(payload, frame.len() - headers, "segments lose or add bytes");
    assert_eq!(header.segments(frame.len()), count);
}

/// Most frames of an input.
const MOST_JOINED: usize = 100;

/// Frames one after the other, which are joined where they can be: cutting what was joined gives
/// them back.
pub(super) fn joined(bytes: &[u8]) {
    let mut input = Input(bytes);
    let are_mended = input.byte() & 1 == 0;
    let mut frames = Vec::new();
    while !input.is_empty() && frames.len() < MOST_JOINED {
        let mut frame = input.piece().to_vec();
        if are_mended {
            mend_checksums(&mut frame);
        }
        frames.push(frame);
    }
    let mut left = &frames[..];
    while let [first, rest @ ..] = left {
        let Some(mut merge) = Merge::begin(first) else {
            left = rest;
            continue;
        };
        let count = 1 + rest.iter().take_while(|next| merge.join(first, next)).count();
        assert_eq!(merge.count(), count);
        check_joined(&merge, &left[..count]);
        left = &left[count..];
    }
}

fn check_joined(merge: &Merge, frames: &[Vec<u8>]) {
    let mut large = frames[0].clone();
    let header = merge.finish(&mut large);
    if frames.len() == 1 {
        assert_eq!((header, &large), (VnetHeader::default(), &frames[0]));
        return;
    }
    frames[1..].iter().for_each(|it| large.extend_from_slice(&it[merge.payload_start()..]));
    assert_eq!(large.len(), merge.frame_len());
    let mut checked = header;
    let valid = validate(&mut checked, &large[..large.len().min(PRIVATE_HEAD)], large.len());
    assert!(valid.is_ok(), "frames were joined with a wrong header: {valid:?}");
    let (mut cut, mut scratch) = (Vec::new(), vec![0; 2 * 65536]);
    let result = gso::segment(&large, &header, &mut scratch, |it| cut.push(it.to_vec()));
    assert_eq!(result, Ok(frames.len()));
    assert_eq!(cut, frames, "other frames than were joined");
}

pub(super) mod seeds {
    use etherparse::PacketBuilder;

    use super::super::packets::{GATEWAY, GUEST, arp, pings, tcp4, udp4, udp6};
    use super::*;
    use crate::input::put_piece;

    /// Segments of a TCP flow that follow each other, the last one shorter.
    pub(in super::super) fn segments(is_v4: bool) -> Vec<Vec<u8>> {
        let builder = PacketBuilder::ethernet2(GUEST, GATEWAY);
        let builder = match is_v4 {
            true => builder.ipv4([10, 0, 2, 15], [10, 0, 2, 1], 64),
            false => builder.ipv6([0xfd; 16], [0xfc; 16], 64),
        };
        let builder = builder.tcp(4000, 80, 1000, 60_000).ack(7).psh();
        let mut large = Vec::new();
        builder.write(&mut large, &[5; 1030]).unwrap();
        let transport = if is_v4 { 34 } else { 54 };
        let header = VnetHeader {
            flags: vnet::NEEDS_CSUM,
            gso_type: if is_v4 { vnet::GSO_TCPV4 } else { vnet::GSO_TCPV6 },
            hdr_len: transport + 20,
            gso_size: 100,
            csum_start: transport,
            csum_offset: 16,
            num_buffers: 0,
        };
        let (mut cut, mut scratch) = (Vec::new(), vec![0; 2 * 65536]);
        gso::segment(&large, &header, &mut scratch, |it| cut.push(it.to_vec())).unwrap();
        cut
    }

    pub(in super::super) fn joined() -> Vec<Vec<u8>> {
        let other = [arp(1, [10, 0, 2, 1]), udp6([0xfd; 16], 53, b"plain")];
        let all = [&segments(true)[..], &other, &segments(false)].concat();
        let seed = |mode: u8, frames: &[Vec<u8>]| {
            let mut seed = vec![mode];
            frames.iter().for_each(|it| put_piece(&mut seed, it));
            seed
        };
        vec![seed(0, &all), seed(1, &all), seed(0, &segments(false))]
    }

    pub(in super::super) fn frames() -> Vec<Vec<u8>> {
        let large = |flags: u8, gso_type: u8, gso_size: u16, frame: Vec<u8>, field: u16| {
            let header = VnetHeader {
                flags,
                gso_type,
                hdr_len: frame.len().min(54) as u16,
                gso_size,
                csum_start: 34,
                csum_offset: field,
                num_buffers: 0,
            };
            [&header.to_bytes()[..], &frame].concat()
        };
        let mut tcp = tcp4([10, 0, 2, 1], 80, (false, true, false));
        tcp.extend_from_slice(&[7; 200]);
        let mut tagged = udp4([10, 0, 2, 1], 80, b"tagged");
        tagged.splice(12..12, [0x81, 0, 0x20, 5]);
        let mut twice = tagged.clone();
        twice.splice(12..12, [0x88, 0xa8, 0, 9]);
        let [v4, v6] = pings([10, 0, 2, 1], [0xfd; 16]);
        let vni = vxlan::Vni::new(77).unwrap();
        vec![
            large(0, 0, 0, udp4([10, 0, 2, 1], 53, b"plain"), 0),
            large(vnet::NEEDS_CSUM, 0, 0, udp4([10, 0, 2, 1], 53, b"sum"), 6),
            large(vnet::NEEDS_CSUM, vnet::GSO_TCPV4, 50, tcp.clone(), 16),
            large(vnet::NEEDS_CSUM, vnet::GSO_TCPV4 | vnet::GSO_ECN, 7, tcp, 16),
            large(vnet::NEEDS_CSUM, vnet::GSO_UDP_L4, 20, udp4([10, 0, 2, 1], 9, &[5; 300]), 6),
            large(0, 0, 0, udp6([0xfd; 16], 53, b"plain"), 0),
            large(0, 0, 0, tagged, 0),
            large(0, 0, 0, twice, 0),
            large(0, 0, 0, v4, 0),
            large(0, 0, 0, [&vxlan::header(vni)[..], &v6].concat(), 0),
        ]
    }
}

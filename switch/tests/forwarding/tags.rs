//! Frames with several VLAN tags: large ones, those at the MTU, truncated chains of tags.

use trama_frame::ethernet::MAX_TAGS;

use super::*;

/// Returns S-tag and C-tags in turn, the outermost of VLAN 10.
fn stack(count: usize) -> Vec<VlanTag> {
    let tag = |i: usize| VlanTag { tpid: [0x88a8, 0x8100][i % 2], tci: 10 + i as u16 };
    (0..count).map(tag).collect()
}

/// Returns the frame with these tags, outermost first.
fn with_tags(tags: &[VlanTag], untagged: &[u8]) -> Vec<u8> {
    tags.iter().rfold(untagged.to_vec(), |frame, tag| tagged(*tag, &frame))
}

fn moved(header: VnetHeader, tags: usize) -> VnetHeader {
    let mut header = header;
    header.shift(4 * tags as i16);
    header
}

#[test]
fn large_frames_pass_or_are_cut_behind_as_many_tags_as_there_may_be() {
    let mut lab = Lab::new(&[trunk(), trunk(), access(10)]);
    let bare = Station::add(&mut lab.engine, port(lab.network, trunk()), Offloads::NONE);
    let popped = Station::add(&mut lab.engine, port(lab.network, access(10)), Offloads::NONE);
    let large = tcp_frame(14_001);
    for count in 1..=MAX_TAGS {
        let tags = stack(count);
        let bytes = with_tags(&tags, &large);
        lab.stations[0].handle.inject(moved(needs_segmentation(), count), &bytes).unwrap();
        lab.settle();
        let got = lab.stations[1].handle.captured();
        assert_eq!((got[0].header, &got[0].bytes), (moved(needs_segmentation(), count), &bytes));
        let got = lab.stations[2].handle.captured();
        let expected = with_tags(&tags[1..], &large);
        assert_eq!(
            (got[0].header, &got[0].bytes),
            (moved(needs_segmentation(), count - 1), &expected)
        );
        for (station, tags) in [(&bare, &tags[..]), (&popped, &tags[1..])] {
            let got = station.handle.captured();
            assert_eq!(got.len(), 11, "{count} tags");
            let headers = with_tags(tags, &large[..54]);
            for each in &got {
                assert!(each.header.is_plain() && tcp_checksum_ok(&each.bytes), "{count} tags");
                assert_eq!(each.bytes[12..12 + 4 * tags.len()], headers[12..12 + 4 * tags.len()]);
            }
            let payload: Vec<u8> =
                got.iter().flat_map(|each| each.bytes[headers.len()..].to_vec()).collect();
            assert_eq!(payload, large[54..]);
        }
    }
    assert_eq!(lab.stations[0].counters.snapshot().dropped_total(), 0);
    // An access port's guest sends priority-tagged frames; the tag gets the VID of the VLAN.
    let own = [&[c_tag(0xa000)], &stack(3)[1..]].concat();
    let bytes = with_tags(&own, &large);
    lab.stations[2].handle.inject(moved(needs_segmentation(), 3), &bytes).unwrap();
    lab.settle();
    let got = lab.stations[1].handle.captured();
    let expected = with_tags(&[&[c_tag(0xa00a)], &stack(3)[1..]].concat(), &large);
    assert_eq!((got[0].header, &got[0].bytes), (moved(needs_segmentation(), 3), &expected));
    assert!(bare.frames().iter().all(|bytes| tcp_checksum_ok(bytes)));

    // A checksum alone is completed behind any number of tags.
    for count in [2, 3, MAX_TAGS, 20] {
        let bytes = with_tags(&stack(count), &tcp_frame(101));
        lab.stations[0].handle.inject(moved(needs_checksum(), count), &bytes).unwrap();
        lab.settle();
        let got = lab.stations[1].handle.captured();
        assert_eq!((got[0].header, &got[0].bytes), (moved(needs_checksum(), count), &bytes));
        let [done] = &bare.frames()[..] else { panic!("{count} tags: not one frame") };
        assert_eq!(done[..12 + 4 * count], bytes[..12 + 4 * count]);
        if count <= MAX_TAGS {
            assert!(tcp_checksum_ok(done), "{count} tags");
        }
    }
    // More tags than are parsed: the frame cannot be segmented.
    for count in [MAX_TAGS + 1, 20] {
        let bytes = with_tags(&stack(count), &large);
        lab.stations[0].handle.inject(moved(needs_segmentation(), count), &bytes).unwrap();
    }
    lab.settle();
    assert!(lab.stations[1].frames().is_empty());
    assert_eq!(lab.dropped(0, DropReason::HeaderMalformed), 2);
}

#[test]
fn no_tag_counts_against_the_mtu() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let largest = frame(MacAddr::BROADCAST, mac(1), 1514);
    let longer = frame(MacAddr::BROADCAST, mac(1), 1515);
    for count in 0..=MAX_TAGS {
        let bytes = with_tags(&stack(count), &largest);
        assert_eq!(lab.send(0, &bytes)[1], [bytes], "{count} tags");
        lab.send(0, &with_tags(&stack(count), &longer));
        assert_eq!(lab.dropped(0, DropReason::MtuExceeded), count as u64 + 1, "{count} tags");
    }
    // Further tags are payload.
    let before = lab.dropped(0, DropReason::MtuExceeded);
    assert!(nothing(&lab.send(0, &with_tags(&stack(MAX_TAGS + 1), &largest))));
    assert_eq!(lab.dropped(0, DropReason::MtuExceeded), before + 1);
    let bytes = with_tags(&stack(20), &frame(MacAddr::BROADCAST, mac(1), 1514 - 12 * 4));
    assert_eq!(lab.send(0, &bytes)[1], [bytes]);

    // For a large frame the size of each resulting segment counts.
    for (gso_size, passes) in [(1460, true), (1461, false)] {
        for count in [1, 2, 3, MAX_TAGS] {
            let header = VnetHeader { gso_size, ..moved(needs_segmentation(), count) };
            let bytes = with_tags(&stack(count), &tcp_frame(4000));
            lab.stations[0].handle.inject(header, &bytes).unwrap();
            lab.settle();
            assert_eq!(!lab.stations[1].frames().is_empty(), passes, "{count} tags, {gso_size}");
        }
    }
}

#[test]
fn a_tag_chain_that_ends_early_is_carried_as_it_is_or_refused() {
    let mut lab = Lab::new(&[trunk(), trunk()]);
    let all_tags = with_tags(&stack(20), &frame(MacAddr::BROADCAST, mac(1), 14));
    for len in 18..all_tags.len() {
        let bytes = &all_tags[..len];
        assert_eq!(lab.send(0, bytes)[1], [bytes], "{len} bytes");
        lab.stations[0].handle.inject(moved(needs_segmentation(), 2), bytes).unwrap();
        lab.settle();
        assert!(lab.stations[1].frames().is_empty(), "{len} bytes");
    }
    let refused = lab.dropped(0, DropReason::HeaderMalformed);
    assert_eq!(refused as usize, all_tags.len() - 18);
}

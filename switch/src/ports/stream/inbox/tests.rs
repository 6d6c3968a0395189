use proptest::prelude::*;

use super::*;

/// What a stream says, read slowly from all of its bytes.
#[derive(Debug, PartialEq, Default)]
struct Heard {
    frames: Vec<Vec<u8>>,
    bad_length: Option<u32>,
    ends_within_frame: bool,
}

fn model(stream: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut at = 0;
    while at + 4 <= stream.len() {
        let length = u32::from_be_bytes(stream[at..at + 4].try_into().unwrap());
        if !(14..=65_550).contains(&length) {
            heard.bad_length = Some(length);
            break;
        }
        let end = at + 4 + length as usize;
        if end > stream.len() {
            break;
        }
        heard.frames.push(stream[at + 4..end].to_vec());
        at = end;
    }
    heard.ends_within_frame = at != stream.len();
    heard
}

/// Reads a stream that arrives in pieces of these sizes, again and again.
fn read(stream: &[u8], pieces: &[usize]) -> Heard {
    let (mut inbox, mut heard) = (Inbox::new(), Heard::default());
    let mut rest = stream;
    let mut pieces = pieces.iter().cycle();
    loop {
        let count = inbox.next_burst();
        let frames = (0..count).map(|i| {
            assert!(inbox.head(i).len() == inbox.frame_len(i).min(PRIVATE_HEAD));
            inbox.with_frame(i, |head, body| {
                let mut frame = vec![0; inbox.frame_len(i)];
                frame[..head.len()].copy_from_slice(head);
                let mut at = head.len();
                body.iter().for_each(|it| at += it.copy_to(&mut frame[at..]));
                assert_eq!(at, frame.len());
                frame
            })
        });
        heard.frames.extend(frames);
        if count > 0 {
            continue;
        }
        heard.bad_length = inbox.bad_length();
        heard.ends_within_frame = inbox.is_within_frame();
        if heard.bad_length.is_some() || rest.is_empty() {
            return heard;
        }
        let room = inbox.room();
        assert!(!room.is_empty(), "nothing more can be read");
        let piece = pieces.next().map_or(1, |piece| (*piece).max(1));
        let (now, later) = rest.split_at(piece.min(room.len()).min(rest.len()));
        room[..now.len()].copy_from_slice(now);
        inbox.filled(now.len());
        rest = later;
    }
}

/// Frames with their lengths in front of them; some lengths are wrong.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        20 => 14u32..=200,
        5 => 1000u32..=9000,
        1 => 65_000u32..=65_550,
        1 => prop_oneof![0u32..=14, 65_550u32..=65_552, any::<u32>()],
    ];
    let frame = (length, any::<u8>()).prop_map(|(length, fill)| {
        let mut bytes = length.to_be_bytes().to_vec();
        let contents = (0..length.min(70_000)).map(|i| fill.wrapping_add(i as u8));
        bytes.extend(contents);
        bytes
    });
    let cut = any::<prop::sample::Index>();
    (prop::collection::vec(frame, 1..150), cut).prop_map(|(frames, cut)| {
        let mut bytes = frames.concat();
        // The peer may end anywhere.
        bytes.truncate(cut.index(2 * bytes.len()).max(1));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_stream_cut_anywhere_has_the_same_frames_and_the_same_end(
        stream in stream(),
        pieces in prop::collection::vec(prop_oneof![1usize..10, 10usize..3000, 100_000usize..200_000], 1..20),
    ) {
        prop_assert_eq!(read(&stream, &pieces), model(&stream));
    }

    #[test]
    fn any_bytes_are_frames_or_end_the_stream(
        stream in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..2000),
        pieces in prop::collection::vec(1usize..50, 1..20),
    ) {
        prop_assert_eq!(read(&stream, &pieces), model(&stream));
    }
}

#[test]
fn a_burst_has_no_more_frames_than_a_ring_gives() {
    let frame = [&14u32.to_be_bytes()[..], &[7; 14]].concat();
    let mut inbox = Inbox::new();
    let bytes = frame.repeat(100);
    inbox.room()[..bytes.len()].copy_from_slice(&bytes);
    inbox.filled(bytes.len());
    assert_eq!((inbox.next_burst(), inbox.next_burst(), inbox.next_burst()), (64, 36, 0));
}

//! Every chain of a small ring, and every way to split the header over descriptors.

use trama_virtqueue::{
    HEADER_LEN, PushError, RingError, RingFeatures, RingSetup, RxQueue, TxBurst, TxQueue,
};

use super::differential::bytes_of;
use super::image::{C, Desc, INDIRECT, Image, NEXT, TABLES, WRITE};

/// Features of rings with either header.
const LONG: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: true,
    in_order: false,
    mergeable: false,
    short_header: false,
};
const SHORT: RingFeatures = RingFeatures { short_header: true, ..LONG };
const BOTH: [(RingFeatures, usize); 2] = [(LONG, 12), (SHORT, 10)];

/// A chain as the specification defines it.
#[derive(Debug, PartialEq, Eq)]
enum Chain {
    Bytes(Vec<u8>),
    /// Completed without being read.
    Malformed,
    /// A loop, which breaks the ring.
    Endless,
}

/// Follows a chain from `table[index]`. `inner` is the indirect table, unless `table` is.
fn model(image: &Image, table: &[Desc], inner: Option<&[Desc]>, mut index: usize) -> Chain {
    let mut bytes = vec![];
    for _ in 0..table.len() {
        let Some(desc) = table.get(index) else { return Chain::Malformed };
        if desc.flags & INDIRECT != 0 {
            // Only as the last descriptor, and never within a table.
            let Some(inner) = inner.filter(|_| desc.flags & NEXT == 0) else {
                return Chain::Malformed;
            };
            return match model(image, inner, None, 0) {
                Chain::Bytes(rest) => Chain::Bytes([bytes, rest].concat()),
                other => other,
            };
        }
        if desc.flags & WRITE != 0 || !Image::mapped(desc.addr, desc.len) {
            return Chain::Malformed;
        }
        if desc.len > 0 {
            bytes.extend(image.read(desc.addr, desc.len as usize));
        }
        if desc.flags & NEXT == 0 {
            return Chain::Bytes(bytes);
        }
        index = usize::from(desc.next);
    }
    if index < table.len() { Chain::Endless } else { Chain::Malformed }
}

/// Returns the chain as the device must see it with a header of `header_len` bytes.
fn with_header(chain: &Chain, header_len: usize) -> Chain {
    match chain {
        Chain::Bytes(bytes) if bytes.len() >= header_len => Chain::Bytes(bytes.clone()),
        Chain::Endless => Chain::Endless,
        _ => Chain::Malformed,
    }
}

/// Returns the device side's view of the next chain.
fn fetch(setup: &RingSetup, burst: &mut TxBurst) -> Chain {
    let mut queue = TxQueue::new(setup.clone()).unwrap();
    match queue.fetch(burst, 1) {
        Ok(1) if burst.error(0).is_some() => {
            assert_eq!(burst.frame_len(0), 0);
            assert_eq!(burst.head(0), []);
            assert!(burst.body(0).is_empty());
            Chain::Malformed
        }
        Ok(1) => Chain::Bytes(bytes_of(burst, 0, setup.features.header_len())),
        Err(RingError::ChainTooLong) => {
            assert_eq!(queue.next(), setup.next);
            assert_eq!(queue.pending(), Err(RingError::ChainTooLong));
            Chain::Endless
        }
        other => panic!("{other:?}"),
    }
}

/// Checks all tables of `size` descriptors made of `choices`, each from every head.
fn check_all(size: u16, choices: &[Desc], inner: &[Desc]) {
    let image = Image::new(size);
    for (i, desc) in inner.iter().enumerate() {
        image.write(TABLES + 16 * i as u64, &desc.bytes());
    }
    let setups = BOTH.map(|(features, header_len)| (image.setup(0, features), header_len));
    let mut burst = TxBurst::new();
    let mut table = vec![Desc { flags: 0xffff, ..Desc::default() }; usize::from(size)];
    for case in 0..choices.len().pow(u32::from(size)) {
        let mut rest = case;
        for (i, entry) in table.iter_mut().enumerate() {
            let desc = choices[rest % choices.len()];
            rest /= choices.len();
            if *entry != desc {
                *entry = desc;
                image.set_desc(i as u16, desc);
            }
        }
        for head in 0..size {
            image.set_avail(0, &[head]);
            let chain = model(&image, &table, Some(inner), usize::from(head));
            for (setup, header_len) in &setups {
                let expected = with_header(&chain, *header_len);
                assert_eq!(fetch(setup, &mut burst), expected, "{table:?} from {head}");
            }
        }
    }
}

/// Returns descriptors with each of the lengths and addresses, and each way to continue.
fn choices(size: u16, lens: &[u32], addrs: &[u64]) -> Vec<Desc> {
    let mut choices = vec![];
    for &addr in addrs {
        for &len in lens {
            for next in 0..=size {
                choices.push(Desc { addr, len, flags: NEXT, next });
            }
            for flags in [0, WRITE, WRITE | NEXT] {
                choices.push(Desc { addr, len, flags, next: 0 });
            }
        }
    }
    for (len, flags) in [(32, 0), (32, NEXT), (32, WRITE), (16, 0), (0, 0), (33, 0)] {
        choices.push(Desc { addr: TABLES, len, flags: INDIRECT | flags, next: 0 });
    }
    choices
}

// spec-test: virtio writable-not-read indirect-write-flag indirect-last
#[test]
fn every_chain_of_two_descriptors() {
    let inner = |a: (u16, u16), b: (u16, u16)| {
        [a, b].map(|(flags, next)| Desc { addr: C + 7, len: 9, flags, next })
    };
    let tables = [
        inner((NEXT, 1), (0, 0)),
        inner((NEXT, 0), (0, 0)),
        inner((NEXT, 1), (NEXT, 0)),
        inner((NEXT, 1), (INDIRECT, 0)),
        inner((NEXT, 2), (0, 0)),
        inner((WRITE, 0), (0, 0)),
    ];
    let choices = choices(2, &[0, 5, 10, 12, 90], &[C, C - 3, u64::MAX]);
    for table in tables {
        check_two(&choices, &table);
    }
}

/// Checks tables of two descriptors, except those that refer to part of the inner one by a length
/// that the model does not know.
fn check_two(choices: &[Desc], inner: &[Desc]) {
    let usable: Vec<_> = choices
        .iter()
        .copied()
        .filter(|desc| desc.flags & INDIRECT == 0 || desc.len == 32)
        .collect();
    check_all(2, &usable, inner);
}

#[test]
fn every_chain_of_four_descriptors() {
    let inner = [Desc { addr: C, len: 20, flags: 0, next: 0 }];
    let mut choices = choices(4, &[5, 40], &[C + 1]);
    choices.retain(|desc| desc.flags & INDIRECT == 0 && desc.flags != WRITE | NEXT);
    choices.push(Desc { addr: TABLES, len: 16, flags: INDIRECT, next: 0 });
    check_all(4, &choices, &inner);
}

#[test]
fn indirect_tables_have_a_length() {
    let image = Image::new(2);
    let mut burst = TxBurst::new();
    for i in 0..256u16 {
        let next = if i < 255 { NEXT } else { 0 };
        let desc = Desc { addr: C, len: 1, flags: next, next: i + 1 };
        image.write(TABLES + 0x1000 + 16 * u64::from(i), &desc.bytes());
    }
    image.set_avail(0, &[0]);
    let mut error = |len: u32, indirect: bool| {
        let desc = Desc { addr: TABLES + 0x1000, len, flags: INDIRECT, next: 0 };
        image.set_desc(0, desc);
        let mut queue = TxQueue::new(image.setup(0, RingFeatures { indirect, ..LONG })).unwrap();
        assert_eq!(queue.fetch(&mut burst, 1), Ok(1));
        burst.error(0)
    };
    assert_eq!(error(16 * 256, true), None);
    assert_eq!(error(16 * 257, true), Some(RingError::IndirectLength));
    assert_eq!(error(16 * 256 - 1, true), Some(RingError::IndirectLength));
    assert_eq!(error(0, true), Some(RingError::IndirectLength));
    assert_eq!(error(16 * 255, true), Some(RingError::DescriptorOutOfRange));
    assert_eq!(error(16 * 256, false), Some(RingError::IndirectNotNegotiated));
}

#[test]
fn a_table_does_not_refer_to_another() {
    let image = Image::new(2);
    let mut burst = TxBurst::new();
    let indirect = |addr| Desc { addr, len: 16, flags: INDIRECT, next: 0 };
    image.write(TABLES + 16, &Desc { addr: C, len: 80, flags: 0, next: 0 }.bytes());
    image.set_desc(0, indirect(TABLES));
    image.set_avail(0, &[0]);
    for (inner, expected) in [
        (Desc { addr: C, len: 80, flags: 0, next: 0 }, None),
        (indirect(TABLES + 16), Some(RingError::NestedIndirect)),
        (indirect(TABLES), Some(RingError::NestedIndirect)),
    ] {
        image.write(TABLES, &inner.bytes());
        let mut queue = TxQueue::new(image.setup(0, LONG)).unwrap();
        assert_eq!(queue.fetch(&mut burst, 1), Ok(1));
        assert_eq!(burst.error(0), expected);
    }
}

/// Returns one way to cut the header's bytes: bit `i` of `cuts` cuts after byte `i + 1`.
fn header_parts(header_len: usize, cuts: u32) -> Vec<u32> {
    let mut pieces = vec![];
    let mut start = 0;
    for end in 1..=header_len as u32 {
        if end == header_len as u32 || cuts >> (end - 1) & 1 == 1 {
            pieces.push(end - start);
            start = end;
        }
    }
    pieces
}

/// Puts a chain of these lengths into the table, with gaps between the buffers; returns the
/// addresses of its bytes.
fn lay_out(image: &Image, lens: &[u32], flags: u16) -> Vec<u64> {
    let (mut at, mut places) = (C + 1, vec![]);
    for (i, &len) in lens.iter().enumerate() {
        let more = if i + 1 < lens.len() { NEXT } else { 0 };
        image.set_desc(i as u16, Desc { addr: at, len, flags: flags | more, next: i as u16 + 1 });
        places.extend(at..at + u64::from(len));
        at += u64::from(len) + 3;
    }
    image.set_avail(0, &[0]);
    places
}

/// Adds the frame after the header pieces: in a separate descriptor, or in the last piece's.
fn with_frame(mut lens: Vec<u32>, frame: u32, separate: bool) -> Vec<u32> {
    match lens.last_mut() {
        Some(last) if !separate => *last += frame,
        _ => lens.push(frame),
    }
    lens
}

// spec-test: virtio any-framing
#[test]
fn every_split_of_the_header() {
    for (features, header_len) in BOTH {
        let image = Image::new(16);
        let setup = image.setup(0, features);
        for cuts in 0..1 << (header_len - 1) {
            for separate in [true, false] {
                let lens = with_frame(header_parts(header_len, cuts), 60, separate);
                check_fetch(&image, &setup, &lens);
                check_push(&image, &setup, &lens);
            }
        }
    }
}

/// Checks that a frame of 60 bytes in descriptors of these lengths is taken whole.
fn check_fetch(image: &Image, setup: &RingSetup, lens: &[u32]) {
    let mut burst = TxBurst::new();
    let places = lay_out(image, lens, 0);
    let mut queue = TxQueue::new(setup.clone()).unwrap();
    assert_eq!(queue.fetch(&mut burst, 1), Ok(1));
    assert_eq!(burst.error(0), None);
    assert_eq!(burst.head(0).len(), 60);
    let bytes: Vec<u8> = places.iter().map(|at| (at % 251) as u8).collect();
    assert_eq!(bytes_of(&burst, 0, setup.features.header_len()), bytes, "{lens:?}");
}

/// Checks that a frame of 60 bytes fills exactly the descriptors of these lengths; bytes missing
/// from a short header are not written.
fn check_push(image: &Image, setup: &RingSetup, lens: &[u32]) {
    let places = lay_out(image, lens, WRITE);
    let near = || image.read(C, 0x400);
    let before = near();
    let mut queue = RxQueue::new(setup.clone()).unwrap();
    let (mut header, frame) = ([0xa5; HEADER_LEN], [0x5a; 60]);
    queue.push(&header, &frame[..30], &[frame[30..].into()]).unwrap();
    [header[10], header[11]] = [1, 0];
    let header = &header[..setup.features.header_len()];
    let (mut after, written) = (near(), [header, &frame].concat());
    for (at, byte) in places.iter().map(|at| (at - C) as usize).zip(&written) {
        assert_eq!(after[at], *byte, "{lens:?}");
        after[at] = before[at];
    }
    assert!(after == before, "{lens:?} wrote outside its buffers");
    queue.publish();
    assert_eq!(image.used(0), (0, written.len() as u32), "{lens:?}");
    places.iter().for_each(|at| image.write(*at, &[(at % 251) as u8]));
}

#[test]
fn chains_shorter_than_the_header() {
    let image = Image::new(16);
    let mut burst = TxBurst::new();
    for (features, header_len) in BOTH {
        let setup = image.setup(0, features);
        for len in 0..header_len as u32 {
            for lens in [vec![len], vec![0, len], vec![len / 2, len - len / 2]] {
                lay_out(&image, &lens, 0);
                let mut queue = TxQueue::new(setup.clone()).unwrap();
                assert_eq!(queue.fetch(&mut burst, 1), Ok(1));
                assert_eq!(burst.error(0), Some(RingError::HeaderTooShort));

                lay_out(&image, &lens, WRITE);
                let mut queue = RxQueue::new(setup.clone()).unwrap();
                let broken = Err(PushError::Broken(RingError::HeaderTooShort));
                assert_eq!(queue.push(&[0; HEADER_LEN], &[1; 60][..], &[]), broken);
            }
        }
    }
}

#[test]
fn a_chain_that_can_never_hold_the_frame() {
    let image = Image::new(2);
    let mergeable = RingFeatures { mergeable: true, ..LONG };
    let push = |features, frame: &[u8]| {
        RxQueue::new(image.setup(0, features)).unwrap().push(&[0; HEADER_LEN], frame, &[])
    };
    for i in 0..2 {
        image.set_desc(i, Desc { addr: C, len: 40, flags: WRITE, next: 0 });
    }
    image.set_avail(0, &[0]);
    // Without mergeable buffers the first chain decides, with them the ring's.
    for (features, header_len) in BOTH {
        assert_eq!(push(features, &vec![0; 40 - header_len]), Ok(()));
        assert_eq!(push(features, &vec![0; 41 - header_len]), Err(PushError::TooLarge));
    }
    assert_eq!(push(mergeable, &[0; 29]), Err(PushError::Full));
    image.set_avail(0, &[0, 1]);
    assert_eq!(push(mergeable, &[0; 68]), Ok(()));
    assert_eq!(push(mergeable, &[0; 69]), Err(PushError::TooLarge));
    // With mergeable buffers, num_buffers is always there.
    let claimed = RingFeatures { short_header: true, ..mergeable };
    assert_eq!(push(claimed, &[0; 68]), Ok(()));
    assert_eq!(push(claimed, &[0; 69]), Err(PushError::TooLarge));
}

//! Work is bounded for all chains of a burst or frame together, not for each: a hostile driver that
//! names one long chain by every head must not delay the other ports.

use crate::image::{BUFFERS, Desc, INDIRECT, Image, NEXT, TABLES, WRITE};
use trama_virtqueue::{HEADER_LEN, PushError, RingError, RingFeatures, RxQueue, TxBurst, TxQueue};

const FEATURES: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: true,
    in_order: false,
    mergeable: true,
    short_header: false,
};

/// Makes a ring whose every head names one chain of empty descriptors that ends with one of `len`
/// bytes.
fn shared_chain(descriptors: u16, len: u32, flags: u16) -> Image {
    let image = Image::new(256);
    for i in 0..descriptors {
        let last = i + 1 == descriptors;
        let (len, more) = if last { (len, 0) } else { (0, NEXT) };
        image.set_desc(i, Desc { addr: BUFFERS, len, flags: flags | more, next: i + 1 });
    }
    image.set_avail(0, &[0; 256]);
    image
}

#[test]
fn a_burst_is_bounded() {
    for (descriptors, expected) in [(2, Ok(64)), (65, Ok(64)), (66, Err(RingError::ChainTooLong))] {
        let image = shared_chain(descriptors, 72, 0);
        let mut queue = TxQueue::new(image.setup(0, FEATURES)).unwrap();
        assert_eq!(queue.fetch(&mut TxBurst::new(), 64), expected, "{descriptors}");
    }
}

#[test]
fn a_frame_is_bounded() {
    let broken = Err(PushError::Broken(RingError::ChainTooLong));
    // The header and 60 bytes in 6 chains of 12: 73 descriptors, and one more per chain.
    for (descriptors, expected) in [(2, Ok(())), (13, Ok(())), (14, broken), (256, broken)] {
        let image = shared_chain(descriptors, 12, WRITE);
        let mut queue = RxQueue::new(image.setup(0, FEATURES)).unwrap();
        assert_eq!(queue.push(&[0; HEADER_LEN], &[7; 60][..], &[]), expected, "{descriptors}");
    }
}

/// Buffers that are all non-empty may be too many for a frame, but break no rule.
#[test]
fn wellformed_chains_never_exceed_the_bound() {
    let image = Image::new(256);
    for i in 0..256u16 {
        let next = if i < 255 { NEXT } else { 0 };
        let desc = Desc { addr: BUFFERS, len: 1, flags: WRITE | next, next: i + 1 };
        image.write(TABLES + 16 * u64::from(i), &desc.bytes());
        let table = Desc { addr: TABLES, len: 16 * 256, flags: INDIRECT, next: 0 };
        image.set_desc(i, table);
    }
    image.set_avail(0, &std::array::from_fn::<u16, 256, _>(|i| i as u16));
    let mut queue = RxQueue::new(image.setup(0, FEATURES)).unwrap();
    let frame = [7; 1024 - HEADER_LEN];
    assert_eq!(queue.push(&[0; HEADER_LEN], &frame[..], &[]), Ok(()));
    assert_eq!(
        queue.push(&[0; HEADER_LEN], &frame[..], &[[7; 1][..].into()]),
        Err(PushError::TooLarge)
    );
    assert_eq!(queue.push(&[0; HEADER_LEN], &frame[..], &[]), Ok(()));
}

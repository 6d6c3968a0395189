//! Buffers that were made ready ahead of their frames, when the ring changes meanwhile.

use std::sync::Arc;

use trama_virtqueue::{
    GuestMemory, HEADER_LEN, PushError, Region, RegionSpec, RingError, RingFeatures, RingSetup,
    RxQueue,
};

use super::image::{C, Desc, Image, NEXT, WRITE};

const FEATURES: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: false,
    in_order: false,
    mergeable: true,
    short_header: false,
};
const ROOM: u64 = 128;

/// Makes `count` adjacent buffers of `ROOM` bytes, all available.
fn ring(count: u16) -> Image {
    let image = Image::new(16);
    for i in 0..count {
        let addr = C + ROOM * u64::from(i);
        image.set_desc(i, Desc { addr, len: ROOM as u32, flags: WRITE, next: 0 });
    }
    image.set_avail(0, &(0..count).collect::<Vec<_>>());
    image
}

fn push(queue: &mut RxQueue, frame: &[u8]) -> Result<(), PushError> {
    queue.push(&[0; HEADER_LEN], frame, &[])
}

/// Returns the frame that a buffer holds, if it has 60 bytes.
fn frame(image: &Image, buffer: u16) -> Vec<u8> {
    image.read(C + ROOM * u64::from(buffer) + HEADER_LEN as u64, 60)
}

#[test]
fn a_buffer_is_used_as_it_was_when_it_was_made_ready() {
    let image = ring(4);
    let mut queue = RxQueue::new(image.setup(0, FEATURES)).unwrap();
    queue.expect(2);
    // A driver must not do this with an available buffer. It garbles only its own frame.
    image.set_desc(0, Desc { addr: u64::MAX, len: 1, flags: NEXT, next: 99 });
    assert_eq!(push(&mut queue, &[1; 60]), Ok(()));
    assert_eq!(push(&mut queue, &[2; 60]), Ok(()));
    queue.publish();
    assert_eq!([0, 1].map(|i| frame(&image, i)), [vec![1; 60], vec![2; 60]]);
    assert_eq!([0, 1].map(|i| image.used(i)), [(0, 72), (1, 72)]);
}

#[test]
fn buffers_are_made_ready_once_and_in_order_for_any_expectation() {
    let image = ring(16);
    let mut queue = RxQueue::new(image.setup(0, FEATURES)).unwrap();
    // More than there are, fewer than are ready, none; and more frames than were expected.
    for (expected, count) in [(1000, 3), (2, 2), (0, 4), (1, 7)] {
        queue.expect(expected);
        let from = queue.next();
        for i in from..from + count {
            assert_eq!(push(&mut queue, &[i as u8; 60]), Ok(()));
        }
    }
    assert_eq!(push(&mut queue, &[0; 60]), Err(PushError::Full));
    queue.expect(5);
    assert_eq!(push(&mut queue, &[0; 60]), Err(PushError::Full));
    queue.publish();
    for i in 0..16 {
        assert_eq!((frame(&image, i), image.used(i)), (vec![i as u8; 60], (u32::from(i), 72)));
    }
}

#[test]
fn a_frame_too_long_for_the_next_buffer_takes_several_and_the_rest_stay_ready() {
    let image = ring(8);
    let mut queue = RxQueue::new(image.setup(0, FEATURES)).unwrap();
    queue.expect(8);
    let long = [9; 300];
    assert_eq!(push(&mut queue, &[1; 60]), Ok(()));
    assert_eq!(push(&mut queue, &long), Ok(()));
    assert_eq!(push(&mut queue, &[2; 60]), Ok(()));
    // Takes everything that is left, which is not enough.
    assert_eq!(push(&mut queue, &[9; 600]), Err(PushError::Full));
    assert_eq!(push(&mut queue, &[3; 60]), Ok(()));
    queue.publish();
    let lens = [72, 128, 128, 56, 72, 72];
    assert_eq!(std::array::from_fn(|i| image.used(i as u16).1), lens);
    assert_eq!([0, 4, 5].map(|i| frame(&image, i)), [1, 2, 3].map(|byte| vec![byte; 60]));
}

#[test]
fn nothing_stays_ready_on_a_ring_that_breaks() {
    let image = ring(4);
    let mut queue = RxQueue::new(image.setup(0, FEATURES)).unwrap();
    queue.expect(4);
    image.set_avail_idx(1000);
    queue.refresh();
    let before = image.dump();
    let broken = Err(PushError::Broken(RingError::AvailJump));
    assert_eq!(push(&mut queue, &[1; 60]), broken);
    queue.expect(4);
    assert_eq!(push(&mut queue, &[1; 60]), broken);
    assert_eq!(image.dump(), before);
}

/// Returns a map with the same addresses in another file.
fn moved(setup: &RingSetup) -> Arc<GuestMemory> {
    let region = |region: &Region| {
        let file = Arc::new(tempfile::tempfile_in("/dev/shm").unwrap());
        file.set_len(region.size).unwrap();
        let Region { guest_phys, user_addr, size, .. } = *region;
        RegionSpec { guest_phys, user_addr, size, file_offset: 0, file }
    };
    GuestMemory::map(setup.memory.regions().iter().map(region).collect()).unwrap()
}

#[test]
fn a_new_memory_map_has_to_make_its_own_buffers_ready() {
    let image = ring(4);
    let setup = image.setup(0, FEATURES);
    let mut queue = RxQueue::new(setup.clone()).unwrap();
    queue.expect(4);
    let before = image.dump();
    queue.set_memory(moved(&setup)).unwrap();
    // A ring of zeros has no buffer.
    let refused = push(&mut queue, &[1; 60]);
    assert_eq!(refused, Err(PushError::Broken(RingError::WrongDirection)));
    assert_eq!(image.dump(), before, "the old map was written");
}

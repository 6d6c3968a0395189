//! The device side allocates nothing once it is set up: not in fetch, push, complete, publish, arm
//! or disarm, for any form of chain.
#![cfg(test)]
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, RingFeatures, RxQueue,
    TxBurst, TxQueue,
};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all calls are passed to the system's allocator; counting in a constant-initialised
// thread-local without a destructor allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(shape: ChainShape, features: RingFeatures, len: usize, rx_buffer: usize) -> usize {
    let options = DriverOptions { size: 256, features, shape, buffer_size: 9000 };
    let rx_options = DriverOptions { buffer_size: rx_buffer, ..options };
    let memory = DriverMemory::new(options.memory_size() + rx_options.memory_size()).unwrap();
    let mut driver_tx = DriverTx::new(&memory, options).unwrap();
    let mut driver_rx = DriverRx::new(&memory, rx_options).unwrap();
    let mut tx = TxQueue::new(driver_tx.setup(memory.map())).unwrap();
    let mut rx = RxQueue::new(driver_rx.setup(memory.map())).unwrap();
    let mut burst = TxBurst::new();
    let frame = vec![7; len];
    let mut pushed = 0;
    let before = COUNT.get();
    for round in 0..400u32 {
        driver_rx.refill();
        let header = [u8::from(round % 2 == 1); HEADER_LEN];
        for _ in 0..round % 65 {
            if driver_tx.send(&header, &[&frame]).is_err() {
                break;
            }
        }
        driver_tx.publish();
        tx.disarm();
        while tx.fetch(&mut burst, 64).unwrap() > 0 {
            for i in 0..burst.len() {
                let done = rx.push(burst.header(i), burst.head(i), burst.body(i));
                pushed += usize::from(done.is_ok());
            }
            tx.complete(&burst);
            tx.publish();
            rx.publish();
        }
        let _ = tx.arm();
        driver_tx.reclaim().unwrap();
        driver_rx.discard(1000).unwrap();
    }
    let count = COUNT.get() - before;
    assert!(pushed > 1000, "{pushed}");
    count
}

#[test]
fn no_frame_allocates() {
    let mergeable = RingFeatures { indirect: true, mergeable: true, ..RingFeatures::default() };
    let short = RingFeatures { mergeable: false, short_header: true, ..mergeable };
    for shape in [
        ChainShape::Single,
        ChainShape::HeaderSplit,
        ChainShape::Scattered(8),
        ChainShape::Indirect(8),
    ] {
        for event_idx in [false, true] {
            for (features, len, rx_buffer) in [
                (mergeable, 60, 1600),
                (mergeable, 1514, 1600),
                (mergeable, 8900, 1600),
                (mergeable, 8900, 9000),
                (short, 60, 1600),
                (short, 8900, 9000),
            ] {
                let features = RingFeatures { event_idx, ..features };
                let count = allocations(shape, features, len, rx_buffer);
                assert_eq!(count, 0, "{shape:?}, {len} bytes into buffers of {rx_buffer}");
            }
        }
    }
}

//! Moving frames allocates nothing. The allocator counts on the thread that polls.
#![cfg(test)]
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use trama_frame::{MacAddr, VnetHeader};
use trama_switch::{Engine, NetworkId, Time, VlanMode};
use trama_test_kit::{
    Guest, LINUX_FEATURES, PLAIN, access, c_tag, frame, large_segment, mac, network, paths, port,
    tagged, trunk,
};
use trama_virtqueue::{ChainShape, DriverOptions, HEADER_LEN};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Polls until no frame moves; returns the number of allocations meanwhile.
fn allocations(engine: &mut Engine, clock: &mut u64) -> u64 {
    let before = ALLOCATIONS.get();
    *clock += 1_000_000;
    while engine.poll(Time(*clock)) {
        *clock += 1_000_000;
    }
    ALLOCATIONS.get() - before
}

fn guest(engine: &mut Engine, network: NetworkId, vlan: VlanMode, shape: ChainShape) -> Guest {
    let features = LINUX_FEATURES;
    let buffer_size = HEADER_LEN + if shape == ChainShape::Single { 1600 } else { 65_600 };
    let rx = DriverOptions { size: 1024, features, shape: ChainShape::Single, buffer_size };
    let tx = DriverOptions { size: 1024, features, shape, buffer_size: HEADER_LEN + 65_600 };
    Guest::add(engine, port(network, vlan), tx, rx)
}

#[test]
fn the_allocator_is_counted() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 2);
}

#[test]
fn moving_frames_allocates_nothing() {
    let mut engine = Engine::new(9);
    let network = network(&mut engine, 1500);
    let mut a = guest(&mut engine, network, trunk(), ChainShape::Indirect(18));
    let mut b = guest(&mut engine, network, access(10), ChainShape::Single);
    let mut c = guest(&mut engine, network, trunk(), ChainShape::HeaderSplit);
    let mut clock = 0;
    let (cut, large) = large_segment(MacAddr::BROADCAST, mac(1), 30_040);
    for round in 0..300u32 {
        for i in 0..8u32 {
            // New stations, stations that move between ports, unknown and known ones, bad frames.
            let station = MacAddr::from_u64(0x0200_0000_0000 + u64::from(round * 8 + i));
            let moving = MacAddr::from_u64(0x0200_0100_0000 | u64::from(i));
            a.send(&PLAIN, &frame(moving, station, 60 + i as usize));
            a.send(&PLAIN, &tagged(c_tag(10), &frame(moving, station, 1000)));
            b.send(&PLAIN, &frame(station, moving, 700));
            c.send(&PLAIN, &frame(MacAddr::BROADCAST, moving, 300));
            c.send(&[0xff; HEADER_LEN], &frame(MacAddr::BROADCAST, moving, 300));
        }
        a.send(&cut.to_bytes(), &large);
        let header = VnetHeader { csum_start: 38, hdr_len: 58, ..cut };
        a.send(&header.to_bytes(), &tagged(c_tag(10), &large));
        assert_eq!(allocations(&mut engine, &mut clock), 0, "round {round}");
        for guest in [&mut a, &mut b, &mut c] {
            guest.rx.discard(1024).unwrap();
            guest.rx.refill();
        }
    }
    let (b, c) = (b.counters.snapshot(), c.counters.snapshot());
    assert!(b.software_gso_frames == 300 && c.software_gso_frames == 600, "{b:?} {c:?}");
    assert!(c.tx_frames > 10_000, "{c:?}");
}

#[test]
fn no_path_allocates() {
    for (name, path) in paths::ALL {
        let mut path = path();
        for round in 0..20 {
            path.feed();
            let before = ALLOCATIONS.get();
            path.run();
            assert_eq!(ALLOCATIONS.get() - before, 0, "{name}, round {round}");
            path.drain();
        }
    }
}

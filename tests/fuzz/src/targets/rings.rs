//! Rings: the device side over any memory, the driver side over memory that the switch writes, and
//! tables of memory.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, GuestMemory, HEADER_LEN,
    MAX_BURST, PushError, RegionSpec, RingFeatures, RingSetup, RxQueue, TxBurst, TxQueue,
};

use crate::input::Input;

/// Bytes of memory under a ring.
const MEMORY: usize = 0x1_0000;
/// Offsets of the parts of a ring, as the seeds have them.
const DESC: u16 = 0;
const AVAIL: u16 = 0x1000;
const USED: u16 = 0x2000;
const BUFFERS: u16 = 0x4000;

fn features(bits: u8) -> RingFeatures {
    RingFeatures {
        event_idx: bits & 1 != 0,
        indirect: bits & 2 != 0,
        in_order: bits & 4 != 0,
        mergeable: bits & 8 != 0,
        short_header: bits & 16 != 0,
    }
}

/// The set-up of a ring, then steps of the guest and of the device.
pub(super) fn device(bytes: &[u8]) {
    let mut input = Input(bytes);
    let memory = DriverMemory::new(MEMORY).unwrap();
    let (base, map) = (memory.spec().user_addr, memory.map());
    let features = features(input.byte());
    let setup = RingSetup {
        size: 1 << (input.byte() % 16),
        desc: base + u64::from(input.short()),
        avail: base + u64::from(input.short()),
        used: base + u64::from(input.short()),
        next: input.short(),
        features,
        memory: map.clone(),
        log: None,
    };
    let (Ok(mut tx), Ok(mut rx)) = (TxQueue::new(setup.clone()), RxQueue::new(setup)) else {
        return;
    };
    let mut burst = TxBurst::new();
    while !input.is_empty() {
        match input.byte() % 8 {
            0..=2 => drop(map.write(base + u64::from(input.short()), input.piece())),
            3 | 4 => {
                let most = usize::from(input.byte()) % MAX_BURST + 1;
                let Ok(count) = tx.fetch(&mut burst, most) else { return };
                assert!(count <= most && count == burst.len());
                (0..count).for_each(|i| check(&burst, i));
                forward(&mut rx, &burst);
                tx.complete(&burst);
            }
            5 => drop((tx.publish(), rx.publish())),
            6 => {
                let frame = vec![7; usize::from(input.short())];
                if let Err(PushError::Broken(_)) = rx.push(&[0; HEADER_LEN], &frame[..], &[]) {
                    return;
                }
            }
            _ => drop((tx.arm(), tx.pending(), rx.refresh(), rx.waiting())),
        }
    }
}

/// A frame has the bytes that its length says, or an error and none.
fn check(burst: &TxBurst, i: usize) {
    let body: usize = burst.body(i).iter().map(trama_virtqueue::Segment::len).sum();
    if burst.error(i).is_some() {
        assert_eq!((burst.frame_len(i), body), (0, 0));
        return;
    }
    assert_eq!(burst.head(i).len() + body, burst.frame_len(i));
}

/// The frames of a burst go to the same ring, as if it were a loop.
fn forward(rx: &mut RxQueue, burst: &TxBurst) {
    rx.expect(burst.len());
    for i in (0..burst.len()).filter(|i| burst.error(*i).is_none()) {
        let _ = rx.push(burst.header(i), burst.head(i), burst.body(i));
    }
}

/// The device side of a driver's queues, which passes frames from one to the other.
struct Loop {
    tx: TxQueue,
    rx: RxQueue,
    burst: TxBurst,
}

impl Loop {
    /// Passes the frames that wait; returns those that were passed and those that found no room.
    fn pass(&mut self) -> (Vec<Vec<u8>>, usize) {
        let (mut passed, mut lost) = (Vec::new(), 0);
        let Ok(count) = self.tx.fetch(&mut self.burst, MAX_BURST) else { return (passed, 0) };
        for i in 0..count {
            if self.burst.error(i).is_some() {
                lost += 1;
                continue;
            }
            let (head, body) = (self.burst.head(i), self.burst.body(i));
            let mut frame = vec![0; self.burst.frame_len(i)];
            frame[..head.len()].copy_from_slice(head);
            let mut at = head.len();
            for segment in body {
                at += segment.copy_to(&mut frame[at..]);
            }
            match self.rx.push(self.burst.header(i), head, body) {
                Ok(()) => passed.push(frame),
                Err(_) => lost += 1,
            }
        }
        self.tx.complete(&self.burst);
        let _ = (self.tx.publish(), self.rx.publish(), self.tx.arm());
        (passed, lost)
    }
}

/// The options of a driver's queues, then steps of the driver and of the switch. Until the switch
/// writes over them, they pass on what was sent.
pub(super) fn driver(bytes: &[u8]) {
    let mut input = Input(bytes);
    let features = features(input.byte());
    let count = 1 + u16::from(input.byte() % 4);
    let shape = match input.byte() % 4 {
        0 => ChainShape::Single,
        1 => ChainShape::HeaderSplit,
        2 => ChainShape::Scattered(count),
        _ => ChainShape::Indirect(count),
    };
    let buffer_size = 64 + usize::from(input.short() % 2048);
    let options = DriverOptions { size: 8, features, shape, buffer_size };
    let memory = DriverMemory::new(2 * options.memory_size()).unwrap();
    let queues = (DriverTx::new(&memory, options), DriverRx::new(&memory, options));
    let (Ok(mut tx), Ok(mut rx)) = queues else { return };
    let (base, map, mut frame) = (memory.spec().user_addr, memory.map(), Vec::new());
    let sides = (TxQueue::new(tx.setup(map.clone())), RxQueue::new(rx.setup(map.clone())));
    let (Ok(device_tx), Ok(device_rx)) = sides else { panic!("the rings of a driver") };
    let mut device = Loop { tx: device_tx, rx: device_rx, burst: TxBurst::new() };
    let (mut sent, mut passed, mut is_honest) = (VecDeque::new(), VecDeque::new(), true);
    rx.refill();
    while !input.is_empty() {
        let went = match input.byte() % 8 {
            0 => {
                is_honest = false;
                let used = [tx.addresses().used, rx.addresses().used, base];
                let from = used[usize::from(input.byte() % 3)];
                map.write(from + u64::from(input.short()), input.piece());
                Ok(())
            }
            1 | 2 => {
                let (frames, lost) = device.pass();
                let all: Vec<_> = sent.drain(..).collect();
                if is_honest {
                    assert_eq!(frames.len() + lost, all.len());
                    assert!(lost > 0 || frames == all, "other frames than were sent");
                }
                passed.extend(frames);
                Ok(())
            }
            3 => {
                let bytes = input.piece();
                if tx.send(&[0; HEADER_LEN], &[bytes]).is_ok() {
                    sent.push_back(bytes.to_vec());
                }
                let _ = tx.publish();
                Ok(())
            }
            4 => tx.reclaim().map(drop),
            5 => rx.recv(&mut frame).map(|got| {
                let whole = got.map(|_| frame.clone());
                assert!(!is_honest || whole == passed.pop_front(), "not the frame that was passed");
            }),
            6 => rx.recv_in_place(&mut frame).map(|got| {
                let whole = got.map(|it| it.frame.to_vec());
                assert!(!is_honest || whole == passed.pop_front(), "not the frame that was passed");
            }),
            _ => rx.discard(usize::from(input.byte())).map(|count| {
                passed.drain(..count.min(passed.len()));
                let _ = (rx.refill(), rx.arm(), tx.arm());
            }),
        };
        assert!(frame.len() <= 8 * buffer_size, "a frame that no buffers can hold");
        assert!(!is_honest || went.is_ok(), "the driver finds fault with the switch");
        if went.is_err() {
            return;
        }
    }
}

/// Regions, then addresses.
pub(super) fn memory_table(bytes: &[u8]) {
    let mut input = Input(bytes);
    let file = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 0x10_0000).unwrap();
    let file = Arc::new(File::from(file));
    let page = |number: u16| u64::from(number) << 12;
    let regions = (0..input.byte() % 6).map(|_| {
        let is_odd = input.byte() == 1;
        let mut number = || if is_odd { input.long() } else { page(input.short()) };
        RegionSpec {
            guest_phys: number(),
            user_addr: number(),
            size: number(),
            file_offset: number(),
            file: file.clone(),
        }
    });
    let regions: Vec<RegionSpec> = regions.collect();
    let Ok(map) = GuestMemory::map(regions.clone()) else { return };
    assert_eq!(map.regions().len(), regions.len());
    check_regions(&regions);
    while !input.is_empty() {
        let (address, bytes) = (input.long(), input.piece());
        let end = address.checked_add(bytes.len() as u64);
        let holds = |it: &RegionSpec| {
            let last = it.user_addr + (it.size - 1);
            it.user_addr <= address && address <= last && end.is_some_and(|end| end - 1 <= last)
        };
        if !bytes.is_empty() {
            let is_there = regions.iter().any(holds);
            assert_eq!(map.write(address, bytes), is_there, "{address:#x} {}", bytes.len());
        }
    }
}

/// No region of a table that was taken wraps, leaves its file, or overlaps another.
fn check_regions(regions: &[RegionSpec]) {
    let overlap = |a: u64, b: u64, of: &RegionSpec, other: &RegionSpec| {
        a <= b + (other.size - 1) && b <= a + (of.size - 1)
    };
    for (number, one) in regions.iter().enumerate() {
        assert!(one.size > 0 && one.file_offset.checked_add(one.size).unwrap() <= 0x10_0000);
        assert!(one.guest_phys.checked_add(one.size - 1).is_some());
        assert!(one.user_addr.checked_add(one.size - 1).is_some());
        for other in &regions[..number] {
            assert!(!overlap(one.guest_phys, other.guest_phys, one, other));
            assert!(!overlap(one.user_addr, other.user_addr, one, other));
        }
    }
}

pub(super) mod seeds {
    use super::*;
    use crate::input::put_piece;

    fn write(seed: &mut Vec<u8>, at: u16, bytes: &[u8]) {
        seed.push(0);
        seed.extend_from_slice(&at.to_le_bytes());
        put_piece(seed, bytes);
    }

    /// A descriptor; addresses of guests begin where those of [`DriverMemory`] do.
    fn desc(at: u16, len: u32, flags: u16, next: u16) -> Vec<u8> {
        let base = DriverMemory::new(MEMORY).unwrap().spec().guest_phys;
        let address = base + u64::from(at);
        [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
            .concat()
    }

    fn ring(features: u8, table: &[Vec<u8>], heads: &[u16]) -> Vec<u8> {
        let mut seed = vec![features, 3];
        [DESC, AVAIL, USED, 0].iter().for_each(|it| seed.extend_from_slice(&it.to_le_bytes()));
        write(&mut seed, DESC, &table.concat());
        let available: Vec<u8> =
            [0, heads.len() as u16].iter().chain(heads).flat_map(|it| it.to_le_bytes()).collect();
        write(&mut seed, AVAIL, &available);
        write(&mut seed, BUFFERS, &[0x5a; 200]);
        seed.extend_from_slice(&[3, 63, 5, 7, 6, 60, 0, 5, 3, 63, 5]);
        seed
    }

    pub(in super::super) fn device() -> Vec<Vec<u8>> {
        let (next, writable, indirect) = (1, 2, 4);
        let table = 0x3000;
        let mut inner = ring(2, &[desc(table, 32, indirect, 0)], &[0]);
        let entries = [desc(BUFFERS, 12, next, 1), desc(BUFFERS + 64, 80, 0, 0)].concat();
        inner.truncate(inner.len() - 11);
        write(&mut inner, table, &entries);
        inner.extend_from_slice(&[3, 1, 5]);
        vec![
            ring(0, &[desc(BUFFERS, 80, 0, 0), desc(BUFFERS + 512, 1600, writable, 0)], &[0, 1]),
            ring(1, &[desc(BUFFERS, 12, next, 1), desc(BUFFERS + 64, 80, 0, 0)], &[0]),
            ring(4 | 16, &[desc(BUFFERS, 10, next, 1), desc(BUFFERS + 64, 60, 0, 0)], &[0, 0]),
            ring(
                8,
                &[
                    desc(BUFFERS, 80, 0, 0),
                    desc(BUFFERS + 512, 64, writable, 0),
                    desc(BUFFERS + 1024, 64, writable | next, 3),
                    desc(BUFFERS + 2048, 64, writable, 0),
                ],
                &[0, 1, 2],
            ),
            ring(0, &[desc(BUFFERS, 80, next, 1), desc(BUFFERS, 80, next, 0)], &[0]),
            inner,
        ]
    }

    pub(in super::super) fn driver() -> Vec<Vec<u8>> {
        let seed = |features: u8, shape: u8| {
            let mut seed = vec![features, 2, shape, 0, 5];
            for len in [60, 14, 600] {
                seed.push(3);
                put_piece(&mut seed, &vec![7; len]);
            }
            seed.extend_from_slice(&[1, 4, 5, 6, 7, 1]);
            seed.push(3);
            put_piece(&mut seed, &[9; 100]);
            seed.push(2);
            // A used index, and a used element, of the receive ring.
            for (at, bytes) in [(2, &[4, 0][..]), (28, &[3, 0, 0, 0, 80, 0, 0, 0])] {
                seed.extend_from_slice(&[0, 1, at, 0]);
                put_piece(&mut seed, bytes);
            }
            seed.extend_from_slice(&[4, 5, 6]);
            seed
        };
        (0..4).flat_map(|shape| [0, 1 | 8, 4, 16].map(|features| seed(features, shape))).collect()
    }

    pub(in super::super) fn memory_table() -> Vec<Vec<u8>> {
        let region = |seed: &mut Vec<u8>, pages: [u16; 4]| {
            seed.push(0);
            pages.iter().for_each(|it| seed.extend_from_slice(&it.to_le_bytes()));
        };
        let mut seed = vec![3];
        region(&mut seed, [0x100, 0x700, 8, 8]);
        region(&mut seed, [0x108, 0x500, 8, 0]);
        region(&mut seed, [0x200, 0x900, 4, 16]);
        for address in [0x70_0000_u64, 0x70_7fff, 0x50_0000, 0x90_3ffe, 0x90_4000, u64::MAX] {
            seed.extend_from_slice(&address.to_le_bytes());
            put_piece(&mut seed, b"12");
        }
        let mut odd = vec![1, 1];
        for number in [0x1000_u64, u64::MAX - 0xfff, 0x1000, 0] {
            odd.extend_from_slice(&number.to_le_bytes());
        }
        vec![seed, odd]
    }
}

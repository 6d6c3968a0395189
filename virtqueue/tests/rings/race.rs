//! A driver rewrites rings, tables and buffers while the device reads them: the device neither
//! panics nor contradicts itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use trama_virtqueue::{HEADER_LEN, PushError, RingFeatures, RxQueue, TxBurst, TxQueue};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::image::{A, B, BUFFERS, C, C_END, Desc, INDIRECT, Image, NEXT, TABLES, WRITE};
use super::random::Random;

const SIZE: u16 = 16;
const MUTATIONS: usize = 400_000;

impl Random {
    fn address(&mut self) -> u64 {
        match self.below(10) {
            0 => self.0,
            1 => C_END - self.below(100),
            2 => B - self.below(100),
            3 => TABLES + self.below(0x300),
            4 => A + self.below(0x3000),
            _ => BUFFERS + self.below(0x4000),
        }
    }

    fn desc(&mut self, own: u16) -> Desc {
        let flags = match self.below(12) {
            0 => own ^ WRITE,
            1 | 2 => INDIRECT,
            3..7 => own | NEXT,
            _ => own,
        };
        let len = match self.below(8) {
            0 => HEADER_LEN as u32,
            1 => self.0 as u32,
            2 => 16 * (1 + self.below(16) as u32),
            _ => self.below(2000) as u32,
        };
        let addr = if flags == INDIRECT { TABLES + self.below(0x200) } else { self.address() };
        Desc { addr, len, flags, next: self.below(u64::from(SIZE) + 1) as u16 }
    }
}

/// Progress of both sides: each continues only while the other does.
#[derive(Default)]
struct Progress {
    rounds: AtomicUsize,
    mutated: AtomicBool,
    failed: AtomicBool,
}

/// Rewrites one field after another.
fn mutate(memory: &GuestMemoryMmap, own: u16, progress: &Progress) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = 0;
    for i in 0..MUTATIONS {
        while i % 2048 == 0 && progress.rounds.load(Ordering::Relaxed) == seen {
            if progress.failed.load(Ordering::Relaxed) {
                return;
            }
            thread::yield_now();
        }
        seen = progress.rounds.load(Ordering::Relaxed);
        match random.below(8) {
            0..3 => {
                let at = A + 16 * random.below(u64::from(SIZE));
                memory.write_slice(&random.desc(own).bytes(), GuestAddress(at)).unwrap();
            }
            3 => {
                let at = TABLES + 16 * random.below(48);
                memory.write_slice(&random.desc(own).bytes(), GuestAddress(at)).unwrap();
            }
            4 => {
                let head = random.below(u64::from(SIZE)) as u16;
                let at = A + 0x1004 + 2 * random.below(u64::from(SIZE));
                memory.write_obj(head, GuestAddress(at)).unwrap();
            }
            5 => {
                // Mostly a number of chains that the ring can hold.
                let used: u16 = memory.load(GuestAddress(A + 0x2002), Ordering::Acquire).unwrap();
                let wild = random.below(1000) == 0;
                let ahead = if wild { 99 } else { random.below(u64::from(SIZE) + 1) as u16 };
                let avail = used.wrapping_add(ahead);
                memory.store(avail, GuestAddress(A + 0x1002), Ordering::Release).unwrap();
            }
            _ => {
                let at = C + random.below(0x3fff);
                memory.write_obj(random.0 as u8, GuestAddress(at)).unwrap();
            }
        }
    }
}

/// Runs `device` round by round while the mutator runs.
fn with_mutator(image: &Image, own: u16, mut device: impl FnMut()) {
    let memory = image.shared_oracle_memory();
    let progress = Progress::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            mutate(&memory, own, &progress);
            progress.mutated.store(true, Ordering::Relaxed);
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while !progress.mutated.load(Ordering::Relaxed) {
                device();
                progress.rounds.fetch_add(1, Ordering::Relaxed);
            }
        }));
        progress.failed.store(result.is_err(), Ordering::Relaxed);
        result.unwrap();
    });
}

#[test]
fn transmit_with_a_hostile_driver() {
    transmit_with_mutator(RingFeatures { indirect: true, ..RingFeatures::default() });
}

#[test]
fn transmit_of_short_headers_with_a_hostile_driver() {
    let short_header = true;
    transmit_with_mutator(RingFeatures { indirect: true, short_header, ..RingFeatures::default() });
}

fn transmit_with_mutator(features: RingFeatures) {
    let image = Image::new(SIZE);
    let mut setup = image.setup(0, features);
    let mut queue = TxQueue::new(setup.clone()).unwrap();
    let (mut burst, mut target) = (TxBurst::new(), vec![0u8; 1 << 20]);
    let (mut frames, mut errors, mut breaks) = (0, 0, 0);
    with_mutator(&image, 0, || {
        match queue.fetch(&mut burst, 64) {
            Ok(fetched) => assert!(fetched <= usize::from(SIZE)),
            Err(_) => {
                breaks += 1;
                setup.next = image.used_idx();
                queue = TxQueue::new(setup.clone()).unwrap();
            }
        }
        for i in 0..burst.len() {
            let body: usize = burst.body(i).iter().map(|segment| segment.len()).sum();
            assert_eq!(burst.head(i).len() + body, burst.frame_len(i));
            for segment in burst.body(i) {
                segment.copy_to(&mut target);
            }
            let fault = burst.error(i).is_some();
            *(if fault { &mut errors } else { &mut frames }) += 1;
        }
        queue.complete(&burst);
        queue.publish();
    });
    println!("{frames} {errors} {breaks}");
    assert!(frames > 0 && errors > 0 && breaks > 0);
}

#[test]
fn receive_with_a_hostile_driver() {
    receive_with_mutator(RingFeatures {
        indirect: true,
        mergeable: true,
        ..RingFeatures::default()
    });
}

#[test]
fn receive_of_short_headers_with_a_hostile_driver() {
    let short_header = true;
    receive_with_mutator(RingFeatures { indirect: true, short_header, ..RingFeatures::default() });
}

fn receive_with_mutator(features: RingFeatures) {
    let image = Image::new(SIZE);
    let mut setup = image.setup(0, features);
    let mut queue = RxQueue::new(setup.clone()).unwrap();
    let (frame, mut len) = (vec![0x77u8; 3000], 0);
    let (mut pushed, mut breaks) = (0, 0);
    with_mutator(&image, WRITE, || {
        len = (len + 61) % 2900;
        queue.expect(len % 70);
        match queue.push(&[0; HEADER_LEN], &frame[..64], &[frame[64..64 + len].into()]) {
            Ok(()) => pushed += 1,
            Err(PushError::Full | PushError::TooLarge) => {}
            Err(PushError::Broken(_)) => {
                breaks += 1;
                setup.next = image.used_idx();
                queue = RxQueue::new(setup.clone()).unwrap();
            }
        }
        queue.publish();
    });
    println!("{pushed} {breaks}");
    assert!(pushed > 0 && breaks > 0);
}

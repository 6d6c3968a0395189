//! Driver and device on two threads that sleep whenever the protocol lets them: a lost kick or call
//! leaves a thread asleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, RingFeatures, RxQueue,
    TxBurst, TxQueue,
};

use super::image::{C, Desc, Image};

/// Frames of each run; there are four runs.
const FRAMES: u64 = 1_000_000;
const DEADLINE: Duration = Duration::from_secs(30);

/// Stands in for an eventfd.
#[derive(Default)]
struct Event {
    raised: Mutex<bool>,
    changed: Condvar,
    waits: AtomicUsize,
}

impl Event {
    fn raise(&self) {
        *self.raised.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self, side: &str) {
        let until = Instant::now() + DEADLINE;
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut raised = self.raised.lock().unwrap();
        while !*raised {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the {side} sleeps and is never woken");
            raised = self.changed.wait_timeout(raised, left).unwrap().0;
        }
        *raised = false;
    }
}

/// Pseudo-random sizes of batches.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

#[derive(Default)]
struct Shared {
    kick: Event,
    call: Event,
}

/// Echoes frames until it has taken them all; returns how many found no buffer.
fn device(mut tx: TxQueue, mut rx: RxQueue, shared: &Shared) -> u64 {
    let mut burst = TxBurst::new();
    let (mut taken, mut dropped, mut random) = (0, 0, Random(7));
    tx.disarm();
    while taken < FRAMES {
        let fetched = tx.fetch(&mut burst, 1 + random.below(64) as usize).unwrap();
        if fetched == 0 {
            if !tx.arm() {
                shared.kick.wait("device");
            }
            tx.disarm();
            continue;
        }
        for i in 0..fetched {
            let expected = (taken + i as u64).to_le_bytes();
            assert_eq!(burst.head(i)[14..22], expected);
            dropped += u64::from(rx.push(burst.header(i), burst.head(i), burst.body(i)).is_err());
        }
        taken += fetched as u64;
        tx.complete(&burst);
        // Not `||`: both must be published.
        if rx.publish() | tx.publish() {
            shared.call.raise();
        }
    }
    dropped
}

/// Sends all frames and takes those that come back; returns how many did.
fn driver(mut tx: DriverTx, mut rx: DriverRx, shared: &Shared) -> u64 {
    let (mut sent, mut received, mut last, mut random) = (0u64, 0, None, Random(11));
    let mut frame = Vec::new();
    rx.refill();
    while sent < FRAMES || tx.free() < TX_SIZE {
        tx.reclaim().unwrap();
        for _ in 0..random.below(40).min(FRAMES - sent) {
            let number = sent.to_le_bytes();
            if tx.send(&[0; HEADER_LEN], &[&[0xff; 14], &number, &[0; 38]]).is_err() {
                break;
            }
            sent += 1;
        }
        if tx.publish() {
            shared.kick.raise();
        }
        while rx.recv(&mut frame).unwrap().is_some() {
            let number = u64::from_le_bytes(frame[14..22].try_into().unwrap());
            assert!(last < Some(number), "{last:?} before {number}");
            last = Some(number);
            received += 1;
        }
        rx.refill();
        let idle = tx.free() == 0 || sent == FRAMES;
        if idle && tx.free() < TX_SIZE {
            // Not `||`: both must be armed.
            if !(tx.arm() | rx.arm()) {
                shared.call.wait("driver");
            }
            tx.disarm();
            rx.disarm();
        }
    }
    while rx.recv(&mut frame).unwrap().is_some() {
        received += 1;
    }
    received
}

const TX_SIZE: usize = 64;

fn run(event_idx: bool, in_order: bool) {
    let features = RingFeatures { event_idx, in_order, ..RingFeatures::default() };
    let size = TX_SIZE as u16;
    let options = DriverOptions { size, features, shape: ChainShape::Single, buffer_size: 128 };
    let memory = DriverMemory::new(2 * options.memory_size()).unwrap();
    let driver_tx = DriverTx::new(&memory, options).unwrap();
    let driver_rx = DriverRx::new(&memory, options).unwrap();
    let tx = TxQueue::new(driver_tx.setup(memory.map())).unwrap();
    let rx = RxQueue::new(driver_rx.setup(memory.map())).unwrap();
    let shared = Arc::new(Shared::default());
    let other = shared.clone();
    let device = thread::spawn(move || device(tx, rx, &other));
    let received = driver(driver_tx, driver_rx, &shared);
    let dropped = device.join().unwrap();
    assert_eq!(received + dropped, FRAMES);
    let waits = |event: &Event| event.waits.load(Ordering::Relaxed);
    let slept = (waits(&shared.kick), waits(&shared.call));
    assert!(received > 0 && slept.0 > 100 && slept.1 > 100, "{received} {slept:?}");
}

/// A notification without a lock or a system call around it, which would order the memory accesses
/// that the protocol must order by itself.
#[derive(Default)]
struct Flag(AtomicBool);

impl Flag {
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wait(&self, side: &str) {
        let mut deadline = None;
        for round in 1u64.. {
            if self.0.swap(false, Ordering::Relaxed) {
                return;
            }
            std::hint::spin_loop();
            if round % 512 == 0 {
                let until = *deadline.get_or_insert_with(|| Instant::now() + DEADLINE);
                assert!(Instant::now() < until, "the {side} waits and is never notified");
                thread::yield_now();
            }
        }
    }
}

/// Sends one frame at a time, with both sides armed each time: every arming races with a publish.
fn ping_pong(event_idx: bool) {
    const TURNS: usize = 50_000;
    let features = RingFeatures { event_idx, ..RingFeatures::default() };
    let options = DriverOptions { size: 4, features, shape: ChainShape::Single, buffer_size: 128 };
    let memory = DriverMemory::new(options.memory_size()).unwrap();
    let mut driver = DriverTx::new(&memory, options).unwrap();
    let mut tx = TxQueue::new(driver.setup(memory.map())).unwrap();
    let flags = Arc::new((Flag::default(), Flag::default()));
    let other = flags.clone();
    let device = thread::spawn(move || {
        let (mut burst, mut taken, mut random) = (TxBurst::new(), 0, Random(5));
        while taken < TURNS {
            tx.disarm();
            let fetched = tx.fetch(&mut burst, 64).unwrap();
            // Varies the timing, so that the sides meet at every point of the protocol.
            (0..random.below(12)).for_each(|_| std::hint::spin_loop());
            if fetched == 0 && !tx.arm() {
                other.0.wait("device");
            }
            taken += fetched;
            tx.complete(&burst);
            if tx.publish() {
                other.1.raise();
            }
        }
    });
    let (mut random, mut done) = (Random(3), 0);
    for _ in 0..TURNS {
        (0..random.below(12)).for_each(|_| std::hint::spin_loop());
        driver.send(&[0; HEADER_LEN], &[&[0; 60]]).unwrap();
        if driver.publish() {
            flags.0.raise();
        }
        loop {
            driver.disarm();
            let reclaimed = driver.reclaim().unwrap();
            if reclaimed > 0 {
                done += reclaimed;
                break;
            }
            if !driver.arm() {
                flags.1.wait("driver");
            }
        }
    }
    device.join().unwrap();
    assert_eq!(done, TURNS);
}

#[test]
fn every_arming_races_with_a_publishing() {
    ping_pong(false);
    ping_pong(true);
}

#[test]
fn no_wakeup_is_lost_by_flag() {
    run(false, false);
}

#[test]
fn no_wakeup_is_lost_by_flag_in_order() {
    run(false, true);
}

// spec-test: virtio len-before-idx data-before-idx
#[test]
fn no_wakeup_is_lost_by_event_index() {
    run(true, false);
}

#[test]
fn no_wakeup_is_lost_by_event_index_in_order() {
    run(true, true);
}

// spec-test: virtio spurious-kick
#[test]
fn a_kick_without_a_chain_changes_nothing() {
    for event_idx in [false, true] {
        let image = Image::new(4);
        let features = RingFeatures { event_idx, ..RingFeatures::default() };
        let mut queue = TxQueue::new(image.setup(0, features)).unwrap();
        let mut burst = TxBurst::new();
        assert!(!queue.arm());
        let before = image.dump();
        for _ in 0..3 {
            assert_eq!(queue.fetch(&mut burst, 64), Ok(0));
            queue.complete(&burst);
            assert!(!queue.publish(), "no call");
        }
        assert_eq!(image.dump(), before);
        image.set_desc(0, Desc { addr: C, len: 80, flags: 0, next: 0 });
        image.set_avail(0, &[0]);
        assert_eq!(queue.fetch(&mut burst, 64), Ok(1));
    }
}

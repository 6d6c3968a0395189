//! The ring's constants and choices, each compared with its alternatives. docs/performance.md has
//! the results.
//!
//! A frame goes from a transmit ring to a receive ring; the figures are device cycles per frame.
//! *One core*: drivers and device take turns on one thread. *Two cores*: the drivers have a thread
//! on another core, so the lines travel. Each trial runs in blocks that alternate with those of the
//! others.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, MAX_BURST, PushError,
    RingFeatures, RxQueue, Segment, TxBurst, TxQueue,
};

use crate::{IN_ORDER, MERGEABLE, MODERN, Summary, cycles};

const BLOCKS: usize = 7;
/// Frames of one block on one core.
const FRAMES: usize = 100_000;
/// Length of one block on two cores.
const BLOCK: Duration = Duration::from_millis(150);
/// Frames queued before the device's turn.
const BATCH: usize = 256;
/// At least the default size of DPDK's buffer pools: larger than every cache but the last.
const COLD_POOL: usize = 4096;
const BUFFER: usize = 2048;

/// How a frame is copied from ring to ring.
#[derive(Clone, Copy)]
enum Copies {
    /// From the sender's memory to the receiver's.
    Once,
    /// Through a pool of this many buffers.
    Pool(usize),
}

/// The parameters of a trial.
#[derive(Clone, Copy)]
struct Trial {
    name: &'static str,
    len: usize,
    features: RingFeatures,
    /// Most frames fetched at once.
    burst: usize,
    /// Number of buffers made ready at a time; `None` if `RxQueue::expect` is not called.
    ready: Option<usize>,
    copies: Copies,
    size: u16,
}

const BASE: Trial = Trial {
    name: "",
    len: 60,
    features: IN_ORDER,
    burst: MAX_BURST,
    ready: Some(MAX_BURST),
    copies: Copies::Once,
    size: 1024,
};

/// The device: moves frames from one ring to the other.
struct Device {
    tx: TxQueue,
    rx: RxQueue,
    burst: TxBurst,
    trial: Trial,
    pool: Vec<u8>,
    next: usize,
}

impl Device {
    /// Moves the waiting frames; returns their number.
    fn serve(&mut self) -> usize {
        let mut moved = 0;
        loop {
            let taken = self.tx.fetch(&mut self.burst, self.trial.burst).unwrap();
            for i in 0..taken {
                if let Some(ready) = self.trial.ready.filter(|ready| i % ready == 0) {
                    self.rx.expect(ready.min(taken - i));
                }
                self.push(i);
            }
            self.tx.complete(&self.burst);
            moved += taken;
            if taken < self.trial.burst {
                break;
            }
        }
        if moved > 0 {
            black_box((self.tx.publish(), self.rx.publish()));
        }
        moved
    }

    fn push(&mut self, i: usize) {
        let Device { rx, burst, pool, .. } = self;
        let result = match self.trial.copies {
            Copies::Once => rx.push(burst.header(i), burst.head(i), burst.body(i)),
            Copies::Pool(buffers) => {
                self.next = (self.next + 1) % buffers;
                let buffer = &mut pool[self.next * BUFFER..][..BUFFER];
                let mut len = 0;
                for segment in std::iter::once(&Segment::from(burst.head(i))).chain(burst.body(i)) {
                    len += segment.copy_to(&mut buffer[len..]);
                }
                rx.push(burst.header(i), &buffer[..len], &[])
            }
        };
        // On two cores the receiver may be late; the frame is dropped, as in a switch.
        assert!(matches!(result, Ok(()) | Err(PushError::Full)));
    }
}

/// Both drivers.
struct Drivers {
    tx: DriverTx,
    rx: DriverRx,
    frame: Vec<u8>,
}

impl Drivers {
    /// Sends up to a batch and takes back what arrived; returns the number of frames received.
    fn turn(&mut self) -> usize {
        let received = self.rx.discard(usize::MAX).unwrap();
        if received > 0 {
            self.rx.refill();
        }
        self.tx.reclaim().unwrap();
        let room = self.tx.free().min(BATCH);
        (0..room).for_each(|_| self.tx.send(&[0; HEADER_LEN], &[&self.frame]).unwrap());
        self.tx.publish();
        received
    }
}

fn set_up(trial: Trial) -> (Drivers, Device) {
    let Trial { size, features, len, .. } = trial;
    let options = DriverOptions { size, features, shape: ChainShape::Single, buffer_size: BUFFER };
    let memory = DriverMemory::new(2 * options.memory_size()).unwrap();
    let driver_tx = DriverTx::new(&memory, options).unwrap();
    let mut driver_rx = DriverRx::new(&memory, options).unwrap();
    driver_rx.refill();
    let mut tx = TxQueue::new(driver_tx.setup(memory.map())).unwrap();
    tx.disarm();
    let rx = RxQueue::new(driver_rx.setup(memory.map())).unwrap();
    let buffers = match trial.copies {
        Copies::Once => 0,
        Copies::Pool(buffers) => buffers,
    };
    let device =
        Device { tx, rx, burst: TxBurst::new(), trial, pool: vec![0; buffers * BUFFER], next: 0 };
    (Drivers { tx: driver_tx, rx: driver_rx, frame: vec![7; len] }, device)
}

/// Returns the device's cycles per frame: the median of a block's batches.
fn one_core_cycles(trial: Trial) -> f64 {
    let (mut drivers, mut device) = set_up(trial);
    let mut samples = Vec::new();
    for round in 0..FRAMES / BATCH {
        drivers.turn();
        let start = cycles();
        let moved = device.serve();
        let taken = cycles() - start;
        if round > FRAMES / BATCH / 4 {
            samples.push(taken as f64 / moved as f64);
        }
    }
    Summary::of(samples).median
}

/// Pins this thread to one core; without permission the scheduler decides.
fn pin_to(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    let _ = sched_setaffinity(None, &cores);
}

/// Returns the device's cycles per frame (the median of its visits that found a burst) and the
/// million frames per second received in a block. The former holds on a busy host too.
fn two_cores(trial: Trial) -> (f64, f64) {
    let (mut drivers, mut device) = set_up(trial);
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let driver = {
        let (stop, received) = (stop.clone(), received.clone());
        std::thread::spawn(move || {
            pin_to(1);
            while !stop.load(Ordering::Relaxed) {
                received.fetch_add(drivers.turn() as u64, Ordering::Relaxed);
            }
        })
    };
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed() < BLOCK {
        for _ in 0..16 {
            let begin = cycles();
            let moved = device.serve();
            let taken = cycles() - begin;
            if moved >= 32 {
                samples.push(taken as f64 / moved as f64);
            }
        }
    }
    let rate = received.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64() / 1e6;
    stop.store(true, Ordering::Relaxed);
    driver.join().unwrap();
    (Summary::of(samples).median, rate)
}

fn compare(title: &str, trials: &[Trial]) {
    let mut samples = vec![[const { Vec::new() }; 3]; trials.len()];
    for _ in 0..BLOCKS {
        for (trial, [one_core, two_cores_cycles, rates]) in trials.iter().zip(&mut samples) {
            let (cycles, rate) = two_cores(*trial);
            one_core.push(one_core_cycles(*trial));
            two_cores_cycles.push(cycles);
            rates.push(rate);
        }
    }
    println!("\n{title:30} {:>8}    {:30} Mpps (range)", "one core", "two cores (range)");
    for (trial, summaries) in trials.iter().zip(samples) {
        let [one_core, two_cores_cycles, rates] = summaries.map(Summary::of);
        println!(
            "{:30} {:8.1}    {:6.1} ({:6.1} -{:7.1})         {:6.2} ({:.2}-{:.2})",
            trial.name,
            one_core.median,
            two_cores_cycles.median,
            two_cores_cycles.low,
            two_cores_cycles.high,
            rates.median,
            rates.low,
            rates.high
        );
    }
}

/// What to do when the receiver's ring is full.
#[derive(Clone, Copy)]
enum WhenFull {
    Drop,
    /// Publish pending frames, look again, try once more.
    Retry,
}

/// Runs two senders and one receiver on another core; returns the million frames per second
/// received, and the share of those sent.
fn fan_in(when_full: WhenFull) -> (f64, f64) {
    let trial = Trial { size: 256, ..BASE };
    let (mut one, mut device) = set_up(trial);
    let (mut two, other) = set_up(trial);
    let mut queues = [device.tx, other.tx];
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let receiver = {
        let (stop, received) = (stop.clone(), received.clone());
        let mut rx = one.rx;
        std::thread::spawn(move || {
            pin_to(1);
            let mut frame = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let mut count = 0;
                while rx.recv(&mut frame).unwrap().is_some() {
                    count += 1;
                }
                rx.refill();
                received.fetch_add(count, Ordering::Relaxed);
            }
        })
    };
    let mut sent = 0;
    let start = Instant::now();
    while start.elapsed() < BLOCK {
        for (queue, driver) in queues.iter_mut().zip([&mut one.tx, &mut two.tx]) {
            driver.reclaim().unwrap();
            (0..128).for_each(|_| driver.send(&[0; HEADER_LEN], &[&two.frame]).unwrap());
            driver.publish();
            while queue.fetch(&mut device.burst, MAX_BURST).unwrap() > 0 {
                let burst = &device.burst;
                for i in 0..burst.len() {
                    sent += 1;
                    let push =
                        |rx: &mut RxQueue| rx.push(burst.header(i), burst.head(i), burst.body(i));
                    if push(&mut device.rx).is_err() && matches!(when_full, WhenFull::Retry) {
                        device.rx.publish();
                        let _ = push(&mut device.rx);
                    }
                }
                queue.complete(burst);
            }
            black_box((queue.publish(), device.rx.publish()));
        }
    }
    let arrived = received.load(Ordering::Relaxed) as f64;
    let rate = arrived / start.elapsed().as_secs_f64() / 1e6;
    stop.store(true, Ordering::Relaxed);
    receiver.join().unwrap();
    (rate, arrived / f64::from(sent))
}

fn compare_fan_in() {
    let policies = [("drop at once", WhenFull::Drop), ("publish, refresh, retry", WhenFull::Retry)];
    let mut samples = [const { (Vec::new(), Vec::new()) }; 2];
    for _ in 0..BLOCKS {
        for ((_, policy), (rates, shares)) in policies.iter().zip(&mut samples) {
            let (rate, share) = fan_in(*policy);
            rates.push(rate);
            shares.push(share);
        }
    }
    println!("\n{:30} received, Mpps (range)   share of the frames sent", "two senders, ring full");
    for ((name, _), (rates, shares)) in policies.iter().zip(samples) {
        let (rates, shares) = (Summary::of(rates), Summary::of(shares));
        println!(
            "{name:30} {:6.2} ({:.2}-{:.2})       {:.3}",
            rates.median, rates.low, rates.high, shares.median
        );
    }
}

pub(crate) fn run_all() {
    pin_to(0);
    let trial = |name| Trial { name, ..BASE };
    let ready = |name, ready| Trial { ready, ..trial(name) };
    compare(
        "buffers made ready at a time",
        &[
            ready("1", Some(1)),
            ready("8", Some(8)),
            ready("16", Some(16)),
            ready("the whole burst (chosen)", Some(MAX_BURST)),
            ready("expect() not called", None),
        ],
    );
    let burst = |name, burst| Trial { burst, ..trial(name) };
    let bursts = [burst("8", 8), burst("16", 16), burst("32", 32), burst("64 (chosen)", 64)];
    compare("frames of a burst", &bursts);
    let features = |name, features| Trial { features, ..trial(name) };
    compare(
        "features",
        &[
            features("mergeable buffers only", MERGEABLE),
            features("EVENT_IDX", MODERN),
            features("IN_ORDER", IN_ORDER),
            features("IN_ORDER, EVENT_IDX", RingFeatures { event_idx: true, ..IN_ORDER }),
        ],
    );
    for (title, len) in [("copies, 60 bytes", 60), ("copies, 1514 bytes", 1514)] {
        let copies = |name, copies| Trial { copies, len, ..trial(name) };
        compare(
            title,
            &[
                copies("one (chosen)", Copies::Once),
                copies("two, one hot buffer", Copies::Pool(1)),
                copies("two, pool of 4096", Copies::Pool(COLD_POOL)),
            ],
        );
    }
    compare_fan_in();
}

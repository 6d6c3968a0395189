//! Cost of a frame through the rings, driver and device on one thread: the time of each step, in
//! nanoseconds and time-stamp cycles, as the minimum and median of many bursts.
//!
//! On one thread there are no cache misses between driver and device, so this measures the
//! instructions. Other load on the host shows in the median, not the minimum.

use std::hint::black_box;

use trama_virtqueue::{
    ChainShape, DriverMemory, DriverOptions, DriverRx, DriverTx, HEADER_LEN, MAX_BURST,
    RingFeatures, RxQueue, TxBurst, TxQueue,
};

use crate::{IN_ORDER, MERGEABLE, MODERN, PLAIN, calibrate, cycles};

const ROUNDS: usize = 20_000;
const STEPS: [&str; 8] =
    ["send", "publish", "fetch", "push", "complete", "publish", "discard", "refill"];

/// Cycles of each step of each round.
struct Samples {
    steps: [Vec<u64>; STEPS.len()],
}

impl Samples {
    fn new() -> Samples {
        Samples { steps: std::array::from_fn(|_| Vec::with_capacity(ROUNDS)) }
    }

    /// Returns minimum and median of each step.
    fn summary(&mut self) -> Vec<(u64, u64)> {
        self.steps
            .iter_mut()
            .map(|step| {
                step.sort_unstable();
                (step[0], step[step.len() / 2])
            })
            .collect()
    }
}

struct Case {
    name: &'static str,
    len: usize,
    burst: usize,
    shape: ChainShape,
    features: RingFeatures,
}

fn run(case: &Case, cycle_ns: f64) {
    let options =
        DriverOptions { size: 1024, features: case.features, shape: case.shape, buffer_size: 2048 };
    let memory = DriverMemory::new(2 * options.memory_size()).unwrap();
    let mut driver_tx = DriverTx::new(&memory, options).unwrap();
    let mut driver_rx = DriverRx::new(&memory, options).unwrap();
    let mut tx = TxQueue::new(driver_tx.setup(memory.map())).unwrap();
    let mut rx = RxQueue::new(driver_rx.setup(memory.map())).unwrap();
    let mut burst = TxBurst::new();
    let frame: Vec<u8> = (0..case.len).map(|i| i as u8).collect();
    driver_rx.refill();
    tx.disarm();

    let mut samples = Samples::new();
    for _ in 0..ROUNDS {
        let mut marks = [0; STEPS.len() + 1];
        marks[0] = cycles();
        for _ in 0..case.burst {
            driver_tx.send(&[0; HEADER_LEN], &[&frame]).unwrap();
        }
        marks[1] = cycles();
        black_box(driver_tx.publish());
        marks[2] = cycles();
        assert_eq!(tx.fetch(&mut burst, case.burst).unwrap(), case.burst);
        marks[3] = cycles();
        for i in 0..burst.len() {
            rx.push(burst.header(i), burst.head(i), burst.body(i)).unwrap();
        }
        marks[4] = cycles();
        tx.complete(&burst);
        marks[5] = cycles();
        black_box((tx.publish(), rx.publish()));
        marks[6] = cycles();
        assert_eq!(driver_rx.discard(case.burst).unwrap(), case.burst);
        assert_eq!(driver_tx.reclaim().unwrap(), case.burst);
        marks[7] = cycles();
        driver_rx.refill();
        marks[8] = cycles();
        for (step, pair) in samples.steps.iter_mut().zip(marks.windows(2)) {
            step.push(pair[1] - pair[0]);
        }
    }

    let per_frame = |cycles: u64| cycles as f64 / case.burst as f64;
    let summary = samples.summary();
    // Fetch, push, complete and publish belong to the device.
    let device = summary[2..6].iter().fold((0, 0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
    print!(
        "{:<26} {:>5} {:>5} | {:>6.1} {:>6.1} | {:>6.1} {:>6.1} |",
        case.name,
        case.len,
        case.burst,
        per_frame(device.0),
        per_frame(device.1),
        per_frame(device.0) * cycle_ns,
        per_frame(device.1) * cycle_ns,
    );
    for (step, (_, median)) in STEPS.iter().zip(&summary) {
        print!(" {step} {:.1}", per_frame(*median));
    }
    println!();
}

pub(crate) fn run_all() {
    let cycle_ns = calibrate();
    let case = |name, len, shape, features| Case { name, len, burst: MAX_BURST, shape, features };
    let cases = [
        case("one descriptor", 60, ChainShape::Single, PLAIN),
        case("one descriptor, mergeable", 60, ChainShape::Single, MERGEABLE),
        case("one descriptor, in order", 60, ChainShape::Single, IN_ORDER),
        case("one descriptor, event idx", 60, ChainShape::Single, MODERN),
        case("header split", 60, ChainShape::HeaderSplit, PLAIN),
        case("indirect, header split", 60, ChainShape::Indirect(2), MODERN),
        case("one descriptor, in order", 590, ChainShape::Single, IN_ORDER),
        case("one descriptor, in order", 1514, ChainShape::Single, IN_ORDER),
        Case { burst: 1, ..case("one descriptor, in order", 60, ChainShape::Single, IN_ORDER) },
        Case { burst: 8, ..case("one descriptor, in order", 60, ChainShape::Single, IN_ORDER) },
    ];
    println!("device side per frame: minimum and median; then the median of each step in cycles");
    println!("{:<26} bytes burst |     cycles    |      ns       |", "chains");
    for case in &cases {
        run(case, cycle_ns);
    }
}

//! The worker's time per frame: vhost port to vhost port, known unicast, both drivers in this
//! process on this thread.
//!
//! The driver's own work is timed separately, around each call, and subtracted. Contention of two
//! cores for cache lines is not measured. Each figure is the median of the rounds. Cycles are those
//! of the time-stamp counter.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::time::Instant;

use trama_switch::watch::{self, ReasonSet, Watch, Ways, Writer};
use trama_switch::{Engine, PortId, Time, VlanMode};
use trama_test_kit::{
    Guest, IN_ORDER_FEATURES, LINUX_FEATURES, PLAIN, access, driver_options, frame, mac, network,
    port, ticks, trunk,
};
use trama_virtqueue::RingFeatures;

/// Frames queued before the switch's turn.
const BATCH: usize = 256;
const ROUNDS: usize = 20_000;

struct Case {
    name: &'static str,
    len: usize,
    vlans: (VlanMode, VlanMode),
    features: RingFeatures,
    /// Number of destinations and sources used in turn.
    stations: u8,
    /// Whether the sender's port is watched, as by a capture.
    seen: bool,
}

fn run(case: &Case) {
    let mut engine = Engine::new(1);
    let lab = network(&mut engine, 1500);
    let options = driver_options(1024, case.features);
    let mut a = Guest::add(&mut engine, port(lab, case.vlans.0.clone()), options, options);
    let mut b = Guest::add(&mut engine, port(lab, case.vlans.1.clone()), options, options);
    let mut clock = 0;
    let mut step = |engine: &mut Engine| {
        // Each round comes later than any hold-off.
        clock += 20_000;
        while engine.poll(Time(clock)) {}
    };
    for station in 0..case.stations {
        b.send(&PLAIN, &frame(mac(200), mac(100 + station), case.len));
        step(&mut engine);
    }
    a.frames();
    // As large as that of a capture.
    let (queue, mut reader) = watch::queue(4 << 20).unwrap();
    if case.seen {
        engine.watch(lab, everything_from(a.id, queue)).unwrap();
    }
    let frames: Vec<Vec<u8>> = (0..case.stations)
        .map(|station| frame(mac(100 + station), mac(station), case.len))
        .collect();
    let (mut nanos, mut cycles, mut driver_nanos) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        a.tx.reclaim().unwrap();
        for i in 0..BATCH {
            a.tx.send(&PLAIN, &[&frames[i % frames.len()]]).unwrap();
        }
        a.tx.publish();
        let start = Instant::now();
        let start_ticks = ticks();
        step(&mut engine);
        let end_ticks = ticks();
        let end = Instant::now();
        assert_eq!(b.rx.discard(BATCH).unwrap(), BATCH);
        b.rx.refill();
        while reader.read().is_some() {}
        driver_nanos.push((start - begin + end.elapsed()).as_nanos() as u64);
        nanos.push((end - start).as_nanos() as u64);
        cycles.push(end_ticks - start_ticks);
    }
    println!(
        "{:44} {:7.1} ns {:7.1} cycles a frame   (driver, both ends: {:.1} ns)",
        case.name,
        median(nanos),
        median(cycles),
        median(driver_nanos)
    );
}

fn everything_from(port: PortId, queue: Writer) -> Watch {
    Watch {
        ports: vec![port],
        frames: Ways { received: true, sent: false },
        dropped: Ways { received: true, sent: false },
        drops: ReasonSet::ALL,
        snaplen: usize::from(u16::MAX),
        filter: None,
        sampling: None,
        queue,
    }
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2] as f64 / BATCH as f64
}

fn main() {
    let plain = RingFeatures { mergeable: true, ..Default::default() };
    let trunks = || (trunk(), trunk());
    let cases = [
        Case { name: "60 B", len: 60, vlans: trunks(), features: plain, stations: 1, seen: false },
        Case {
            name: "60 B, in order",
            len: 60,
            vlans: trunks(),
            features: IN_ORDER_FEATURES,
            stations: 1,
            seen: false,
        },
        Case {
            name: "60 B, event index",
            len: 60,
            vlans: trunks(),
            features: LINUX_FEATURES,
            stations: 1,
            seen: false,
        },
        Case {
            name: "60 B, in order, 50 stations each side",
            len: 60,
            vlans: trunks(),
            features: IN_ORDER_FEATURES,
            stations: 50,
            seen: false,
        },
        Case {
            name: "60 B, in order, access to access",
            len: 60,
            vlans: (access(10), access(10)),
            features: IN_ORDER_FEATURES,
            stations: 1,
            seen: false,
        },
        Case {
            name: "60 B, in order, access to trunk (tag pushed)",
            len: 60,
            vlans: (access(10), trunk()),
            features: IN_ORDER_FEATURES,
            stations: 1,
            seen: false,
        },
        Case {
            name: "60 B, event index, captured",
            len: 60,
            vlans: trunks(),
            features: LINUX_FEATURES,
            stations: 1,
            seen: true,
        },
        Case {
            name: "1500 B",
            len: 1500,
            vlans: trunks(),
            features: plain,
            stations: 1,
            seen: false,
        },
        Case {
            name: "1500 B, in order",
            len: 1500,
            vlans: trunks(),
            features: IN_ORDER_FEATURES,
            stations: 1,
            seen: false,
        },
        Case {
            name: "1500 B, captured",
            len: 1500,
            vlans: trunks(),
            features: plain,
            stations: 1,
            seen: true,
        },
    ];
    for case in &cases {
        run(case);
    }
}

//! How the worker's time per frame grows with the addresses it knows, with its ports, and with the
//! frames it finds at once, and with a MAC table that outlives the process.
//! `cargo bench -p trama-switch --bench growth [-- macs|kept|ports|burst]`.
//!
//! All drivers are in this process on this thread; their time is not counted. The sizes of a table
//! take turns in blocks. A figure is the median of its blocks; each block begins with rounds that
//! only bring its own data back into the caches. The last column is the rate compared with the
//! first row.
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::time::Duration;

use trama_frame::MacAddr;
use trama_switch::{Doorbell, Engine, Epoch, NetworkId, NetworkSettings, Time};
use trama_test_kit::{Guest, IN_ORDER_FEATURES, PLAIN, access, driver_options, frame, port, ticks};
use trama_virtqueue::{DriverOptions, HEADER_LEN, MAX_BURST};

const BLOCKS: usize = 7;
/// Frames per block, the same for all sizes.
const FRAMES_PER_BLOCK: usize = 300_000;
const BATCH: usize = 256;
/// Longer than any hold-off, in nanoseconds.
const PAST_HOLD_OFF: u64 = 100_000;
/// Of all pairs together, so that the guests' memory takes the same room in caches for any number
/// of pairs.
const RING_ENTRIES: usize = 8192;

/// One row of a table.
struct Trial {
    name: String,
    lab: Lab,
    /// Each sender and its receiver.
    pairs: Vec<(Guest, Guest)>,
    /// Frames that each sender queues in one round.
    batch: usize,
    /// Stations on each side, used in turn.
    stations: u32,
    random: u32,
    /// Nanoseconds between two polls of the switch.
    step: u64,
    blocks: Vec<f64>,
}

/// An engine and its clock.
struct Lab {
    engine: Engine,
    network: NetworkId,
    clock: u64,
}

impl Lab {
    fn new(mut engine: Engine, mac_table_size: usize) -> Lab {
        let network = engine.add_network(NetworkSettings {
            name: "lab".into(),
            mtu: 1500,
            mac_table_size,
            mac_aging: Duration::from_secs(300),
        });
        Lab { engine, network, clock: 0 }
    }

    /// Keeps the MAC table in memory that outlives the process.
    fn keep(mut self) -> Lab {
        let mut network = self.engine.give_network(self.network, &Doorbell::default()).unwrap();
        drop(network.keep_macs(Epoch::of(Time::ZERO)).unwrap());
        self.engine.take_network(network, Time::ZERO);
        self
    }

    fn guest(&mut self, size: u16) -> Guest {
        let options = DriverOptions {
            buffer_size: HEADER_LEN + 116,
            ..driver_options(size, IN_ORDER_FEATURES)
        };
        Guest::add(&mut self.engine, port(self.network, access(10)), options, options)
    }

    /// Runs the switch's part of a round, each poll `step` nanoseconds after the last; returns the
    /// cycles taken.
    fn poll(&mut self, step: u64) -> u64 {
        let start = ticks();
        self.clock += step;
        while self.engine.poll(Time(self.clock)) {
            self.clock += step;
        }
        ticks() - start
    }
}

/// Returns the address of a station: `side` 1 sends, 2 receives.
fn station(side: u64, pair: usize, number: u32) -> MacAddr {
    MacAddr::from_u64(0x0200_0000_0000 | side << 36 | (pair as u64) << 24 | u64::from(number))
}

impl Trial {
    fn new(name: String, mut lab: Lab, pairs: usize, batch: usize, stations: u32) -> Trial {
        let size = (RING_ENTRIES / pairs) as u16;
        let pairs = (0..pairs).map(|_| (lab.guest(size), lab.guest(size))).collect();
        let (random, step, blocks) = (1, PAST_HOLD_OFF, Vec::new());
        let mut trial = Trial { name, lab, pairs, batch, stations, random, step, blocks };
        trial.introduce();
        trial
    }

    /// Sends a frame from every station to an address of its own side, so that it is learned but
    /// not delivered.
    fn introduce(&mut self) {
        for pair in 0..self.pairs.len() {
            for number in 0..self.stations {
                for side in [1, 2] {
                    let bytes = frame(station(side, pair, 0), station(side, pair, number), 60);
                    let (sender, receiver) = &mut self.pairs[pair];
                    if side == 1 { sender } else { receiver }.send(&PLAIN, &bytes);
                }
                if number % BATCH as u32 == 0 || number + 1 == self.stations {
                    self.lab.poll(PAST_HOLD_OFF);
                    self.empty();
                }
            }
        }
    }

    /// Takes and discards everything that arrived.
    fn empty(&mut self) {
        for (sender, receiver) in &mut self.pairs {
            for guest in [sender, receiver] {
                guest.rx.discard(usize::MAX).unwrap();
                guest.rx.refill();
                guest.tx.reclaim().unwrap();
            }
        }
    }

    fn next_station(&mut self) -> u32 {
        // xorshift: the drivers' time is not counted, but they share the caches.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % self.stations
    }

    /// Runs one round; returns its cycles.
    fn round(&mut self) -> u64 {
        for pair in 0..self.pairs.len() {
            for _ in 0..self.batch {
                let to = station(2, pair, self.next_station());
                let from = station(1, pair, self.next_station());
                let parts: [&[u8]; 3] = [&to.0, &from.0, &[0x88; 48]];
                self.pairs[pair].0.tx.send(&PLAIN, &parts).unwrap();
            }
            self.pairs[pair].0.tx.publish();
        }
        let cycles = self.lab.poll(self.step);
        for (sender, receiver) in &mut self.pairs {
            assert_eq!(receiver.rx.discard(usize::MAX).unwrap(), self.batch);
            receiver.rx.refill();
            sender.tx.reclaim().unwrap();
        }
        cycles
    }

    fn block(&mut self) {
        let frames = self.batch * self.pairs.len();
        let rounds = FRAMES_PER_BLOCK / frames;
        (0..rounds / 2).for_each(|_| {
            self.round();
        });
        let mut samples: Vec<u64> = (0..rounds / 2).map(|_| self.round()).collect();
        samples.sort_unstable();
        self.blocks.push(samples[samples.len() / 2] as f64 / frames as f64);
    }
}

fn compare(title: &str, mut trials: Vec<Trial>) {
    for _ in 0..BLOCKS {
        trials.iter_mut().for_each(Trial::block);
    }
    println!("\n{title:28} cycles a frame (range of blocks)   rate");
    let mut first = None;
    for trial in &mut trials {
        trial.blocks.sort_unstable_by(f64::total_cmp);
        let median = trial.blocks[BLOCKS / 2];
        let first = *first.get_or_insert(median);
        println!(
            "{:28} {median:8.1}    ({:7.1} -{:7.1})   {:8.2}",
            trial.name,
            trial.blocks[0],
            trial.blocks[BLOCKS - 1],
            first / median
        );
    }
}

fn main() {
    // Cargo passes `--bench` to every benchmark.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    let lab = || Lab::new(Engine::new(1), 8192);
    if is_wanted("macs") {
        let trial = |macs: u32| {
            let lab = Lab::new(Engine::new(1), macs.max(8192) as usize);
            let trial = Trial::new(format!("{macs} addresses"), lab, 1, BATCH, macs / 2);
            // Full batches are not held back. They come as at 8 million frames a second: how often
            // an address is refreshed depends on it.
            Trial { step: 16_000, ..trial }
        };
        compare("MAC addresses", [1000, 10, 100, 10_000, 100_000, 1_000_000].map(trial).into());
    }
    if is_wanted("kept") {
        let trial = |(macs, is_kept): (u32, bool)| {
            let lab = Lab::new(Engine::new(1), macs as usize);
            let lab = if is_kept { lab.keep() } else { lab };
            let name = format!("{macs} addresses{}", if is_kept { ", kept" } else { "" });
            Trial { step: 16_000, ..Trial::new(name, lab, 1, BATCH, macs / 2) }
        };
        let both = |macs| [(macs, false), (macs, true)].map(trial);
        compare("where the table is", both(1_000_000).into());
        compare("where the table is", both(10_000).into());
    }
    if is_wanted("ports") {
        let busy =
            |ports: usize| Trial::new(format!("{ports} ports, all busy"), lab(), ports / 2, 64, 1);
        compare("ports", [2, 8, 32, 128, 256].map(busy).into());
        let silent = |ports: usize| {
            let mut trial =
                Trial::new(format!("{ports} ports, 2 busy, all polled"), lab(), 1, BATCH, 1);
            // Without a worker nothing wakes the engine, so it polls the silent ports too, as a
            // worker that never sleeps does.
            for _ in 2..ports {
                drop(trial.lab.guest(64));
            }
            trial
        };
        compare("ports", [2, 8, 32, 128, 256].map(silent).into());
    }
    if is_wanted("burst") {
        let found = |frames| Trial::new(format!("{frames} frames found"), lab(), 1, frames, 1);
        compare("frames found at once", [256, 128, 64, 32, 16, 8, 4, 2, 1].map(found).into());
        let most = |burst| {
            let lab = Lab::new(Engine::with_burst(1, burst), 8192);
            Trial::new(format!("at most {burst} a burst"), lab, 1, BATCH, 1)
        };
        compare("most frames of a burst", [MAX_BURST, 32, 16, 8].map(most).into());
    }
}

//! A device that dies between any two steps of a turn, and the next one that runs its rings: what
//! drivers may rely on, and what only the order of the steps ensures. The device is a switch for
//! two ports, reduced to its use of the rings.
#![cfg(test)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use trama_test_kit::{Exchange, IN_ORDER_FEATURES, LINUX_FEATURES, Plug};
use trama_virtqueue::{RingFeatures, RxQueue, TxBurst, TxQueue};

/// Most bursts of one ring in a row, as the switch takes them.
const BURSTS: usize = 4;
/// The device dies at one step in this many.
const STEPS: u64 = 40;
/// The least number of deaths, and of those that make frames come again.
const DEATHS: u64 = 2000;
const REPEATS: u64 = 10;

/// The rings of one port, each with its call descriptor.
struct Rings {
    receive: (RxQueue, OwnedFd),
    transmit: (TxQueue, OwnedFd),
}

impl Rings {
    /// Continues the rings, and calls both drivers.
    fn resume(plug: &Plug) -> Rings {
        let [receive, transmit] = plug.setups.clone().map(|setup| setup.resumed_from_used());
        let call = |ring| plug.fds(ring).call.unwrap();
        let mut transmit = TxQueue::new(transmit).unwrap();
        transmit.disarm();
        let rings = Rings {
            receive: (RxQueue::new(receive).unwrap(), call(0)),
            transmit: (transmit, call(1)),
        };
        signal(&rings.receive.1);
        signal(&rings.transmit.1);
        rings
    }
}

fn signal(call: &OwnedFd) {
    rustix::io::write(call, &1u64.to_ne_bytes()).unwrap();
}

/// The device has died.
struct Died;

/// Decides at each step whether the device survives it (xorshift).
struct Fate {
    random: u64,
    is_spared: bool,
    /// Deaths after the receiver saw frames and before the sender did.
    between: u64,
}

impl Fate {
    fn step(&mut self) -> Result<(), Died> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.is_spared || !self.random.is_multiple_of(STEPS) { Ok(()) } else { Err(Died) }
    }
}

/// Gives one port's transmit ring a turn.
fn turn(from: &mut Rings, to: &mut Rings, fate: &mut Fate) -> Result<bool, Died> {
    let mut burst = TxBurst::new();
    let mut moved = false;
    for _ in 0..BURSTS {
        if from.transmit.0.fetch(&mut burst, usize::MAX).unwrap() == 0 {
            break;
        }
        moved = true;
        fate.step()?;
        to.receive.0.expect(burst.len());
        for frame in 0..burst.len() {
            to.receive.0.push(burst.header(frame), burst.head(frame), burst.body(frame)).unwrap();
        }
        fate.step()?;
        from.transmit.0.complete(&burst);
        fate.step()?;
    }
    // The receiver sees its frames first, or they would be lost with a device that dies in between.
    let calls_receiver = to.receive.0.publish();
    fate.step().inspect_err(|_| fate.between += u64::from(moved))?;
    let calls_sender = from.transmit.0.publish();
    fate.step()?;
    if calls_receiver {
        signal(&to.receive.1);
    }
    fate.step()?;
    if calls_sender {
        signal(&from.transmit.1);
    }
    Ok(moved)
}

/// Runs the rings of both ports until the device dies, or until `is_over`.
fn live(plugs: &[Plug; 2], fate: &mut Fate, is_over: impl Fn() -> bool) {
    let [mut a, mut b] = plugs.each_ref().map(Rings::resume);
    while !is_over() {
        let moved =
            turn(&mut a, &mut b, fate).and_then(|moved| Ok(moved | turn(&mut b, &mut a, fate)?));
        match moved {
            Ok(true) => {}
            Ok(false) => std::thread::yield_now(),
            Err(Died) => return,
        }
    }
}

fn exchange(features: RingFeatures, fate: &mut Fate) {
    let mut exchange = Exchange::new(features);
    let (plugs, deaths) = (exchange.plugs(), exchange.deaths.clone());
    let stop = AtomicBool::new(false);
    let again = std::thread::scope(|scope| {
        let driver = scope.spawn(|| {
            exchange.run(&stop);
            exchange.again()
        });
        let is_enough =
            |fate: &Fate| deaths.load(Ordering::SeqCst) >= DEATHS && fate.between >= REPEATS;
        while !is_enough(fate) && !driver.is_finished() {
            live(&plugs, fate, || driver.is_finished());
            deaths.fetch_add(1, Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
        fate.is_spared = true;
        live(&plugs, fate, || driver.is_finished());
        fate.is_spared = false;
        driver.join().unwrap()
    });
    println!("{again} times, frames came again, after {} deaths in between", fate.between);
    assert!(again > 0, "frames come again after deaths between the two used indices");
    fate.between = 0;
}

#[test]
fn the_next_device_goes_on_exactly_where_the_last_one_has_died() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var("TRAMA_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or(u64::from(since.subsec_nanos())) | 1;
    println!("TRAMA_SEED={seed}");
    let mut fate = Fate { random: seed, is_spared: false, between: 0 };
    for features in [LINUX_FEATURES, IN_ORDER_FEATURES] {
        exchange(features, &mut fate);
    }
}

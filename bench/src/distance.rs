//! How far apart two cores are: what it takes a cache line to go from one to the other and back.
//!
//! The cores of a virtual machine are where its hypervisor puts them, and it moves them. On one
//! machine the way took 0.1 µs in some spells and 0.48 µs in others, of seconds to minutes, and
//! rings between the two cores then carried 20 or 7 million frames a second, whatever moved them. A
//! figure of the one kind is not to be compared with one of the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trama_bench::generator::pin_to;

/// Round trips that are timed together: short against the time that a thread has a core.
const BATCH: u64 = 50;
/// So many batches are enough. The fastest counts: nothing came between.
const ENOUGH: usize = 200;
/// How long to try, as others may be on either core.
const LIMIT: Duration = Duration::from_millis(200);
/// Empty looks between two looks at the clock, which takes longer than they do.
const LOOKS: u32 = 1000;

/// Alone on its cache line and on the one that is fetched with it.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// Nanoseconds of a round trip between the core of the calling thread and `core`; none if they
/// never ran at the same time.
pub fn round_trip(core: usize) -> Option<f64> {
    let (there, back, stop) = (Line::default(), Line::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        // Without its core nothing answers, and nothing is told.
        scope.spawn(|| pin_to(core).map(|()| echo(&there, &back, &stop)));
        let fastest = fastest(&there, &back);
        stop.store(true, Ordering::Relaxed);
        fastest
    })
}

fn echo(there: &Line, back: &Line, stop: &AtomicBool) {
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = there.0.load(Ordering::Acquire);
        if number != last {
            last = number;
            back.0.store(number, Ordering::Release);
        }
    }
}

fn fastest(there: &Line, back: &Line) -> Option<f64> {
    let end = Instant::now() + LIMIT;
    let mut fastest = None;
    for batch in 0..ENOUGH as u64 {
        let begin = Instant::now();
        for number in batch * BATCH + 1..=(batch + 1) * BATCH {
            there.0.store(number, Ordering::Release);
            if !comes_back(number, back, end) {
                return fastest;
            }
        }
        let nanos = begin.elapsed().as_nanos() as f64 / BATCH as f64;
        fastest = Some(fastest.map_or(nanos, |known: f64| known.min(nanos)));
    }
    fastest
}

fn comes_back(number: u64, back: &Line, end: Instant) -> bool {
    loop {
        for _ in 0..LOOKS {
            if back.0.load(Ordering::Acquire) == number {
                return true;
            }
        }
        if Instant::now() > end {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_some_time_and_none_comes_from_a_core_that_is_not_there() {
        // Two cores, and no attempt on one of them alone. On a busy machine it may take many until
        // both are free at once.
        pin_to(1).expect("a machine with two cores");
        let mut attempts = (0..300).map(|_| round_trip(0));
        assert!(attempts.any(|nanos| nanos.is_some_and(|nanos| nanos > 1.0)));
        assert_eq!(round_trip(1_000_000), None);
    }
}

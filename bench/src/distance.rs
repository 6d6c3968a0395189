//! Distance between two cores: the round-trip time of a cache line.
//!
//! The hypervisor places the cores of a virtual machine and moves them. On one machine the round
//! trip took 0.1 µs or 0.48 µs, alternating every few seconds to minutes, and rings between the two
//! cores then carried 20 or 7 million frames a second with every switch. Figures of the two states
//! are not comparable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trama_bench::generator::pin_to;

/// Round trips timed together: short compared with a scheduler time slice.
const BATCH: u64 = 50;
/// Batches to measure. The fastest counts, as it was not interrupted.
const BATCHES: usize = 200;
/// Time limit: other processes may occupy either core.
const LIMIT: Duration = Duration::from_millis(200);
/// Polls between two clock readings, which cost more than a poll.
const LOOKS: u32 = 1000;

/// Alone on its cache line and on the one that the prefetcher fetches with it.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// Returns the round-trip time in nanoseconds between the calling thread's core and `core`; `None`
/// if the two never ran at the same time.
pub(crate) fn round_trip(core: usize) -> Option<f64> {
    let (request, reply, stop) = (Line::default(), Line::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        // If pinning fails, there is no echo, and so no result.
        scope.spawn(|| pin_to(core).map(|()| echo(&request, &reply, &stop)));
        let fastest = fastest(&request, &reply);
        stop.store(true, Ordering::Relaxed);
        fastest
    })
}

fn echo(request: &Line, reply: &Line, stop: &AtomicBool) {
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = request.0.load(Ordering::Acquire);
        if number != last {
            last = number;
            reply.0.store(number, Ordering::Release);
        }
    }
}

fn fastest(request: &Line, reply: &Line) -> Option<f64> {
    let end = Instant::now() + LIMIT;
    let mut fastest = None;
    for batch in 0..BATCHES as u64 {
        let begin = Instant::now();
        for number in batch * BATCH + 1..=(batch + 1) * BATCH {
            request.0.store(number, Ordering::Release);
            if !wait_for_echo(number, reply, end) {
                return fastest;
            }
        }
        let nanos = begin.elapsed().as_nanos() as f64 / BATCH as f64;
        fastest = Some(fastest.map_or(nanos, |known: f64| known.min(nanos)));
    }
    fastest
}

fn wait_for_echo(number: u64, reply: &Line, end: Instant) -> bool {
    loop {
        for _ in 0..LOOKS {
            if reply.0.load(Ordering::Acquire) == number {
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
        // Tries until both cores are free at once, which may take many attempts on a busy machine.
        pin_to(1).expect("a machine with two cores");
        let mut attempts = (0..300).map(|_| round_trip(0));
        assert!(attempts.any(|nanos| nanos.is_some_and(|nanos| nanos > 1.0)));
        assert_eq!(round_trip(1_000_000), None);
    }
}

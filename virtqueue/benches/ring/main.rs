//! Cost of the rings. `cargo bench -p trama-virtqueue --bench ring [-- steps|peer|trials]`; each
//! part takes less than a minute.
//!
//! - `steps`: a frame through both rings, step by step, on one thread;
//! - `peer`: the device side compared with the crate `virtio-queue`, on the same chains in turn;
//! - `trials`: the constants and choices of the ring, each compared with its alternatives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark")]

mod peer;
mod steps;
mod trials;

use std::time::Instant;

use trama_virtqueue::RingFeatures;

const PLAIN: RingFeatures = RingFeatures {
    event_idx: false,
    indirect: false,
    in_order: false,
    mergeable: false,
    short_header: false,
};
const MERGEABLE: RingFeatures = RingFeatures { mergeable: true, ..PLAIN };
const IN_ORDER: RingFeatures = RingFeatures { in_order: true, ..MERGEABLE };
/// The features that Linux drivers negotiate.
const MODERN: RingFeatures = RingFeatures { event_idx: true, indirect: true, ..MERGEABLE };

/// Reads the time-stamp counter, or nanoseconds where there is none.
fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reading the counter has no effect.
    #[expect(unsafe_code, reason = "reads the time-stamp counter")]
    unsafe {
        use std::arch::x86_64::{_mm_lfence, _rdtsc};
        _mm_lfence();
        let now = _rdtsc();
        _mm_lfence();
        now
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Returns the nanoseconds of one cycle of the counter.
fn calibrate() -> f64 {
    let (start, first) = (Instant::now(), cycles());
    while start.elapsed().as_millis() < 50 {}
    start.elapsed().as_nanos() as f64 / (cycles() - first) as f64
}

/// Median, 5th and 95th percentile; NaN if nothing was measured.
struct Summary {
    median: f64,
    low: f64,
    high: f64,
}

impl Summary {
    fn of(mut values: Vec<f64>) -> Summary {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().saturating_sub(1) as f64;
        let at = |share: f64| values.get((last * share) as usize).copied().unwrap_or(f64::NAN);
        Summary { median: at(0.5), low: at(0.05), high: at(0.95) }
    }
}

fn main() {
    // Cargo passes `--bench` to every benchmark.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    if is_wanted("steps") {
        steps::run_all();
    }
    if is_wanted("peer") {
        peer::run_all();
    }
    if is_wanted("trials") {
        trials::run_all();
    }
}

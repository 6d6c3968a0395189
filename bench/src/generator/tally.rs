//! Arrivals: sequence numbers and latencies.

use hdrhistogram::Histogram;

use super::frame::Stamp;
use super::load::FLOOD;

/// Sequence numbers up to this far behind the newest are tracked. At most the rings and a burst are
/// in flight; a switch that keeps the order of frames needs none of it.
const WINDOW: u32 = 1024;
/// Latencies have three significant digits and saturate at a minute.
const LONGEST: u64 = 60_000_000_000;

/// Length of a latency window in nanoseconds: many fit between two pauses of the machine.
const LATENCY_WINDOW: u64 = 10_000_000;
/// Frames below which a window has no 99th percentile.
const FEWEST: u64 = 100;

/// The classification of a sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arrival {
    /// Newer than all before.
    Newest,
    /// Older than one that has arrived, first arrival.
    Late,
    /// A duplicate, or too old to tell.
    Again,
}

/// The frames from one port to another.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// One more than the newest sequence number.
    next: u32,
    /// Which of the newest [`WINDOW`] have arrived, by sequence number.
    seen: [u64; WINDOW as usize / 64],
}

impl Stream {
    #[inline(always)]
    fn accept(&mut self, sequence: u32) -> Arrival {
        let arrival = if sequence == self.next {
            self.next = sequence.wrapping_add(1);
            Arrival::Newest
        } else {
            self.jump(sequence)
        };
        if arrival != Arrival::Again {
            let (word, bit) = place(sequence);
            self.seen[word] |= bit;
        }
        arrival
    }

    /// A number that is not the next one.
    #[cold]
    fn jump(&mut self, sequence: u32) -> Arrival {
        let ahead = sequence.wrapping_sub(self.next);
        if ahead < 1 << 31 {
            for missing in 0..ahead.min(WINDOW) {
                let (word, bit) = place(self.next.wrapping_add(missing));
                self.seen[word] &= !bit;
            }
            if ahead >= WINDOW {
                self.seen = [0; WINDOW as usize / 64];
            }
            self.next = sequence.wrapping_add(1);
            return Arrival::Newest;
        }
        let behind = self.next.wrapping_sub(sequence);
        let (word, bit) = place(sequence);
        match behind > WINDOW || self.seen[word] & bit != 0 {
            true => Arrival::Again,
            false => Arrival::Late,
        }
    }
}

#[inline(always)]
fn place(sequence: u32) -> (usize, u64) {
    let at = sequence % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

/// Latencies of a run, and the 99th percentile of each window.
pub(super) struct Latencies {
    pub(super) all: Histogram<u64>,
    /// Latencies of the current window, with two digits: reading and clearing it takes a
    /// microsecond.
    window: Histogram<u64>,
    window_end: u64,
    pub(super) windows: Vec<u64>,
}

impl Latencies {
    fn new() -> Option<Latencies> {
        // The bounds are valid constants.
        let histogram = |digits| Histogram::new_with_bounds(1, LONGEST, digits).ok();
        Some(Latencies {
            all: histogram(3)?,
            window: histogram(2)?,
            window_end: LATENCY_WINDOW,
            windows: Vec::with_capacity(1024),
        })
    }

    #[inline(always)]
    fn record(&mut self, now: u64, latency: u64) {
        if now >= self.window_end {
            self.close_window();
            self.window_end = now - now % LATENCY_WINDOW + LATENCY_WINDOW;
        }
        self.all.saturating_record(latency);
        self.window.saturating_record(latency);
    }

    #[cold]
    fn close_window(&mut self) {
        if self.window.len() >= FEWEST {
            self.windows.push(self.window.value_at_quantile(0.99));
        }
        self.window.reset();
    }
}

/// All arrivals of one run.
pub(super) struct Tally {
    run: u16,
    ports: usize,
    /// By receiver and origin.
    streams: Vec<Stream>,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    pub(super) strays: u64,
    /// When the last frame arrived.
    pub(super) last: u64,
    pub(super) latency: Option<Latencies>,
}

impl Tally {
    /// Returns an empty tally of `run` between `ports`, with or without latencies.
    pub(super) fn new(run: u16, ports: usize, with_latency: bool) -> Tally {
        Tally {
            run,
            ports,
            streams: vec![Stream::default(); ports * ports],
            received: 0,
            duplicates: 0,
            reordered: 0,
            strays: 0,
            last: 0,
            latency: with_latency.then(Latencies::new).flatten(),
        }
    }

    /// Records a frame that arrived at `port`.
    #[inline(always)]
    pub(super) fn take(&mut self, port: usize, stamp: Stamp, now: u64) {
        let origin = usize::from(stamp.origin);
        if stamp.run != self.run || origin >= self.ports {
            return;
        }
        let meant = usize::from(stamp.target) == port || stamp.target == FLOOD && origin != port;
        if !meant {
            self.strays += 1;
            return;
        }
        match self.streams[port * self.ports + origin].accept(stamp.sequence) {
            Arrival::Newest => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Again => {
                self.duplicates += 1;
                return;
            }
        }
        self.received += 1;
        self.last = now;
        if let Some(latency) = &mut self.latency {
            latency.record(now, now.saturating_sub(stamp.time));
        }
    }

    /// Returns whether anything arrived at `port` from `origin`.
    pub(super) fn has_received(&self, port: usize, origin: usize) -> bool {
        self.streams[port * self.ports + origin].next > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generator::schedule::Schedule;

    fn stamp(sequence: u32) -> Stamp {
        Stamp { run: 3, origin: 0, target: 1, sequence, time: 0 }
    }

    fn arrive(sequences: impl IntoIterator<Item = u32>) -> (u64, u64, u64) {
        let mut tally = Tally::new(3, 2, false);
        sequences.into_iter().for_each(|sequence| tally.take(1, stamp(sequence), 0));
        (tally.received, tally.reordered, tally.duplicates)
    }

    #[test]
    fn order_gaps_and_duplicates_are_distinguished() {
        assert_eq!(arrive(0..5000), (5000, 0, 0));
        assert_eq!(arrive([0, 1, 5, 6]), (4, 0, 0), "a gap");
        assert_eq!(arrive([0, 2, 1, 3]), (4, 1, 0), "one overtaken");
        assert_eq!(arrive([0, 1, 1, 2, 0, 2]), (3, 0, 3), "repetitions");
        assert_eq!(arrive([1, 0, 0]), (2, 1, 1), "the first one late, and again");
        let jump = [0, 100_000, 99_999, 100_000 - WINDOW, 100_001 - WINDOW, 99_999];
        assert_eq!(arrive(jump), (4, 2, 2), "the window's edge");
        // A gap as long as the window clears it.
        assert_eq!(arrive((0..10).chain([WINDOW + 9, 10, 1030])), (13, 2, 0));
    }

    #[test]
    fn only_frames_of_this_run_count_and_only_where_they_belong() {
        let mut tally = Tally::new(3, 3, false);
        tally.take(1, Stamp { run: 2, ..stamp(0) }, 0);
        tally.take(1, Stamp { origin: 3, ..stamp(0) }, 0);
        assert_eq!((tally.received, tally.strays), (0, 0));
        tally.take(2, stamp(0), 0);
        tally.take(0, Stamp { target: FLOOD, ..stamp(0) }, 0);
        assert_eq!((tally.received, tally.strays), (0, 2), "elsewhere, and back at its sender");
        for port in [1, 2] {
            tally.take(port, Stamp { target: FLOOD, ..stamp(0) }, 0);
        }
        assert_eq!((tally.received, tally.duplicates), (2, 0), "one copy for each receiver");
        assert!(tally.has_received(1, 0) && !tally.has_received(0, 1));
    }

    proptest! {
        /// Compares with a set, for any path that loses, repeats and delays frames.
        #[test]
        fn every_path_is_accounted_for(
            moves in prop::collection::vec((0..40u32, 0..10u8), 1..2000),
        ) {
            let mut arrived = Vec::new();
            for (sequence, (delay, fate)) in moves.iter().enumerate() {
                let copies = match fate { 0 => 0, 1 => 2, _ => 1 };
                arrived.extend((0..copies).map(|_| (sequence as u32 + delay, sequence as u32)));
            }
            arrived.sort();
            let order: Vec<u32> = arrived.iter().map(|(_, sequence)| *sequence).collect();
            let (mut seen, mut late) = (std::collections::BTreeSet::new(), 0);
            for sequence in &order {
                let overtaken = seen.last().is_some_and(|newest| newest > sequence);
                late += u64::from(seen.insert(*sequence) && overtaken);
            }
            let unique = seen.len() as u64;
            prop_assert_eq!(arrive(order.clone()), (unique, late, order.len() as u64 - unique));
        }
    }

    /// A device that takes 1 µs a frame stalls for 100 ms of a second. The generator's ring holds
    /// 256 frames, so most frames due could not even be sent. A generator that dates frames when it
    /// sends them would find 256 slow ones in a million.
    #[test]
    fn a_stall_shows_in_the_percentiles() {
        const RATE: f64 = 500_000.0;
        let mut schedule = Schedule::paced(RATE, 0.0, 1_000_000_000);
        let mut tally = Tally::new(3, 2, true);
        let (mut ring, mut sequence) = (std::collections::VecDeque::new(), 0);
        for now in (0..1_300_000_000u64).step_by(1000) {
            while ring.len() < 256
                && let Some(time) = schedule.take(now)
            {
                ring.push_back(Stamp { time, ..stamp(sequence) });
                sequence += 1;
            }
            let stalls = (400_000_000..500_000_000).contains(&now);
            if !stalls && let Some(stamp) = ring.pop_front() {
                tally.take(1, stamp, now);
            }
        }
        assert_eq!((tally.received, tally.reordered), (500_000, 0));
        let latencies = tally.latency.unwrap();
        let latency = &latencies.all;
        let at = |percentile| latency.value_at_percentile(percentile);
        // 50,000 frames were due in the stall and as many while the device caught up, at twice the
        // rate: a fifth of all waited, 50 ms on average.
        assert!(at(50.0) <= 2_000, "{}", at(50.0));
        assert!((45_000_000..=55_000_000).contains(&at(90.0)), "{}", at(90.0));
        assert!((90_000_000..=96_000_000).contains(&at(99.0)), "{}", at(99.0));
        assert!((99_000_000..=101_000_000).contains(&at(100.0)), "{}", at(100.0));
        // Windows of 10 ms: the stall lasted a tenth of a second, and so did catching up. The frame
        // that opens a window closes the previous one, so the last window is not among them.
        let mut windows = latencies.windows;
        assert_eq!(windows.len(), 89, "none in the stall, and none of what follows the end");
        windows.sort_unstable();
        assert!(windows[windows.len() / 2] <= 2_000, "{windows:?}");
        assert_eq!(windows.iter().filter(|p99| **p99 > 1_000_000).count(), 10, "{windows:?}");
    }
}

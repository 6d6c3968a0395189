//! The last ten minutes of each port and each worker, a sample a second.
//!
//! A sample of a port has 12 bytes, so a port costs 7.2 kB once it is ten minutes old, 1000 ports
//! 7.2 MB, and [`MOST`] ports, beyond which none has a history, 30 MB. Rates are kept as `f32`,
//! which is exact to seven digits.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

/// Seconds that are kept.
const LENGTH: usize = 600;
/// Ports that have a history.
const MOST: usize = 4096;

/// The samples of all.
#[derive(Debug, Default)]
pub(crate) struct History {
    ports: HashMap<String, VecDeque<Sample>>,
    workers: Vec<VecDeque<f32>>,
    /// When the last sample was taken, in seconds since 1970.
    end: u64,
    /// Parts of a second that no sample stands for yet.
    rest: f64,
}

/// A second of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Bits.
    pub(crate) rx: f32,
    /// Bits.
    pub(crate) tx: f32,
    /// Frames.
    pub(crate) drops: f32,
}

/// The last minutes of a port or of a worker.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Chart {
    Port { end: u64, step: u64, rx: Vec<u64>, tx: Vec<u64>, drops: Vec<u64> },
    Worker { end: u64, step: u64, busy: Vec<f32> },
}

impl History {
    /// Returns how many samples stand for this many seconds since the last ones: none, one, or
    /// several if the daemon was asked late. `end` is the time now in seconds since 1970, for the
    /// charts' axis alone.
    pub(crate) fn advance(&mut self, seconds: f64, end: u64) -> usize {
        self.end = end;
        let due = self.rest + seconds;
        let samples = due.round().clamp(0.0, LENGTH as f64);
        self.rest = (due - samples).clamp(-0.5, 0.5);
        samples as usize
    }

    /// Adds a sample of a port this many times.
    pub(crate) fn port(&mut self, name: &str, sample: Sample, times: usize) {
        if let Some(samples) = self.ports.get_mut(name) {
            add(samples, sample, times);
        } else if self.ports.len() < MOST {
            let mut samples = VecDeque::new();
            add(&mut samples, sample, times.min(1));
            self.ports.insert(name.to_owned(), samples);
        }
    }

    /// Adds a sample of each worker this many times.
    pub(crate) fn workers(&mut self, busy: impl ExactSizeIterator<Item = f64>, times: usize) {
        self.workers.resize_with(busy.len(), VecDeque::new);
        for (samples, busy) in self.workers.iter_mut().zip(busy) {
            add(samples, (busy * 1000.0).round() as f32 / 1000.0, times);
        }
    }

    /// Forgets the ports that are not there any more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.ports.retain(|name, _| is_there(name));
    }

    /// Returns the last minutes of a port; of one without a history, a chart without points.
    pub(crate) fn of_port(&self, name: &str) -> Chart {
        let samples = || self.ports.get(name).into_iter().flatten();
        let each = |of: fn(&Sample) -> f32| samples().map(move |it| of(it).round() as u64);
        Chart::Port {
            end: self.end,
            step: 1,
            rx: each(|it| it.rx).collect(),
            tx: each(|it| it.tx).collect(),
            drops: each(|it| it.drops).collect(),
        }
    }

    /// Returns the last minutes of a worker.
    pub(crate) fn of_worker(&self, id: usize) -> Option<Chart> {
        let busy = self.workers.get(id)?.iter().copied().collect();
        Some(Chart::Worker { end: self.end, step: 1, busy })
    }
}

fn add<T: Copy>(samples: &mut VecDeque<T>, sample: T, times: usize) {
    for _ in 0..times.min(LENGTH) {
        if samples.len() == LENGTH {
            samples.pop_front();
        } else if samples.len() == samples.capacity() {
            // Doubled as usual, but not beyond what is needed.
            let more = samples.len().max(16).min(LENGTH - samples.len());
            samples.reserve_exact(more);
        }
        samples.push_back(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rx: f32) -> Sample {
        Sample { rx, tx: 0.0, drops: 0.0 }
    }

    fn rx(history: &History) -> Vec<u64> {
        match history.of_port("vm1") {
            Chart::Port { rx, .. } => rx,
            other @ Chart::Worker { .. } => panic!("{other:?}"),
        }
    }

    #[test]
    fn ten_minutes_are_kept_in_the_memory_that_the_head_states() {
        let mut history = History::default();
        for second in 0..700 {
            let times = history.advance(1.0, second);
            history.port("vm1", sample(second as f32), times);
            history.workers([0.25].into_iter(), times);
        }
        let rx = rx(&history);
        assert_eq!((rx.len(), rx[0], rx[599]), (600, 100, 699));
        assert_eq!(history.ports["vm1"].capacity() * size_of::<Sample>(), 7200);
        let Some(Chart::Worker { end, busy, .. }) = history.of_worker(0) else { panic!() };
        assert_eq!((end, busy.len(), busy[0]), (699, 600, 0.25));
        assert_eq!(history.of_worker(1), None);
        let Chart::Port { end, rx, .. } = history.of_port("vm2") else { panic!() };
        assert_eq!((end, rx.len()), (699, 0));
    }

    #[test]
    fn seconds_without_an_answer_have_the_mean_of_those_that_follow() {
        let mut history = History::default();
        history.port("vm1", sample(1.0), 1);
        let times = history.advance(3.1, 3);
        history.port("vm1", sample(2.0), times);
        assert_eq!(rx(&history), [1, 2, 2, 2]);
    }

    #[test]
    fn samples_keep_up_with_a_clock_that_is_a_little_fast_or_slow() {
        for seconds in [0.97, 1.04] {
            let mut history = History::default();
            let samples: usize = (0..300).map(|_| history.advance(seconds, 0)).sum();
            let wanted = (300.0 * seconds) as usize;
            assert!(samples.abs_diff(wanted) <= 1, "{samples} instead of {wanted}");
        }
        assert_eq!(History::default().advance(1e12, 0), LENGTH);
        assert_eq!(History::default().advance(f64::NAN, 0), 0);
    }

    #[test]
    fn ports_that_went_and_ports_beyond_the_limit_have_none() {
        let mut history = History::default();
        for port in 0..MOST + 10 {
            history.port(&port.to_string(), sample(0.0), 1);
        }
        assert_eq!(history.ports.len(), MOST);
        history.keep(|name| name == "7");
        assert_eq!(history.ports.len(), 1);
    }
}

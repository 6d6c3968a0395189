//! How many frames each port has dropped for each reason in the last minute.
//!
//! For a pair of port and reason there is a queue of the seconds in which frames were dropped, at
//! most 60, and nothing else: a port that drops nothing costs its totals.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use trama_api::top;

/// A minute.
const MINUTE: Duration = Duration::from_secs(60);

/// The drops of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Minute(HashMap<String, HashMap<String, Recent>>);

#[derive(Debug, Default)]
struct Recent {
    total: u64,
    /// When, and how many.
    drops: VecDeque<(Duration, u64)>,
    sum: u64,
}

impl Minute {
    /// Takes the totals of a port at a time of a clock that does not step. Returns how many frames
    /// it has dropped since the time before, and calls `each` with reason, drops of the last minute
    /// and total. What a port has dropped before it was first seen is older than a minute.
    pub(crate) fn read(
        &mut self,
        now: Duration,
        port: &top::Port,
        mut each: impl FnMut(&str, u64, u64),
    ) -> u64 {
        let is_new = !self.0.contains_key(&port.name);
        let reasons = entry(&mut self.0, &port.name);
        if reasons.iter().any(|(reason, recent)| total(port, reason) < recent.total) {
            // The port counts from the beginning again, as on another network. What it has dropped
            // in the last minute it has dropped.
            for (reason, recent) in reasons.iter_mut() {
                recent.total = total(port, reason);
            }
        }
        let mut dropped = 0;
        for (reason, total) in &port.drops {
            let recent = entry(reasons, reason);
            let grown = if is_new { 0 } else { total.saturating_sub(recent.total) };
            recent.take(now, *total, grown);
            each(reason, recent.sum, *total);
            dropped += grown;
        }
        dropped
    }

    /// Forgets the ports that are not there any more.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_there(name));
    }
}

impl Recent {
    fn take(&mut self, now: Duration, total: u64, grown: u64) {
        self.total = total;
        if grown > 0 {
            self.drops.push_back((now, grown));
            self.sum = self.sum.saturating_add(grown);
        }
        while let Some((_, count)) = self.drops.pop_front_if(|(at, _)| *at + MINUTE <= now) {
            self.sum = self.sum.saturating_sub(count);
        }
    }
}

fn total(port: &top::Port, reason: &str) -> u64 {
    let found = port.drops.iter().find(|(it, _)| it == reason);
    found.map_or(0, |(_, total)| *total)
}

fn entry<'a, V: Default>(map: &'a mut HashMap<String, V>, key: &str) -> &'a mut V {
    // Looked up by the text first, which is there nearly always.
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.entry(key.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(drops: &[(&'static str, u64)]) -> top::Port {
        let drops = drops.iter().map(|(reason, total)| ((*reason).into(), *total)).collect();
        top::Port { name: "vm1".into(), drops, ..top::Port::default() }
    }

    fn read(minute: &mut Minute, second: u64, drops: &[(&'static str, u64)]) -> Vec<u64> {
        let mut found = Vec::new();
        let now = Duration::from_secs(second);
        minute.read(now, &port(drops), |_, minute, _| found.push(minute));
        found
    }

    #[test]
    fn drops_are_forgotten_after_a_minute() {
        let mut minute = Minute::default();
        assert_eq!(read(&mut minute, 0, &[("loop", 500)]), [0], "before it was seen");
        assert_eq!(read(&mut minute, 1, &[("loop", 503)]), [3]);
        assert_eq!(read(&mut minute, 31, &[("loop", 504), ("full", 2)]), [4, 2], "a new reason");
        assert_eq!(read(&mut minute, 60, &[("loop", 504), ("full", 2)]), [4, 2]);
        assert_eq!(read(&mut minute, 61, &[("loop", 504), ("full", 2)]), [1, 2]);
        assert_eq!(read(&mut minute, 500, &[("loop", 504), ("full", 2)]), [0, 0]);
    }

    #[test]
    fn totals_that_fall_begin_again_and_take_no_drop_back() {
        let mut minute = Minute::default();
        read(&mut minute, 0, &[("loop", 500), ("full", 1)]);
        assert_eq!(read(&mut minute, 1, &[("loop", 503), ("full", 1)]), [3, 0]);
        assert_eq!(read(&mut minute, 2, &[("loop", 7), ("full", 9)]), [3, 0], "of another network");
        assert_eq!(read(&mut minute, 3, &[("loop", 8), ("full", 9)]), [4, 0]);
        assert_eq!(read(&mut minute, 4, &[]), [0; 0]);
        assert_eq!(read(&mut minute, 5, &[("loop", 1)]), [5]);
    }

    #[test]
    fn a_port_that_went_is_forgotten() {
        let mut minute = Minute::default();
        read(&mut minute, 0, &[("loop", 1)]);
        minute.keep(|_| false);
        assert!(minute.0.is_empty());
    }
}

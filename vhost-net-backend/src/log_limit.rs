//! Limits the log lines that frontends and guests can cause.
//!
//! A frontend that connects and fails in a loop, or a guest that provokes a warning with each
//! frame, must not fill the disk. Lines are counted by port and by kind of reason, which is the
//! reason without its numbers: three of a kind are logged, then one a minute, which tells how many
//! were left out. All ports together may log twenty lines a second.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of a kind before they become rare.
const FIRST: u8 = 3;
/// Time between two lines of a kind afterwards. After a minute without any, the kind is new again.
const INTERVAL: Duration = Duration::from_secs(60);
/// Lines of all ports within [`SECOND`].
const IN_ALL: usize = 20;
const SECOND: Duration = Duration::from_secs(1);
/// Most kinds that are remembered. Beyond it, those of the last minute keep their counts, and new
/// ones share a count.
const KINDS: usize = 16384;

/// Returns whether a line about `port` may be logged now, in the whole process. `Some` has the end
/// of the line: how many of its kind were left out.
pub fn admit(port: &str, reason: &str) -> Option<LeftOut> {
    static LIMIT: LazyLock<(Instant, Mutex<LogLimit>)> =
        LazyLock::new(|| (Instant::now(), Mutex::default()));
    let (started, limit) = &*LIMIT;
    let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
    limit.admit(started.elapsed(), port, reason)
}

/// The number of lines left out before one that is logged; printed after that line's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftOut(pub u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} more)"),
        }
    }
}

/// The counts. Time comes in as an argument: what has passed since any fixed moment.
#[derive(Default, Debug)]
pub struct LogLimit {
    keys: RandomState,
    kinds: HashMap<u64, Kind>,
    /// When the last lines were logged, the oldest first.
    logged: VecDeque<Duration>,
}

#[derive(Debug)]
struct Kind {
    /// Lines that may still be logged without a pause.
    left: u8,
    /// When a line of the kind was last logged or left out.
    seen: Duration,
    /// When one was last logged.
    logged: Option<Duration>,
    left_out: u64,
}

impl LogLimit {
    /// Returns whether a line about `port` may be logged at `now`, and how many of its kind were
    /// left out before it.
    pub fn admit(&mut self, now: Duration, port: &str, reason: &str) -> Option<LeftOut> {
        let has_room = self.has_room(now);
        let key = self.key(now, port, reason);
        let new = Kind { left: FIRST, seen: now, logged: None, left_out: 0 };
        let kind = self.kinds.entry(key).or_insert(new);
        if now.saturating_sub(kind.seen) >= INTERVAL && kind.left_out == 0 {
            kind.left = FIRST;
        }
        kind.seen = now;
        let is_due = kind.logged.is_none_or(|at| now.saturating_sub(at) >= INTERVAL);
        if !has_room || (kind.left == 0 && !is_due) {
            kind.left_out += 1;
            return None;
        }
        kind.left = kind.left.saturating_sub(1);
        kind.logged = Some(now);
        self.logged.push_back(now);
        Some(LeftOut(std::mem::take(&mut kind.left_out)))
    }

    fn has_room(&mut self, now: Duration) -> bool {
        while self.logged.front().is_some_and(|at| now.saturating_sub(*at) >= SECOND) {
            self.logged.pop_front();
        }
        self.logged.len() < IN_ALL
    }

    /// Returns the key of a kind, for which there is room.
    fn key(&mut self, now: Duration, port: &str, reason: &str) -> u64 {
        let words: Vec<&str> = reason.split_ascii_whitespace().filter(|w| !has_digit(w)).collect();
        let key = self.keys.hash_one((port, words));
        if self.kinds.len() < KINDS || self.kinds.contains_key(&key) {
            return key;
        }
        self.kinds.retain(|_, kind| now.saturating_sub(kind.seen) < INTERVAL);
        if self.kinds.len() < KINDS { key } else { self.keys.hash_one("others") }
    }
}

/// Whether a word has a number: a size, an index, an address, a process.
fn has_digit(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines at these milliseconds that are logged, with how many were left out before.
    fn logged(limit: &mut LogLimit, times: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
        let admit = |at| {
            let left_out = limit.admit(Duration::from_millis(at), "p", "ring 1: broken")?;
            Some((at, left_out.0))
        };
        times.filter_map(admit).collect()
    }

    #[test]
    fn three_lines_then_one_a_minute_with_the_number_left_out() {
        let times = (0..=150_000).step_by(100);
        assert_eq!(
            logged(&mut LogLimit::default(), times),
            [(0, 0), (100, 0), (200, 0), (60_200, 599), (120_200, 599)]
        );
        assert_eq!(LeftOut(599).to_string(), " (and 599 more)");
        assert_eq!(LeftOut(0).to_string(), "");
    }

    #[test]
    fn after_a_minute_without_any_a_kind_is_new_again() {
        let mut limit = LogLimit::default();
        assert_eq!(logged(&mut limit, [0, 1, 2].into_iter()).len(), 3);
        let later = [60_002, 60_003, 60_004, 60_005, 120_005];
        assert_eq!(
            logged(&mut limit, later.into_iter()),
            [(60_002, 0), (60_003, 0), (60_004, 0), (120_005, 1)]
        );
    }

    #[test]
    fn ports_and_kinds_count_by_themselves_and_numbers_do_not_matter() {
        let mut limit = LogLimit::default();
        let mut admit = |port: &str, reason: &str| {
            let now = Duration::from_secs(7);
            limit.admit(now, port, reason).is_some()
        };
        let sizes = (0..5).map(|size| format!("message 0x{size:x}: {size} bytes are too many"));
        let taken: Vec<bool> = sizes.map(|reason| admit("p", &reason)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(admit("p", "message 3: 7 bytes are too few"), "another reason");
        assert!(admit("q", "message 3: 7 bytes are too many"), "another port");
    }

    #[test]
    fn all_together_log_twenty_lines_in_any_second() {
        let mut limit = LogLimit::default();
        let mut lines = Vec::new();
        for at in (0..5000).step_by(10) {
            for port in 0..30 {
                let (now, port) = (Duration::from_millis(at), format!("p{at}-{port}"));
                lines.extend(limit.admit(now, &port, "closed").map(|_| at));
            }
        }
        for start in 0..5000 {
            let within = lines.iter().filter(|at| (start..start + 1000).contains(*at)).count();
            assert!(within <= 20, "{within} lines in the second from {start} ms");
        }
        assert_eq!(lines.len(), 100, "and not fewer");
        // What the total kept out is told with the next line of its kind.
        let told = limit.admit(Duration::from_millis(9000), "p10-3", "closed");
        assert_eq!(told, Some(LeftOut(1)));
    }

    #[test]
    fn memory_is_bounded_whatever_is_named() {
        let mut limit = LogLimit::default();
        for port in 0..3 * KINDS {
            let now = Duration::from_millis(port as u64 / 100);
            let _ = limit.admit(now, &format!("p{port}"), "closed");
        }
        assert!(limit.kinds.len() <= KINDS + 1, "{}", limit.kinds.len());
        let later = Duration::from_secs(3600);
        assert_eq!(limit.admit(later, "new", "closed"), Some(LeftOut(0)));
        assert_eq!(limit.kinds.len(), 1, "those that rest are forgotten");
    }
}

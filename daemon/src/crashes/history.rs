//! What follows from crashes: which port is left out and for how long, and when nothing is kept.
//!
//! Pure: times come in as arguments, counted from the host's start, so that they mean the same to
//! each process that follows. [`MINUTE`](super::MINUTE) is an argument, too.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a port must be under suspicion within a minute to be left out.
const TWICE: usize = 2;
/// Crashes within a minute without a suspect after which nothing is kept.
const UNEXPLAINED: usize = 3;
/// The longest time for which a port is left out, in minutes.
const LONGEST: u32 = 60;
/// Most crashes and most ports that are remembered: the keeper's values have a limit.
const MOST: usize = 64;

/// Why a switch has followed another one, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Restarts {
    /// The one before had crashed.
    pub crash: u64,
    /// It was killed, or had ended without a word in another way.
    pub killed: u64,
    /// It still ran, and handed over.
    pub upgrade: u64,
}

/// What is remembered of the switches before.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct History {
    pub(super) restarts: Restarts,
    /// The crashes of the last minute, in order.
    crashes: Vec<Crash>,
    left_out: BTreeMap<String, LeftOut>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Crash {
    at: Duration,
    /// The ports that may have caused it.
    suspects: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LeftOut {
    until: Duration,
    /// How often in a row.
    times: u32,
    /// For users.
    reason: String,
}

/// What follows from a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Everything goes on.
    GoOn,
    /// A port is left out for some time.
    LeaveOut { port: String, time: Duration },
    /// Everything starts again, and nothing is kept.
    StartCold,
}

impl History {
    /// Counts a crash that one of these ports may have caused, the likeliest first.
    pub(super) fn crashed(
        &mut self,
        suspects: Vec<String>,
        now: Duration,
        minute: Duration,
    ) -> Verdict {
        self.forget_old(now, minute);
        if self.crashes.len() == MOST {
            self.crashes.remove(0);
        }
        self.crashes.push(Crash { at: now, suspects: suspects.clone() });
        if suspects.is_empty() {
            return self.unexplained();
        }
        let count = |port: &String| {
            self.crashes.iter().filter(|crash| crash.suspects.contains(port)).count()
        };
        // Of several that were there as often, the first.
        let most = suspects.iter().rev().max_by_key(|port| count(port));
        match most.filter(|port| count(port) >= TWICE) {
            Some(port) => {
                let port = port.clone();
                let time = self.leave_out(&port, now, minute);
                Verdict::LeaveOut { port, time }
            }
            None => Verdict::GoOn,
        }
    }

    fn unexplained(&mut self) -> Verdict {
        let count = self.crashes.iter().filter(|crash| crash.suspects.is_empty()).count();
        if count < UNEXPLAINED {
            return Verdict::GoOn;
        }
        self.crashes.clear();
        Verdict::StartCold
    }

    fn leave_out(&mut self, port: &str, now: Duration, minute: Duration) -> Duration {
        self.acquit(port);
        let times = self.left_out.get(port).map_or(0, |left_out| left_out.times);
        let time = minute * 2_u32.saturating_pow(times).min(LONGEST);
        if self.left_out.len() >= MOST
            && let Some(first) = self.left_out.iter().min_by_key(|(_, it)| it.until)
        {
            let first = first.0.clone();
            self.left_out.remove(&first);
        }
        let left_out = LeftOut { until: now + time, times: times + 1, reason: String::new() };
        self.left_out.insert(port.to_owned(), left_out);
        time
    }

    /// Says why a port is left out.
    pub(super) fn explain(&mut self, port: &str, reason: String) {
        if let Some(left_out) = self.left_out.get_mut(port) {
            left_out.reason = reason;
        }
    }

    /// Returns why a port is left out now; `None` if it is not.
    pub(super) fn reason(&self, port: &str, now: Duration) -> Option<&str> {
        let left_out = self.left_out.get(port).filter(|left_out| now < left_out.until)?;
        Some(&left_out.reason)
    }

    /// Forgets all about a port. Returns whether there was something.
    pub(super) fn forget(&mut self, port: &str) -> bool {
        let had_crashed = self.acquit(port);
        self.left_out.remove(port).is_some() || had_crashed
    }

    /// Takes a port off the suspects. Returns whether it was one.
    fn acquit(&mut self, port: &str) -> bool {
        let mut was_one = false;
        self.crashes.retain_mut(|crash| {
            let before = crash.suspects.len();
            crash.suspects.retain(|suspect| suspect != port);
            let is_off = crash.suspects.len() < before;
            was_one |= is_off;
            !is_off || !crash.suspects.is_empty()
        });
        was_one
    }

    /// Forgets crashes older than a minute, and ports that were well for the longest time since
    /// they were tried again.
    fn forget_old(&mut self, now: Duration, minute: Duration) {
        self.crashes.retain(|crash| now < crash.at + minute);
        self.left_out.retain(|_, left_out| now < left_out.until + minute * LONGEST);
    }
}

#[cfg(test)]
mod tests;

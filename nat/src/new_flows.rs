//! Shares of new flows: how many each switch port may open in one pass of the event loop.
//!
//! A new UDP or ICMP flow is a socket, which takes as long as many datagrams of a flow that exists,
//! and often another flow closes to make room. A guest that sends each datagram from another port
//! would fill every pass with that, and all others would wait. So the new flows of a pass are dealt
//! in equal parts to the ports that have asked for some lately. A port that is alone is not
//! limited. A port beyond its part takes from its burst allowance, which is for a guest that looks
//! up many names at once; then its frames are dropped before a socket is made.
//!
//! Connections take part, so that a port that only connects has its part, but are not refused here:
//! a SYN waits for the turn of its port ([`tcp`](crate::tcp)).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::io::PortMark;
use crate::rate_limiter::RateLimiter;

/// New flows of all ports in a pass, if several ask. A port always may open one.
const FLOWS_PER_PASS: u32 = 4;
/// Ports share with each other that have asked in this or the last interval of this length.
const INTERVAL: Duration = Duration::from_millis(100);
/// Flows that a port may open beyond its part, and the time in which one returns.
const BURST: u32 = 128;
const BURST_REFILL: Duration = Duration::from_millis(2);

/// New flows by port.
pub(crate) struct NewFlows {
    asking: HashMap<PortMark, Asking, RandomState>,
    /// The number of the current interval, and the ports that asked in it and in the one before but
    /// not since.
    interval: u64,
    now: u32,
    before: u32,
    /// The number of the current pass.
    pass: u64,
    bursts: RateLimiter,
}

/// A port that has asked lately.
struct Asking {
    /// The interval and the pass in which it asked last.
    interval: u64,
    pass: u64,
    /// Flows that it has opened in that pass.
    opened: u32,
}

impl Default for NewFlows {
    fn default() -> NewFlows {
        NewFlows {
            asking: HashMap::default(),
            interval: 0,
            now: 0,
            before: 0,
            pass: 0,
            bursts: RateLimiter::new(BURST, BURST_REFILL),
        }
    }
}

impl NewFlows {
    /// Begins another pass.
    pub(crate) fn next_pass(&mut self) {
        self.pass += 1;
    }

    /// Takes a new flow of a port. Returns whether it may open one.
    pub(crate) fn try_take(&mut self, now: Duration, port: PortMark) -> bool {
        let ports = self.ask(now, port);
        let part = (FLOWS_PER_PASS / ports).max(1);
        let Some(asking) = self.asking.get_mut(&port) else { return false };
        if ports > 1 && asking.opened >= part && !self.bursts.try_take(now, port) {
            return false;
        }
        asking.opened += 1;
        true
    }

    /// Counts a new flow whose port has waited for its turn, and is not refused.
    pub(crate) fn count(&mut self, now: Duration, port: PortMark) {
        self.ask(now, port);
        if let Some(asking) = self.asking.get_mut(&port) {
            asking.opened += 1;
        }
    }

    /// Notes that a port asks. Returns how many ports have asked lately, including this one.
    fn ask(&mut self, now: Duration, port: PortMark) -> u32 {
        let interval = (now.as_millis() / INTERVAL.as_millis()) as u64;
        if interval != self.interval {
            let is_next = interval == self.interval + 1;
            (self.before, self.now) = (if is_next { self.now } else { 0 }, 0);
            self.interval = interval;
            self.asking.retain(|_, asking| asking.interval + 1 >= interval);
        }
        let pass = self.pass;
        let asking = match self.asking.entry(port) {
            Entry::Occupied(entry) => {
                let asking = entry.into_mut();
                // Entries of older intervals are gone.
                if asking.interval != interval {
                    asking.interval = interval;
                    self.before -= 1;
                    self.now += 1;
                }
                asking
            }
            Entry::Vacant(entry) => {
                self.now += 1;
                entry.insert(Asking { interval, pass, opened: 0 })
            }
        };
        if asking.pass != pass {
            (asking.pass, asking.opened) = (pass, 0);
        }
        self.now + self.before
    }
}

#[cfg(test)]
mod tests;

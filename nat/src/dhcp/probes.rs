//! Addresses whose user is looked for before they are offered (RFC 5227; RFC 4862, 5.4).

use std::collections::VecDeque;
use std::time::Duration;

/// Questions about an address, and the time between them (RFC 5227, with the patience of a switch).
const PROBES: u32 = 3;
const INTERVAL: Duration = Duration::from_millis(90);

struct Probe<A> {
    address: A,
    /// When it is asked for again.
    due: Duration,
    left: u32,
}

/// Those that are asked for now, in the order of their times.
pub(super) struct Probes<A>(VecDeque<Probe<A>>);

impl<A> Default for Probes<A> {
    fn default() -> Probes<A> {
        Probes(VecDeque::new())
    }
}

impl<A: Copy> Probes<A> {
    /// Notes that an address was asked for once.
    pub fn begin(&mut self, now: Duration, address: A) {
        self.0.push_back(Probe { address, due: now + INTERVAL, left: PROBES - 1 });
    }

    /// The addresses to ask for now, of those that still wait.
    pub fn due(&mut self, now: Duration, waits: impl Fn(A) -> bool) -> Vec<A> {
        let mut due = Vec::new();
        while let Some(mut probe) = self.0.pop_front_if(|probe| probe.due <= now) {
            if !waits(probe.address) {
                continue;
            }
            due.push(probe.address);
            probe.left -= 1;
            if probe.left > 0 {
                probe.due = now + INTERVAL;
                self.0.push_back(probe);
            }
        }
        due
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.0.front().map(|probe| probe.due)
    }
}

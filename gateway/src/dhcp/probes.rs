//! Probes for addresses before they are offered (RFC 5227; RFC 4862, 5.4).

use std::collections::VecDeque;
use std::time::Duration;

/// Probes for an address, and the time between them: RFC 5227, shortened for a switch.
const PROBES: u32 = 3;
const INTERVAL: Duration = Duration::from_millis(90);

struct Probe<A> {
    address: A,
    /// When the next probe is sent.
    due: Duration,
    left: u32,
}

/// Addresses being probed, in the order of their times.
pub(super) struct Probes<A>(VecDeque<Probe<A>>);

impl<A> Default for Probes<A> {
    fn default() -> Probes<A> {
        Probes(VecDeque::new())
    }
}

impl<A: Copy> Probes<A> {
    /// Notes that the first probe for an address was sent.
    pub(super) fn start(&mut self, now: Duration, address: A) {
        self.0.push_back(Probe { address, due: now + INTERVAL, left: PROBES - 1 });
    }

    /// The addresses to probe now, of those that are still `waits`.
    pub(super) fn take_due(&mut self, now: Duration, waits: impl Fn(A) -> bool) -> Vec<A> {
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

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.front().map(|probe| probe.due)
    }
}

//! How much of something a switch port gets: so many at once, and then at a rate.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::io::PortId;

/// Ports whose allowance is remembered; beyond that, all begin anew.
const MAX_PORTS: usize = 4096;

/// The allowances of all ports.
pub(crate) struct Allowances {
    /// How many a port gets at once, and how long it takes until the right to one comes back.
    burst: u32,
    refill: Duration,
    ports: HashMap<PortId, Allowance, RandomState>,
}

struct Allowance {
    left: u32,
    since: Duration,
}

impl Allowances {
    pub fn new(burst: u32, refill: Duration) -> Allowances {
        Allowances { burst, refill, ports: HashMap::default() }
    }

    /// Whether a port may have one more; if so, it has had it.
    pub fn allows(&mut self, now: Duration, port: PortId) -> bool {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            self.ports.clear();
        }
        let (burst, refill) = (self.burst, self.refill);
        let full = || Allowance { left: burst, since: now };
        let allowance = self.ports.entry(port).or_insert_with(full);
        let earned = now.saturating_sub(allowance.since).as_millis() / refill.as_millis().max(1);
        if earned > 0 {
            let earned = earned.min(burst.into()) as u32;
            (allowance.left, allowance.since) = ((allowance.left + earned).min(burst), now);
        }
        match allowance.left.checked_sub(1) {
            Some(left) => {
                allowance.left = left;
                true
            }
            None => false,
        }
    }
}

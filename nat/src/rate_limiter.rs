//! Token buckets, one for each switch port.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::io::PortMark;

/// Ports with a bucket of their own; beyond that, all buckets are reset.
const MAX_PORTS: usize = 4096;

/// Limits a rate for each port.
pub(crate) struct RateLimiter {
    /// Size of a bucket, and the time in which one token returns.
    burst: u32,
    refill: Duration,
    ports: HashMap<PortMark, TokenBucket, RandomState>,
}

struct TokenBucket {
    left: u32,
    since: Duration,
}

impl RateLimiter {
    pub(crate) fn new(burst: u32, refill: Duration) -> RateLimiter {
        RateLimiter { burst, refill, ports: HashMap::default() }
    }

    /// Takes a token of a port. Returns whether there was one.
    pub(crate) fn try_take(&mut self, now: Duration, port: PortMark) -> bool {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            self.ports.clear();
        }
        let (burst, refill) = (self.burst, self.refill);
        let full = || TokenBucket { left: burst, since: now };
        let bucket = self.ports.entry(port).or_insert_with(full);
        let passed = now.saturating_sub(bucket.since);
        let earned = passed.as_micros() / refill.as_micros().max(1);
        if earned >= u128::from(burst - bucket.left) {
            *bucket = full();
        } else {
            bucket.left += earned as u32;
            // What is left of the time counts for the next token.
            bucket.since += refill * earned as u32;
        }
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

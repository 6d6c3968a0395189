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

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these times find a token, in a bucket of 4 to which one returns each 2 ms.
    fn taken(times: impl Iterator<Item = u64>) -> usize {
        let mut limiter = RateLimiter::new(4, Duration::from_millis(2));
        times.filter(|at| limiter.try_take(Duration::from_micros(*at), PortMark(1))).count()
    }

    #[test]
    fn the_rate_is_the_same_however_often_one_asks() {
        // The burst, and those that return within 3 seconds.
        for pause in [1, 100, 300, 700, 1900] {
            let asked = taken((0..3_000_000).step_by(pause));
            assert!((1502..=1504).contains(&asked), "{asked} at a pause of {pause} us");
        }
    }

    #[test]
    fn a_pause_fills_the_bucket_and_no_more() {
        assert_eq!(taken([0; 9].into_iter().chain([60_000_000; 9])), 8);
    }
}

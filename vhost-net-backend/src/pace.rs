//! Limits how often a frontend may make its session do what takes long.

use std::time::{Duration, Instant};

/// A token bucket of `burst` tokens, one more each `spacing`.
pub(crate) struct Pace {
    spacing: Duration,
    burst: u32,
    /// When the bucket was last full, moved by each token taken since.
    next: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(spacing: Duration, burst: u32) -> Pace {
        Pace { spacing, burst, next: None }
    }

    /// Takes a token; sleeps until there is one, at most `spacing`.
    pub(crate) fn wait(&mut self) {
        std::thread::sleep(self.take(Instant::now()));
    }

    /// Takes a token; returns how long to wait for it, at most `spacing`.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let full = now.checked_sub(self.spacing * self.burst).unwrap_or(now);
        let at = self.next.map_or(full, |next| next.max(full)) + self.spacing;
        self.next = Some(at);
        at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_each_waits() {
        let spacing = Duration::from_millis(10);
        let (mut pace, start) = (Pace::new(spacing, 64), Instant::now() + 640 * spacing);
        for _ in 0..64 {
            assert_eq!(pace.take(start), Duration::ZERO);
        }
        assert_eq!(pace.take(start), spacing);
        assert_eq!(pace.take(start + spacing), spacing);
        assert_eq!(pace.take(start + 4 * spacing), Duration::ZERO, "tokens come back");
        let mut free = Pace::new(Duration::ZERO, 64);
        assert!((0..1000).all(|_| free.take(start) == Duration::ZERO));
    }
}

//! When a flow reads from its host.
//!
//! A host that writes little and often costs a wake-up, two system calls and a segment for each of
//! its writes. So once it has done that for a while and the machine says nothing meanwhile, reading
//! rests, events and all, and what has come by then goes on in one piece. A machine that asks is not
//! made to wait: whatever it sends ends the rest.

use std::time::Duration;

/// So many reads in a row, of less than so many bytes, each so soon after the one before, are a host
/// that writes often: over 20,000 times a second. A full packet is no such read.
const READS: u8 = 32;
const LITTLE: usize = 1024;
const SOON: Duration = Duration::from_micros(50);
/// How long reading rests: as short as the loop can wait.
const REST: Duration = Duration::from_millis(1);
/// What makes the next rest worth while. With more, the host's window would fill.
const WORTH_IT: std::ops::Range<usize> = 1024..64 << 10;

/// The pace of one flow's reads.
#[derive(Default)]
pub(super) struct Pace {
    /// Reads of little in a row.
    little: u8,
    /// When something was read last.
    read: Duration,
    /// Until when reading rests.
    rests: Option<Duration>,
}

impl Pace {
    /// Takes note of bytes that were read in one turn.
    pub fn took(&mut self, now: Duration, bytes: usize) {
        if self.rests.is_some() {
            self.rests = WORTH_IT.contains(&bytes).then_some(now + REST);
            self.little = 0;
        } else {
            let is_soon = now.saturating_sub(self.read) < SOON;
            self.little = if is_soon && bytes < LITTLE { self.little + 1 } else { 0 };
            self.rests = (self.little >= READS).then_some(now + REST);
        }
        self.read = now;
    }

    /// The machine has said something, to which the host may answer.
    pub fn hurry(&mut self) {
        (self.little, self.rests) = (0, None);
    }

    /// Until when reading rests.
    pub fn rests(&self) -> Option<Duration> {
        self.rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(20);

    /// A host that has written little and often for a while.
    fn busy() -> (Pace, Duration) {
        let (mut pace, mut now) = (Pace::default(), Duration::from_secs(1));
        for _ in 0..=READS {
            assert_eq!(pace.rests(), None);
            now += STEP;
            pace.took(now, 64);
        }
        (pace, now)
    }

    #[test]
    fn reading_rests_as_long_as_it_is_worth_it() {
        let (mut pace, now) = busy();
        assert_eq!(pace.rests(), Some(now + REST));
        let now = now + REST;
        pace.took(now, 2 * LITTLE);
        assert_eq!(pace.rests(), Some(now + REST));
        pace.took(now + REST, LITTLE - 1);
        assert_eq!(pace.rests(), None);
    }

    #[test]
    fn much_at_once_ends_it() {
        let (mut pace, now) = busy();
        pace.took(now + REST, WORTH_IT.end);
        assert_eq!(pace.rests(), None);
    }

    #[test]
    fn a_machine_that_asks_does_not_wait() {
        let (mut pace, _) = busy();
        pace.hurry();
        assert_eq!(pace.rests(), None);
        for round in 1..1000 {
            pace.took(STEP * round, 64);
            pace.hurry();
            assert_eq!(pace.rests(), None);
        }
    }

    #[test]
    fn full_packets_and_a_slow_host_are_read_at_once() {
        for (bytes, step) in [(LITTLE, STEP), (64, SOON)] {
            let mut pace = Pace::default();
            for round in 1..1000 {
                pace.took(step * round, bytes);
                assert_eq!(pace.rests(), None);
            }
        }
    }
}

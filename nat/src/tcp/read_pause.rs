//! Pauses in reading from the host.
//!
//! A host that writes small amounts often costs a wake-up, two system calls and a segment for each
//! write. Once it has done so for a while and the guest sends nothing, reading pauses, its events
//! included, and the data of the pause leaves in one segment. A guest that expects an answer does
//! not wait: any data from it ends the pause.

use std::time::Duration;

/// A pause begins after this many reads in a row, each of fewer bytes than `SMALL` and sooner after
/// the previous one than `CLOSE_TOGETHER`: more than 20,000 writes a second. A full packet does not
/// count.
const SMALL_READS: u8 = 32;
const SMALL: usize = 1024;
const CLOSE_TOGETHER: Duration = Duration::from_micros(50);
/// Length of a pause: the shortest timeout of the loop.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes read after a pause for which the next pause follows. With more, the host's send window
/// would fill.
const WORTHWHILE: std::ops::Range<usize> = 1024..64 << 10;

/// The reads of one flow.
#[derive(Default)]
pub(super) struct ReadPause {
    /// Small reads in a row.
    small_reads: u8,
    /// Time of the last read.
    last_read: Duration,
    /// End of the current pause.
    until: Option<Duration>,
}

impl ReadPause {
    /// Records the bytes that were read in one turn.
    pub(super) fn record_read(&mut self, now: Duration, bytes: usize) {
        if self.until.is_some() {
            self.until = WORTHWHILE.contains(&bytes).then_some(now + PAUSE);
            self.small_reads = 0;
        } else {
            let is_close = now.saturating_sub(self.last_read) < CLOSE_TOGETHER;
            self.small_reads = if is_close && bytes < SMALL { self.small_reads + 1 } else { 0 };
            self.until = (self.small_reads >= SMALL_READS).then_some(now + PAUSE);
        }
        self.last_read = now;
    }

    /// The guest has sent data, which the host may answer.
    pub(super) fn cancel(&mut self) {
        (self.small_reads, self.until) = (0, None);
    }

    /// Until when reading is paused.
    pub(super) fn paused_until(&self) -> Option<Duration> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(20);

    /// A host that has written small amounts often for a while.
    fn busy() -> (ReadPause, Duration) {
        let (mut pause, mut now) = (ReadPause::default(), Duration::from_secs(1));
        for _ in 0..=SMALL_READS {
            assert_eq!(pause.paused_until(), None);
            now += STEP;
            pause.record_read(now, 64);
        }
        (pause, now)
    }

    #[test]
    fn reading_pauses_as_long_as_it_is_worthwhile() {
        let (mut pause, now) = busy();
        assert_eq!(pause.paused_until(), Some(now + PAUSE));
        let now = now + PAUSE;
        pause.record_read(now, 2 * SMALL);
        assert_eq!(pause.paused_until(), Some(now + PAUSE));
        pause.record_read(now + PAUSE, SMALL - 1);
        assert_eq!(pause.paused_until(), None);
    }

    #[test]
    fn a_large_read_ends_it() {
        let (mut pause, now) = busy();
        pause.record_read(now + PAUSE, WORTHWHILE.end);
        assert_eq!(pause.paused_until(), None);
    }

    #[test]
    fn a_guest_that_sends_does_not_wait() {
        let (mut pause, _) = busy();
        pause.cancel();
        assert_eq!(pause.paused_until(), None);
        for round in 1..1000 {
            pause.record_read(STEP * round, 64);
            pause.cancel();
            assert_eq!(pause.paused_until(), None);
        }
    }

    #[test]
    fn full_packets_and_a_slow_host_are_read_at_once() {
        for (bytes, step) in [(SMALL, STEP), (64, CLOSE_TOGETHER)] {
            let mut pause = ReadPause::default();
            for round in 1..1000 {
                pause.record_read(step * round, bytes);
                assert_eq!(pause.paused_until(), None);
            }
        }
    }
}

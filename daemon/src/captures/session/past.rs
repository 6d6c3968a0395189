//! What the ring has of the time before a capture.

use std::sync::Arc;
use std::time::Duration;

use trama_switch::Time;

use super::super::ports::Ports;
use super::super::ring::Segment;
use crate::state::Daemon;
use crate::state::watches::Clock;

pub(super) struct Past {
    pub(super) segments: Vec<Arc<Segment>>,
    /// How much of the time is wanted.
    pub(super) last: Duration,
    /// The clock for networks that are gone, and thus not watched.
    pub(super) clock: Clock,
}

impl Past {
    /// Asks the ring, once the watches of `ports` have begun.
    ///
    /// # Errors
    /// It does not answer, or the first worker has ended.
    pub(super) fn find(daemon: &Daemon, ports: &Ports, last: Duration) -> Result<Past, String> {
        let clock = daemon.clock()?;
        let begun = ports.watches.iter().map(|watched| watched.clock.asked);
        let until = begun.fold(clock.asked, Time::max);
        Ok(Past { segments: daemon.ring.look_back(until)?, last, clock })
    }
}

/// Returns whether a frame is of the wanted time before a watch, which began at `begun`.
pub(in crate::captures) fn is_before(begun: Time, last: Duration, time: Time) -> bool {
    time < begun && begun.saturating_sub(time) <= last
}

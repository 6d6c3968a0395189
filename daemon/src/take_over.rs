//! A start beside a switch that still runs, whose place this one then takes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trama_keeper::Keeper;

use crate::notify::Notifier;
use crate::state::Daemon;
use crate::succession::Previous;

/// The way from a switch that still runs to this one. Clones are handles of the same.
#[derive(Clone)]
pub struct TakeOver {
    keeper: Keeper,
    previous: Previous,
    /// Whether the other one was told to end, or this one has given up.
    is_decided: Arc<AtomicBool>,
}

impl TakeOver {
    /// Takes over from `previous`.
    pub fn new(keeper: Keeper, previous: Previous) -> TakeOver {
        TakeOver { keeper, previous, is_decided: Arc::default() }
    }

    /// Builds everything while the other one still moves the frames, and then takes its place.
    ///
    /// # Errors
    /// The other one does not end, or the keeper does not answer. This process must end.
    pub fn build(&self, daemon: &Daemon, notifier: &Notifier, started: Instant) -> io::Result<()> {
        let mut prepared = Duration::ZERO;
        let take_over = || {
            if !self.decide() {
                return Err(io::Error::other("the start was given up"));
            }
            prepared = started.elapsed();
            // Before the other one ends, or the service manager takes that for a failure.
            notifier.send(&format!("MAINPID={}", std::process::id()));
            self.keeper.go()
        };
        let waited = daemon.build_beside(take_over, || self.previous.wait_for_end())?;
        let [prepared, waited] = [prepared, waited].map(|time| time.as_secs_f64() * 1e3);
        tracing::info!(
            "took over from process {} after {prepared:.0} ms; frames waited {waited:.1} ms",
            self.previous.process
        );
        Ok(())
    }

    /// Leaves the place to the other one, unless it was told to end already. Returns whether this
    /// process must end then, without dropping anything.
    pub fn give_up(&self) -> bool {
        let is_first = self.decide();
        if is_first {
            tracing::info!("process {} goes on; ends", self.previous.process);
        }
        is_first
    }

    fn decide(&self) -> bool {
        !self.is_decided.swap(true, Ordering::Relaxed)
    }
}

//! The start: builds what the configuration describes, alone or beside a switch that still runs.
//!
//! ```text
//!  alone     build, held if another switch has ended ─────────────▶ settle ─▶ release
//!  beside    build, held ─▶ the other one freezes and is gone ────▶ settle ─▶ release ─▶ the rest
//! ```
//!
//! Settling reads what the other switch has learned, and takes over what it has kept. The rest is
//! what is new in the configuration since the other one has read it, and what it has changed there
//! meanwhile.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Config, Daemon, Phase, StartError};
use crate::Fault;
use crate::apply::wait_until_resumed;
use crate::config::Diagnostic;
use crate::confinement;
use crate::events::By;
use crate::plan::{Step, plan_start};

/// Steps of a start between which other threads have their turn: some milliseconds.
const STEPS_AT_ONCE: usize = 32;
/// How long the connections of frontends may take to be as they were.
const RESUMING: Duration = Duration::from_secs(1);

/// Lets threads wait for the end of the start, apart from the lock, which is rarely free before.
#[derive(Default)]
pub(super) struct Start {
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Start {
    pub(super) fn end(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.notify_all();
    }

    /// Waits for the end, at most this long.
    pub(super) fn wait(&self, limit: Duration) {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        // The caller looks at the phase.
        drop(self.over.wait_timeout_while(is_over, limit, |is_over| !*is_over));
    }
}

impl Daemon {
    /// Lets no frame pass until [`Daemon::build`] has built all: those that wait since an earlier
    /// switch has ended must find all ports.
    pub fn hold(&self) {
        self.lock().data_plane.on_each_worker(|engine, _| engine.hold());
    }

    /// Builds what the configuration describes. Meanwhile other threads can read the status.
    pub fn build(&self) {
        let steps = plan_start(&self.lock().config);
        if self.take(&steps) {
            self.wait_until_resumed();
            let mut inner = self.lock();
            inner.data_plane.settle();
            drop(inner);
            self.end_start();
            self.settle();
        }
    }

    /// Does the same while another switch still moves the frames, once [`Daemon::hold`] was called.
    /// `take_over` ends that one, `wait_for_end` waits until its process is gone, with all that it
    /// had open. Returns how long frames have waited.
    ///
    /// # Errors
    /// Those of `take_over`. The other switch may still run: this process must end without dropping
    /// the daemon.
    pub fn build_beside(
        &self,
        take_over: impl FnOnce() -> io::Result<()>,
        wait_for_end: impl FnOnce(),
    ) -> io::Result<Duration> {
        let mut inner = self.lock();
        inner.data_plane.begin_beside();
        let (now, later): (Vec<Step>, Vec<Step>) = plan_start(&inner.config)
            .into_iter()
            .partition(|step| inner.data_plane.can_take_beside(step));
        drop(inner);
        if !self.take(&now) {
            return Err(io::Error::other("the start was given up"));
        }
        self.wait_until_resumed();
        let since = Instant::now();
        take_over()?;
        let mut inner = self.lock();
        inner.data_plane.settle();
        let waited = since.elapsed();
        inner.data_plane.end_beside();
        drop(inner);
        wait_for_end();
        if self.take(&later) {
            self.end_start();
            self.read_again();
            self.settle();
        }
        Ok(waited)
    }

    /// Waits until the connections of frontends are as they were: a frame for a ring that is not
    /// there again would be lost.
    fn wait_until_resumed(&self) {
        let sessions = self.lock().data_plane.sessions();
        wait_until_resumed(&sessions, Instant::now() + RESUMING);
    }

    /// Takes steps of the start; returns whether all were taken.
    fn take(&self, steps: &[Step]) -> bool {
        let inner = self.lock();
        let wanted = inner.config.expanded();
        let mut spread = inner.data_plane.spread(&wanted);
        drop(inner);
        for some in steps.chunks(STEPS_AT_ONCE) {
            let mut inner = self.lock();
            if inner.phase == Phase::Stopping {
                return false;
            }
            inner.data_plane.take(some, &wanted, &mut spread);
            drop(inner);
            // This thread would take the lock again before another one wakes up.
            while self.waiting.load(Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
        }
        true
    }

    /// Lets changes be made, and gateways start.
    fn end_start(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Starting {
            inner.phase = Phase::Running;
        }
        // Only now, so that a thousand processes do not delay the ports.
        inner.data_plane.start_gateways();
        drop(inner);
        self.start.end();
    }

    /// Applies what has changed in the configuration file since it was read, and starts ports whose
    /// devices the other switch had.
    fn read_again(&self) {
        match self.reload(By::Start) {
            Ok(done) if done.steps.is_empty() => {}
            Ok(done) => tracing::info!("changed meanwhile: {} steps", done.steps.len()),
            Err(faults) => faults.iter().for_each(|fault| tracing::error!("{fault}")),
        }
    }

    /// Drops what an earlier switch had and this one has not asked for.
    fn settle(&self) {
        let inner = self.lock();
        inner.data_plane.kept.forget_unused();
        let started = inner.rights.started();
        drop(inner);
        for key in started.dropped {
            tracing::info!("{key} of the last switch is not used any more, and closed");
        }
        confinement::note_missing(&started.missing);
    }

    /// Notes as an event that the start is over.
    pub fn announce(&self) {
        let Config { networks, ports, .. } = self.config();
        let version = env!("CARGO_PKG_VERSION");
        let (networks, ports) = (networks.len(), ports.len());
        let detail = format!("tramad {version} with {networks} networks and {ports} ports");
        self.events.config("started", None, &detail);
    }

    /// Returns whether [`Daemon::build`] has done all.
    pub fn is_running(&self) -> bool {
        self.lock().phase == Phase::Running
    }

    /// Ends [`Daemon::build`] before it has done all, if it runs.
    pub fn give_up_building(&self) {
        self.lock().phase = Phase::Stopping;
        self.start.end();
    }
}

impl StartError {
    /// Returns what is wrong, each with its place in the file.
    pub(super) fn diagnostics(self, file: &Path) -> Vec<Diagnostic> {
        match self {
            Self::Invalid(diagnostics) => diagnostics,
            Self::Read { error, .. } | Self::Worker(error) => vec![Diagnostic {
                file: file.display().to_string(),
                line: 1,
                column: 1,
                key: String::new(),
                fault: Fault::new(
                    format!("cannot be read: {error}"),
                    "put it there, readable for the daemon",
                ),
            }],
        }
    }
}

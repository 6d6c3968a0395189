//! The thread around an engine.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::counters::WorkerCounters;
use crate::engine::Engine;
use crate::time::Time;

/// How long a worker looks at silent ports before it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spin {
    /// Sleeps at once.
    Never,
    /// Looks for this long after the last frame.
    For(Duration),
    /// Never sleeps.
    Always,
}

/// How a worker runs.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// How long it looks before it sleeps.
    pub spin: Spin,
    /// The thread's name (15 bytes show).
    pub name: String,
    /// Keys the hashes.
    pub seed: u64,
}

/// The worker has ended, or the request panicked inside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the worker has ended or the request failed inside it")]
pub struct WorkerGone;

/// How control speaks to a running worker.
#[derive(Clone)]
pub struct WorkerHandle {
    counters: Arc<WorkerCounters>,
}

impl WorkerHandle {
    /// Starts a worker thread with an empty engine.
    pub fn spawn(options: WorkerOptions) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
        let _ = options;
        Err(io::Error::other("not started"))
    }

    /// Runs `job` on the worker between two bursts and waits for its answer.
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine, Time) -> R + Send + 'static,
    ) -> Result<R, WorkerGone> {
        let _ = job;
        Err(WorkerGone)
    }

    /// The worker's own counters.
    pub fn counters(&self) -> Arc<WorkerCounters> {
        self.counters.clone()
    }

    /// Ends the worker after the burst and the requests under way.
    pub fn stop(&self) {}
}

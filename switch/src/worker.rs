//! The thread around an engine.
//!
//! It alternates between requests from control and rounds of the engine. When no port is active
//! it sleeps in epoll, without a deadline: kicks, readable devices and control's waker end the
//! sleep. While some ports are active, kicks of the armed others are looked for now and then.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Events, Poll, Token, Waker};

use crate::counters::WorkerCounters;
use crate::engine::Engine;
use crate::time::Time;

/// Requests that wait at most; further callers wait to hand theirs in.
const REQUESTS: usize = 64;
/// Requests between two rounds at most.
const REQUESTS_PER_ROUND: usize = 8;
/// How often a busy worker looks for kicks of armed ports: a system call of about 0.3 µs.
const KICK_CHECK: Duration = Duration::from_micros(20);
/// Readiness events taken at once.
const EVENTS: usize = 128;
/// The waker's token; ports have theirs by index.
const WAKER: Token = Token(usize::MAX);

/// How long a worker looks at silent ports before it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spin {
    /// Sleeps at once.
    Never,
    /// Looks for this long after a port's last frame.
    For(Duration),
    /// Never sleeps.
    Always,
}

/// How a worker runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerOptions {
    /// How long it looks before it sleeps.
    pub spin: Spin,
    /// The thread's name (15 bytes show).
    pub name: String,
    /// Keys the hashes; must be unknown to guests.
    pub seed: u64,
}

/// The worker has ended, or the request panicked inside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the data plane's worker has ended, or the request failed inside it")]
pub struct WorkerGone;

/// A request, to be run between two rounds.
type Job = Box<dyn FnOnce(&mut Engine, Time) + Send>;

/// How control speaks to a running worker. The worker ends when it is told to, not when the last
/// handle is dropped.
#[derive(Clone)]
pub struct WorkerHandle {
    jobs: Sender<Job>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    counters: Arc<WorkerCounters>,
}

impl WorkerHandle {
    /// Starts a worker thread with an empty engine.
    pub fn spawn(options: WorkerOptions) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (jobs, queue) = bounded(REQUESTS);
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Engine::new(options.seed);
        let spin = match options.spin {
            Spin::Never => Some(Duration::ZERO),
            Spin::For(duration) => Some(duration),
            Spin::Always => None,
        };
        engine.attach(poll.registry().try_clone()?, spin);
        let counters = engine.counters();
        let handle =
            WorkerHandle { jobs, waker, stop: Arc::clone(&stop), counters: Arc::clone(&counters) };
        let worker = Worker {
            engine,
            poll,
            events: Events::with_capacity(EVENTS),
            queue,
            stop,
            counters,
            started: Instant::now(),
            never_sleeps: options.spin == Spin::Always,
        };
        let thread = std::thread::Builder::new().name(options.name).spawn(|| worker.run())?;
        Ok((handle, thread))
    }

    /// Runs `job` on the worker between two bursts and waits for its answer. Everything that
    /// control changes, it changes so: no frame is under way meanwhile.
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine, Time) -> R + Send + 'static,
    ) -> Result<R, WorkerGone> {
        let (answer, answered) = bounded(1);
        let job: Job = Box::new(move |engine, now| {
            // The caller waits below; if it is gone, so is the interest in the answer.
            let _ = answer.send(job(engine, now));
        });
        self.jobs.send(job).map_err(|_| WorkerGone)?;
        self.wake();
        // A job that panics, and a worker that ends, drop the sending half.
        answered.recv().map_err(|_| WorkerGone)
    }

    /// The worker's own counters.
    pub fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    /// Ends the worker after the burst under way. Requests that still wait fail.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// A failure would mean that the worker's descriptors are gone, and it with them.
    fn wake(&self) {
        let _ = self.waker.wake();
    }
}

/// The thread's own state.
struct Worker {
    engine: Engine,
    poll: Poll,
    events: Events,
    queue: Receiver<Job>,
    stop: Arc<AtomicBool>,
    counters: Arc<WorkerCounters>,
    started: Instant,
    never_sleeps: bool,
}

impl Worker {
    fn run(mut self) {
        let mut now = self.now();
        let mut kicks_checked = now;
        while !self.stop.load(Ordering::Acquire) {
            self.run_jobs(now);
            if self.engine.has_active() || self.never_sleeps {
                if self.engine.poll(now) {
                    let after = self.now();
                    self.counters.busy_nanos.add(after.0 - now.0);
                    now = after;
                } else {
                    std::hint::spin_loop();
                    now = self.now();
                }
                let is_due = now.saturating_sub(kicks_checked) >= KICK_CHECK;
                if is_due && self.engine.has_armed() {
                    kicks_checked = now;
                    self.take_events(Some(Duration::ZERO));
                }
            } else {
                self.sleep();
                now = self.now();
                kicks_checked = now;
            }
        }
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_nanos() as u64)
    }

    /// A request that panics fails alone: its caller hears of it, the frames go on.
    fn run_jobs(&mut self, now: Time) {
        for job in self.queue.try_iter().take(REQUESTS_PER_ROUND) {
            let _ = catch_unwind(AssertUnwindSafe(|| job(&mut self.engine, now)));
        }
    }

    /// Waits for an event, unless requests wait already, whose waking may have been used up by
    /// those before them. One that is handed in after this look comes with a waking of its own.
    fn sleep(&mut self) {
        if self.queue.is_empty() {
            self.take_events(None);
            self.counters.wakeups.add(1);
        }
    }

    /// Waits up to `timeout` (none: until something happens) and makes the ready ports active.
    fn take_events(&mut self, timeout: Option<Duration>) {
        // The one failure of epoll on a descriptor of our own is an interruption by a signal.
        if self.poll.poll(&mut self.events, timeout).is_err() {
            return;
        }
        let now = self.now();
        for event in &self.events {
            if event.token() != WAKER {
                self.engine.ready(event.token().0, now);
            }
        }
    }
}

//! The thread around an engine.
//!
//! It alternates between requests from control and rounds of the engine. When no port is active, it
//! sleeps in epoll without a deadline; kicks, readable devices and control's waker end the sleep.
//! While some ports are active, it checks for kicks of the armed ones from time to time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Events, Poll, Token, Waker};

use crate::counters::WorkerCounters;
use crate::engine::{
    Engine, EngineError, IdAllocator, Network, NetworkId, NetworkSettings, PortId, PortSettings,
};
use crate::ports::{Doorbell, signal};
use crate::spin::Spin;
use crate::time::Time;

/// Most requests that wait; further callers block until there is room.
const REQUESTS: usize = 64;
/// Most requests between two rounds.
const REQUESTS_PER_ROUND: usize = 8;
/// Rounds without a frame after which the worker yields its core. Where the gateway shares the
/// core, its frames would otherwise wait for the spinning to end: yielding raised downloads from
/// 6.8 to over 9.7 Gb/s, requests from 7700 to 10,300 a second.
const YIELD_AFTER_ROUNDS: u32 = 8;
/// How often a busy worker checks for kicks of armed ports: a system call of about 0.3 µs.
const KICK_CHECK: Duration = Duration::from_micros(20);
/// Period over which a worker measures its load.
pub const LOAD_WINDOW: Duration = Duration::from_secs(1);
/// A worker counts as loaded above this utilisation, in percent.
pub const LOADED_PERCENT: u64 = 80;
/// Most readiness events taken at once.
const EVENTS: usize = 128;
/// The waker's token; a port's token is its ID.
const WAKER: Token = Token(usize::MAX);

/// Options of a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerOptions {
    /// How long it polls before it sleeps.
    pub spin: Spin,
    /// The thread's name (15 bytes are visible).
    pub name: String,
    /// Keys the hashes; must be unknown to guests.
    pub seed: u64,
}

/// The worker has ended; a request that panics ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the data plane's worker has ended")]
pub struct WorkerGone;

/// A question whether a worker runs jobs; [`WorkerHandle::probe`] asks it.
#[derive(Debug)]
pub struct Probe(Receiver<()>);

impl Probe {
    /// Returns whether the worker has answered.
    pub fn is_answered(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Why a network or port did not move. It stays where it was unless a worker has ended.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It does not exist, or cannot be registered with epoll there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// One of the two workers has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

/// The state of a port that has moved to another worker.
#[derive(Debug)]
#[must_use = "a port may have moved without being attached"]
pub enum PortMoved {
    /// It is attached as requested.
    Attached,
    /// It carries no frames, as it could not be attached.
    Unattached(EngineError),
}

/// Workers between which networks and ports can move: they share a clock, and IDs that are never
/// reused.
#[derive(Clone)]
pub struct WorkerGroup {
    ids: Arc<IdAllocator>,
    started: Instant,
}

/// A request that runs between two rounds.
type Job = Box<dyn FnOnce(&mut Engine, Time) + Send>;

/// Control's handle of a running worker. The worker ends when told to, not when the last handle is
/// dropped.
#[derive(Clone)]
pub struct WorkerHandle {
    jobs: Sender<Job>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    counters: Arc<WorkerCounters>,
    doorbell: Doorbell,
}

impl WorkerGroup {
    /// Makes a group without workers. `seed` keys the hashes and must be unknown to guests.
    pub fn new(seed: u64) -> WorkerGroup {
        WorkerGroup { ids: Arc::new(IdAllocator::new(seed)), started: Instant::now() }
    }

    /// Makes a network without ports for a worker of this group. Its MAC table may take long to
    /// make; no worker waits for it.
    pub fn network(&self, settings: NetworkSettings) -> (NetworkId, Network) {
        self.ids.new_network(settings)
    }

    /// Starts a worker thread with an empty engine. `load` is written each time the worker was busy
    /// for [`LOADED_PERCENT`] of a [`LOAD_WINDOW`].
    ///
    /// # Errors
    /// The system is out of descriptors or threads.
    pub fn spawn(
        &self,
        spin: Spin,
        name: String,
        load: Option<OwnedFd>,
    ) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (jobs, queue) = bounded(REQUESTS);
        let stop = Arc::new(AtomicBool::new(false));
        let mut engine = Engine::with_ids(Arc::clone(&self.ids));
        let doorbell = Doorbell::new(poll.registry().try_clone()?);
        let silence = match spin {
            Spin::Never => Some(Duration::ZERO),
            Spin::For(duration) => Some(duration),
            Spin::Always => None,
        };
        engine.attach(doorbell.clone(), silence);
        let counters = engine.counters();
        let handle = WorkerHandle {
            jobs,
            waker,
            stop: Arc::clone(&stop),
            counters: Arc::clone(&counters),
            doorbell,
        };
        let worker = Worker {
            engine,
            poll,
            events: Events::with_capacity(EVENTS),
            queue,
            stop,
            counters,
            started: self.started,
            never_sleeps: spin == Spin::Always,
            load: load.map(LoadMonitor::new),
        };
        let thread = std::thread::Builder::new().name(name).spawn(|| worker.run())?;
        Ok((handle, thread))
    }
}

impl WorkerHandle {
    /// Starts a worker thread with an empty engine, in a group of its own.
    ///
    /// # Errors
    /// The system is out of descriptors or threads.
    pub fn spawn(options: WorkerOptions) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
        let WorkerOptions { spin, name, seed } = options;
        WorkerGroup::new(seed).spawn(spin, name, None)
    }

    /// Adds a network to this worker.
    ///
    /// # Errors
    /// The worker has ended.
    pub fn take_network(&self, network: Network) -> Result<(), WorkerGone> {
        self.call(|engine, now| engine.take_network(network, now))
    }

    /// Moves a network to another worker of the group, with its ports, everything waiting in their
    /// rings, its addresses and its counters. `on_the_way` sees it while neither worker has it.
    /// Nothing is lost: frames that arrive meanwhile wait in their rings and devices.
    ///
    /// # Errors
    /// The network does not exist or cannot be registered with epoll there, or a worker has ended.
    pub fn move_network(
        &self,
        id: NetworkId,
        to: &WorkerHandle,
        on_the_way: impl FnOnce(&mut Network),
    ) -> Result<(), MoveError> {
        let doorbell = to.doorbell.clone();
        let mut network = self.call(move |engine, _| engine.give_network(id, &doorbell))??;
        on_the_way(&mut network);
        Ok(to.take_network(network)?)
    }

    /// Moves a port to another worker of the group, with its counters and everything waiting in its
    /// rings, and attaches it there.
    ///
    /// # Errors
    /// The port does not exist or cannot be registered with epoll there, or a worker has ended.
    pub fn move_port(
        &self,
        id: PortId,
        to: &WorkerHandle,
        settings: PortSettings,
    ) -> Result<PortMoved, MoveError> {
        let doorbell = to.doorbell.clone();
        let port = self.call(move |engine, _| engine.give_port(id, &doorbell))??;
        let attached = to.call(move |engine, now| {
            engine.take_port(port, now)?;
            engine.set_port(id, settings)
        })?;
        Ok(attached.map_or_else(PortMoved::Unattached, |()| PortMoved::Attached))
    }

    /// Runs `job` on the worker between two bursts and waits for its result. All changes by control
    /// go through it, so no frame is in transit meanwhile.
    ///
    /// # Errors
    /// The worker has ended, as it does when `job` panics.
    pub fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine, Time) -> R + Send + 'static,
    ) -> Result<R, WorkerGone> {
        let (answer, answered) = bounded(1);
        let job: Job = Box::new(move |engine, now| {
            // The caller waits below; if it is gone, the result is not needed.
            let _ = answer.send(job(engine, now));
        });
        self.jobs.send(job).map_err(|_| WorkerGone)?;
        self.wake();
        // A worker that ends drops the sending half.
        answered.recv().map_err(|_| WorkerGone)
    }

    /// Asks for a sign of life, without waiting: an empty job that the worker runs as any other.
    pub fn probe(&self) -> Probe {
        let (answer, answered) = bounded(1);
        let job: Job = Box::new(move |_, _| {
            // The probe may have been dropped.
            let _ = answer.send(());
        });
        // With no room for it, the worker has a backlog; the probe is then not answered.
        let _ = self.jobs.try_send(job);
        self.wake();
        Probe(answered)
    }

    /// Returns the worker's own counters.
    pub fn counters(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    /// Ends the worker after the current burst. Requests that still wait fail.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the worker. It can only fail if the worker has closed its descriptors and ended.
    fn wake(&self) {
        let _ = self.waker.wake();
    }
}

/// State of the thread.
struct Worker {
    engine: Engine,
    poll: Poll,
    events: Events,
    queue: Receiver<Job>,
    stop: Arc<AtomicBool>,
    counters: Arc<WorkerCounters>,
    started: Instant,
    never_sleeps: bool,
    load: Option<LoadMonitor>,
}

/// Reports when its worker is loaded, so that idle workers need no polling.
struct LoadMonitor {
    event: OwnedFd,
    begin: Time,
    busy_before: u64,
}

impl LoadMonitor {
    fn new(event: OwnedFd) -> LoadMonitor {
        LoadMonitor { event, begin: Time::ZERO, busy_before: 0 }
    }

    /// Records that by `now` the worker has been busy for `busy` nanoseconds in total.
    fn update(&mut self, now: Time, busy: u64) {
        let window = now.saturating_sub(self.begin);
        if window < LOAD_WINDOW {
            return;
        }
        if u128::from(busy - self.busy_before) * 100
            > window.as_nanos() * u128::from(LOADED_PERCENT)
        {
            signal(self.event.as_fd());
        }
        (self.begin, self.busy_before) = (now, busy);
    }
}

impl Worker {
    fn run(mut self) {
        let mut now = self.now();
        let mut kicks_checked = now;
        let mut idle = 0u32;
        while !self.stop.load(Ordering::Acquire) {
            self.run_jobs(now);
            if self.engine.has_active() || self.never_sleeps {
                let started = self.started;
                let (moved, done) = self.engine.round(now, || since(started));
                now = if self.engine.has_active() { done } else { since(started) };
                idle = if moved { 0 } else { idle + 1 };
                if idle >= YIELD_AFTER_ROUNDS {
                    idle = 0;
                    std::thread::yield_now();
                } else if idle > 0 {
                    std::hint::spin_loop();
                }
                if let Some(load) = &mut self.load {
                    load.update(now, self.counters.busy_nanos.get());
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
        since(self.started)
    }

    /// Runs waiting requests. One that panics ends the worker: it may have left the engine half
    /// changed.
    fn run_jobs(&mut self, now: Time) {
        for job in self.queue.try_iter().take(REQUESTS_PER_ROUND) {
            job(&mut self.engine, now);
        }
    }

    /// Waits for an event, unless requests wait already: earlier requests may have used up their
    /// wake-up. A request made after this check comes with its own wake-up.
    fn sleep(&mut self) {
        if self.queue.is_empty() {
            self.take_events(None);
            self.counters.wakeups.add(1);
        }
    }

    /// Waits up to `timeout` (without limit if `None`) and makes the ready ports active.
    fn take_events(&mut self, timeout: Option<Duration>) {
        // On an epoll descriptor owned here, the only possible failure is an interruption by a
        // signal.
        if self.poll.poll(&mut self.events, timeout).is_err() {
            return;
        }
        let now = self.now();
        for event in self.events.iter().filter(|event| event.token() != WAKER) {
            self.engine.ready(PortId(event.token().0 as u64), now);
        }
    }
}

fn since(started: Instant) -> Time {
    Time(started.elapsed().as_nanos() as u64)
}

//! A minimal backend: copies the frames of one port to another (the second of a pair, or the one
//! encoded in the destination address) or to all others.
//!
//! It has no table, no VLANs, no offloads and no counters. The remaining cost is that of any switch
//! with the same rings: a chain is read and checked, its frame copied once from one frontend's
//! memory to the other's, and two used elements are written. Under load it holds back, as a switch
//! would, until a batch has gathered. So its rate is the generator's ceiling.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use trama_vhost_net_backend::{RingFds, Rings, RingsError, Role, Session, SessionOptions};
use trama_virtqueue::{GuestMemory, MAX_BURST, RingSetup, RxQueue, TxBurst, TxQueue};

use super::clock::Clock;
use super::frame::Station;
use super::{Error, Result, pin_to};

/// Chains per turn that count as load, and chains of a batch under load.
const LOADED_CHAINS: usize = 32;
const BATCH_CHAINS: u16 = 256;
/// Longest wait for a batch since the ring was last served, in nanoseconds.
const MAX_HOLD_NANOS: u64 = 20_000;
/// Frames forwarded before the next ring's turn.
const TURN: usize = 512;

/// How the destination port of a frame is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// The other port of its pair: the first and second port are one, and so on.
    Pairs,
    /// The port encoded in the generator's destination address; there is no lookup.
    ByAddress,
    /// All other ports.
    All,
}

/// When a transmit ring is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    /// As soon as a frame waits: lower latency, lower throughput.
    #[default]
    Immediate,
    /// Under load, once a batch has gathered: higher throughput, higher latency.
    Batched,
}

/// Options of a null device.
#[derive(Clone, Copy, Debug)]
pub struct NullDeviceOptions {
    /// How destinations are chosen.
    pub forwarding: Forwarding,
    /// Which side of the sockets listens.
    pub role: Role,
    /// The core of its thread; `None` if the scheduler chooses.
    pub core: Option<usize>,
    /// When it serves a ring.
    pub serving: Serving,
}

impl NullDeviceOptions {
    /// Returns options of a device that listens, serves in batches, and is not pinned.
    pub fn new(forwarding: Forwarding) -> NullDeviceOptions {
        NullDeviceOptions { forwarding, role: Role::Server, core: None, serving: Serving::Batched }
    }
}

impl Forwarding {
    /// Returns the destinations, among this many ports, of a frame that begins with `head`.
    #[inline(always)]
    fn targets(self, from: usize, head: &[u8], ports: usize) -> PortSet {
        let all = PortSet::MAX >> (PortSet::BITS as usize - ports);
        let targets = match self {
            Forwarding::Pairs => 1 << (from ^ 1),
            Forwarding::ByAddress => 1_u64.checked_shl(Station::owner(head) as u32).unwrap_or(0),
            Forwarding::All => !(1 << from),
        };
        targets & all
    }
}

/// A running null device; stopped when dropped.
pub struct NullDevice {
    sessions: Vec<Session>,
    jobs: Sender<Job>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A set of ports: bit i is port i.
type PortSet = u64;

/// Returns the ports of a set, ascending.
#[inline(always)]
fn members(mut set: PortSet) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        next
    })
}

/// A change of the rings, executed between two turns.
type Job = Box<dyn FnOnce(&mut [Port]) + Send>;

impl NullDevice {
    /// Serves `sockets`, at most 64, with one thread, which polls.
    ///
    /// # Errors
    /// A pair is incomplete, a socket cannot be created, or the thread cannot be started or pinned.
    pub fn start<P: AsRef<Path>>(sockets: &[P], options: NullDeviceOptions) -> Result<NullDevice> {
        let NullDeviceOptions { forwarding, role, core, serving } = options;
        if sockets.len() > PortSet::BITS as usize {
            return Err(Error::NullDevice(format!("it has at most {} ports", PortSet::BITS)));
        }
        if forwarding == Forwarding::Pairs && !sockets.len().is_multiple_of(2) {
            return Err(Error::NullDevice("its ports are pairs; one is left over".into()));
        }
        let (jobs, queue) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ports) = (stop.clone(), sockets.len());
        let (report, pinned) = channel();
        let thread = std::thread::Builder::new().name("null-device".into()).spawn(move || {
            // The caller waits for the report.
            let _ = report.send(core.map_or(Ok(()), pin_to));
            let ports = (0..ports).map(|_| Port::new(serving)).collect();
            run(ports, forwarding, &queue, &stopped);
        })?;
        let mut device = NullDevice { sessions: Vec::new(), jobs, stop, thread: Some(thread) };
        pinned.recv().map_err(|_| Error::NullDevice("its thread ended".into()))??;
        for (port, path) in sockets.iter().enumerate() {
            let rings = PortRings { port, jobs: device.jobs.clone() };
            let session = Session::spawn(SessionOptions::new(path.as_ref(), role), rings);
            let session = session.map_err(|error| Error::NullDevice(error.to_string()))?;
            device.sessions.push(session);
        }
        Ok(device)
    }

    /// Stalls the device until `time` after the next frame was sent, armed before this returns: the
    /// generator must notice such a stall.
    #[cfg(test)]
    pub(super) fn stall(&self, time: std::time::Duration) {
        let (begins, begun) = channel();
        let _ = self.jobs.send(Box::new(move |ports| {
            let _ = begins.send(());
            while !ports.iter_mut().any(Port::has_frames) {
                std::thread::yield_now();
            }
            std::thread::sleep(time);
        }));
        let _ = begun.recv();
    }
}

impl Drop for NullDevice {
    fn drop(&mut self) {
        // Sessions first: their last requests still get an answer.
        self.sessions.clear();
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread fails only if it panicked; nothing is left to do then.
            let _ = thread.join();
        }
    }
}

/// The rings of a frontend.
#[derive(Default)]
struct Port {
    receive: Option<(RxQueue, Option<OwnedFd>)>,
    transmit: Option<(TxQueue, Option<OwnedFd>)>,
    serving: Serving,
    /// Number of chains that make a batch under load.
    batch: u16,
    loaded: bool,
    served: u64,
}

impl Port {
    fn new(serving: Serving) -> Port {
        Port { serving, ..Port::default() }
    }

    /// Returns whether its driver has sent frames not yet taken.
    #[cfg(test)]
    fn has_frames(&mut self) -> bool {
        self.transmit.as_mut().is_some_and(|(ring, _)| ring.pending().is_ok_and(|count| count > 0))
    }

    /// Returns whether the transmit ring should be served.
    #[inline]
    fn is_ready(&mut self, clock: Clock) -> bool {
        let Some((ring, _)) = &mut self.transmit else { return false };
        match ring.pending() {
            Ok(0) => false,
            Ok(waiting) if self.is_held(waiting) => clock.now() - self.served >= MAX_HOLD_NANOS,
            Ok(_) => true,
            // A broken ring stays silent until its frontend sets it up again.
            Err(_) => false,
        }
    }

    #[inline]
    fn is_held(&self, waiting: u16) -> bool {
        self.serving == Serving::Batched && self.loaded && waiting < self.batch
    }

    fn start(
        &mut self,
        index: usize,
        setup: RingSetup,
        call: Option<OwnedFd>,
    ) -> std::result::Result<(), RingsError> {
        if index == 0 {
            let ring = RxQueue::new(setup).map_err(RingsError::new)?;
            self.receive = Some((ring, call));
        } else {
            self.batch = BATCH_CHAINS.min(setup.size / 2);
            let mut ring = TxQueue::new(setup).map_err(RingsError::new)?;
            ring.disarm();
            self.transmit = Some((ring, call));
        }
        Ok(())
    }

    fn stop(&mut self, index: usize) -> u16 {
        match index {
            0 => self.receive.take().map_or(0, |(ring, _)| ring.next()),
            _ => self.transmit.take().map_or(0, |(ring, _)| ring.next()),
        }
    }

    fn call(&mut self, index: usize) -> Option<&mut Option<OwnedFd>> {
        match index {
            0 => self.receive.as_mut().map(|(_, call)| call),
            _ => self.transmit.as_mut().map(|(_, call)| call),
        }
    }

    fn set_memory(&mut self, memory: &Arc<GuestMemory>) -> std::result::Result<(), RingsError> {
        if let Some((ring, _)) = &mut self.receive {
            ring.set_memory(memory.clone()).map_err(RingsError::new)?;
        }
        if let Some((ring, _)) = &mut self.transmit {
            ring.set_memory(memory.clone()).map_err(RingsError::new)?;
        }
        Ok(())
    }
}

fn run(mut ports: Vec<Port>, forwarding: Forwarding, jobs: &Receiver<Job>, stop: &AtomicBool) {
    let (clock, mut burst) = (Clock::start(), TxBurst::new());
    while !stop.load(Ordering::Acquire) {
        for job in jobs.try_iter() {
            job(&mut ports);
        }
        let mut idle = true;
        for from in 0..ports.len() {
            if ports[from].is_ready(clock) {
                forward(&mut ports, from, forwarding, &mut burst);
                ports[from].served = clock.now();
                idle = false;
            }
        }
        if idle {
            std::hint::spin_loop();
        }
    }
}

/// Forwards the frames that wait on a ring; drops those that find no room.
fn forward(ports: &mut [Port], from: usize, forwarding: Forwarding, burst: &mut TxBurst) {
    let Some((mut transmit, call)) = ports[from].transmit.take() else { return };
    let (mut taken, mut written): (usize, PortSet) = (0, 0);
    while taken < TURN
        && let Ok(count) = transmit.fetch(burst, MAX_BURST)
        && count > 0
    {
        for to in members(forwarding.targets(from, burst.head(0), ports.len())) {
            if let Some((receive, _)) = &mut ports[to].receive {
                receive.expect(count);
            }
        }
        for i in 0..count {
            let head = burst.head(i);
            let targets = forwarding.targets(from, head, ports.len());
            for to in members(targets) {
                if let Some((receive, _)) = &mut ports[to].receive {
                    // Full or broken: the frame is lost, and the generator counts it.
                    let _ = receive.push(burst.header(i), head, burst.body(i));
                }
            }
            written |= targets;
        }
        transmit.complete(burst);
        taken += count;
    }
    ports[from].loaded = taken >= LOADED_CHAINS;
    if transmit.publish() {
        signal(call.as_ref());
    }
    ports[from].transmit = Some((transmit, call));
    for to in members(written) {
        if let Some((receive, call)) = &mut ports[to].receive
            && receive.publish()
        {
            signal(call.as_ref());
        }
    }
}

fn signal(event: Option<&OwnedFd>) {
    if let Some(event) = event {
        // A full counter is already readable.
        let _ = rustix::io::write(event, &1u64.to_ne_bytes());
    }
}

/// The session's access to the rings, through the device's thread.
struct PortRings {
    port: usize,
    jobs: Sender<Job>,
}

impl PortRings {
    fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Port) -> R + Send + 'static,
    ) -> std::result::Result<R, RingsError> {
        let gone = || RingsError::new("the null device has ended");
        let (answer, answered) = channel();
        let port = self.port;
        let job: Job = Box::new(move |ports| {
            // The caller waits below.
            let _ = answer.send(job(&mut ports[port]));
        });
        self.jobs.send(job).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }

    fn set_event(
        &self,
        index: usize,
        event: Option<OwnedFd>,
    ) -> std::result::Result<(), RingsError> {
        if let Some(event) = &event {
            let nonblocking = rustix::io::ioctl_fionbio(event.as_fd(), true);
            nonblocking.map_err(RingsError::new)?;
        }
        self.call(move |port| {
            if let Some(call) = port.call(index) {
                *call = event;
            }
        })
    }
}

impl Rings for PortRings {
    fn set_features(&mut self, _features: u64) -> std::result::Result<(), RingsError> {
        Ok(())
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> std::result::Result<(), RingsError> {
        self.call(move |port| port.set_memory(&memory))?
    }

    fn start(
        &mut self,
        index: usize,
        setup: RingSetup,
        fds: RingFds,
    ) -> std::result::Result<(), RingsError> {
        self.call(move |port| port.start(index, setup, None))??;
        self.set_event(index, fds.call)
    }

    fn stop(&mut self, index: usize) -> std::result::Result<u16, RingsError> {
        self.call(move |port| port.stop(index))
    }

    fn set_call(
        &mut self,
        index: usize,
        call: Option<OwnedFd>,
    ) -> std::result::Result<(), RingsError> {
        self.set_event(index, call)
    }

    /// Not needed: the device polls.
    fn set_kick(
        &mut self,
        _index: usize,
        _kick: Option<OwnedFd>,
    ) -> std::result::Result<(), RingsError> {
        Ok(())
    }

    fn disconnected(&mut self) {
        // A device that has ended has dropped its rings already.
        let _ = self.call(|port| (port.receive, port.transmit) = (None, None));
    }
}

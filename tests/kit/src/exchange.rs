//! Two guests that send each other numbered frames, while the device side of their rings may be
//! replaced at any moment.
//!
//! Each driver checks what a guest relies on: every used element names a chain that is with the
//! device, frames arrive in order, none is missing, and a driver that sleeps is called. A device
//! that dies may have delivered the frames of one turn without completing them: after each death
//! they may come once more.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trama_virtqueue::{
    DriverMemory, DriverRx, DriverTx, GuestMemory, RingAddresses, RingFds, RingFeatures, RingSetup,
};

use crate::frames::{PLAIN, frame, mac};
use crate::rings::driver_options;
use crate::wait::{PATIENCE, eventfd, take_count};

/// Entries of a transmit ring.
const TX_SIZE: u16 = 256;
/// Entries of a receive ring: room for all frames on the way and for those that come twice.
const RX_SIZE: u16 = 1024;
/// Most frames that are on the way in one direction.
const WINDOW: u64 = 256;
/// Most frames that may come once more: four bursts of 64.
const MOST_TWICE: u64 = 256;

/// Both guests.
pub struct Exchange {
    ends: [End; 2],
    /// Number of deaths of the device side so far.
    pub deaths: Arc<AtomicU64>,
    /// Number of frames that have arrived so far.
    pub arrived: Arc<AtomicU64>,
}

/// One guest with a pair of rings.
struct End {
    memory: Arc<DriverMemory>,
    /// The event of each ring that wakes the device, and the one that wakes the driver.
    events: [[OwnedFd; 2]; 2],
    tx: DriverTx,
    rx: DriverRx,
    /// Frames sent so far.
    sent: u64,
    /// Frames that have arrived, each counted once.
    arrived: u64,
    /// The number that the next frame must have, unless frames come once more.
    next: u64,
    /// How often frames came once more.
    rewinds: u64,
    longest_gap: Duration,
    last_arrival: Instant,
}

impl Exchange {
    /// Lays out the rings of both guests.
    pub fn new(features: RingFeatures) -> Exchange {
        let ends = [End::new(features), End::new(features)];
        Exchange { ends, deaths: Arc::default(), arrived: Arc::default() }
    }

    /// Returns what a device side needs to run the rings of a guest.
    pub fn plugs(&self) -> [Plug; 2] {
        self.ends.each_ref().map(End::plug)
    }

    /// Sends and receives until `stop`, then until all frames have arrived and all buffers are
    /// back. Returns how many frames each guest has received, and the longest time without one.
    ///
    /// # Panics
    /// A guest finds something wrong.
    pub fn run(&mut self, stop: &AtomicBool) -> ([u64; 2], Duration) {
        loop {
            let is_last = stop.load(Ordering::SeqCst);
            let mut moved = false;
            for at in 0..2 {
                let peer_arrived = self.ends[1 - at].arrived;
                let limit = if is_last { 0 } else { WINDOW };
                let deaths = &self.deaths;
                moved |= self.ends[at].step(at as u8, peer_arrived + limit, deaths);
            }
            let is_done = is_last && (0..2).all(|at| self.has_all_of(at));
            if is_done {
                let gap = self.ends.iter().map(|end| end.longest_gap).max();
                return (self.ends.each_ref().map(|end| end.arrived), gap.unwrap_or_default());
            }
            let arrived = self.ends.iter().map(|end| end.arrived).sum();
            self.arrived.store(arrived, Ordering::SeqCst);
            if !moved {
                self.sleep();
            }
        }
    }

    /// Returns how often frames came again after a death.
    pub fn again(&self) -> u64 {
        self.ends.iter().map(|end| end.rewinds).sum()
    }

    /// Whether everything that a guest has sent has arrived and its buffers are back.
    fn has_all_of(&self, at: usize) -> bool {
        let end = &self.ends[at];
        self.ends[1 - at].arrived == end.sent && end.tx.free() == usize::from(TX_SIZE)
    }

    /// Waits until a driver is called, unless there is something to do.
    fn sleep(&mut self) {
        let ready = self.ends.iter_mut().any(|end| end.rx.arm() | end.tx.arm());
        if !ready {
            let calls = self.ends.iter().flat_map(|end| &end.events);
            let mut fds: Vec<_> = calls.map(|[_, call]| PollFd::new(call, PollFlags::IN)).collect();
            let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            assert!(poll(&mut fds, Some(&limit)).unwrap() > 0, "no driver is called: {self}");
        }
        for end in &mut self.ends {
            for [_, call] in &end.events {
                take_count(call);
            }
            end.rx.disarm();
            end.tx.disarm();
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for End { sent, arrived, tx, rewinds, .. } in &self.ends {
            let with_device = usize::from(TX_SIZE) - tx.free();
            write!(f, "[{sent} sent, {arrived} arrived, {rewinds} times again, ")?;
            write!(f, "{with_device} buffers are with the device] ")?;
        }
        Ok(())
    }
}

/// What a device side needs to run the rings of one guest: ring 0 receives, ring 1 transmits.
pub struct Plug {
    /// The memory of both rings.
    pub memory: Arc<DriverMemory>,
    /// The map of that memory.
    pub map: Arc<GuestMemory>,
    /// The rings, as a frontend knows them: with the index at which they began.
    pub setups: [RingSetup; 2],
    /// Their addresses in the frontend.
    pub addresses: [RingAddresses; 2],
    events: [[OwnedFd; 2]; 2],
}

impl Plug {
    /// Returns copies of a ring's kick and call descriptors.
    pub fn fds(&self, ring: usize) -> RingFds {
        let [kick, call] = self.events[ring].each_ref().map(|fd| fd.try_clone().unwrap());
        RingFds { kick: Some(kick), call: Some(call) }
    }
}

impl End {
    fn new(features: RingFeatures) -> End {
        let [tx_options, rx_options] =
            [TX_SIZE, RX_SIZE].map(|size| driver_options(size, features));
        let size = tx_options.memory_size() + rx_options.memory_size();
        let memory = DriverMemory::new(size).unwrap();
        let tx = DriverTx::new(&memory, tx_options).unwrap();
        let mut rx = DriverRx::new(&memory, rx_options).unwrap();
        rx.refill();
        End {
            memory,
            events: [(); 2].map(|()| [eventfd(), eventfd()]),
            tx,
            rx,
            sent: 0,
            arrived: 0,
            next: 0,
            rewinds: 0,
            longest_gap: Duration::ZERO,
            last_arrival: Instant::now(),
        }
    }

    fn plug(&self) -> Plug {
        let map = self.memory.map();
        Plug {
            memory: self.memory.clone(),
            setups: [self.rx.setup(map.clone()), self.tx.setup(map.clone())],
            map,
            addresses: [self.rx.addresses(), self.tx.addresses()],
            events: self
                .events
                .each_ref()
                .map(|pair| pair.each_ref().map(|fd| fd.as_fd().try_clone_to_owned().unwrap())),
        }
    }

    /// Sends frames up to number `limit` and takes what has arrived; returns whether there was
    /// something to do.
    fn step(&mut self, own: u8, limit: u64, deaths: &AtomicU64) -> bool {
        let mut moved = self.tx.reclaim().unwrap() > 0;
        let (from, to) = (mac(1 + own), mac(2 - own));
        while self.sent < limit && self.tx.free() > 0 {
            let mut bytes = frame(to, from, 60);
            bytes[14..22].copy_from_slice(&self.sent.to_be_bytes());
            self.tx.send(&PLAIN, &[&bytes]).unwrap();
            self.sent += 1;
            moved = true;
        }
        if self.tx.publish() {
            rustix::io::write(&self.events[1][0], &1u64.to_ne_bytes()).unwrap();
        }
        let mut bytes = Vec::new();
        while self.rx.recv(&mut bytes).unwrap().is_some() {
            let number = u64::from_be_bytes(bytes[14..22].try_into().unwrap());
            self.check(number, deaths);
            moved = true;
        }
        if self.rx.refill() {
            rustix::io::write(&self.events[0][0], &1u64.to_ne_bytes()).unwrap();
        }
        moved
    }

    fn check(&mut self, number: u64, deaths: &AtomicU64) {
        if number != self.next {
            assert!(number < self.next, "frame {} is missing: {number} came", self.next);
            let twice = self.next - number;
            self.rewinds += 1;
            let deaths = deaths.load(Ordering::SeqCst);
            assert!(self.rewinds <= deaths, "{twice} frames came again without a death");
            assert!(twice <= MOST_TWICE, "{twice} frames came again");
        }
        self.next = number + 1;
        if self.next > self.arrived {
            self.arrived = self.next;
            self.longest_gap = self.longest_gap.max(self.last_arrival.elapsed());
            self.last_arrival = Instant::now();
        }
    }
}

//! A port whose device is a virtio-net driver: ring pairs in shared memory.
//!
//! Receive and transmit are named from the driver's side, as in virtio: the switch reads a
//! *transmit* ring and writes a *receive* ring. The halves are kept apart, so that they could run
//! on two workers. A ring that breaks the rules stops all rings of its port, and no other port's.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::{GuestMemory, Logged, RingError, RingFds, RingSetup, Segment, TxBurst};

use super::calls::Calls;
use super::{Sink, Watched, Watcher};
use crate::drop_reason::DropReason;
use crate::engine::{EngineError, PortFault};
use crate::flow::FlowHasher;
use crate::time::Time;

mod logged;
mod pairs;
mod rings;
mod shared_ring;

use pairs::{RingPairs, is_receive};
pub(crate) use rings::{OnlyRing, RingPoll};
use rings::{Receive, notify};

/// Device side of a virtio-net device: up to `queue_pairs` pairs of rings.
pub struct VhostDevice {
    rings: RingPairs,
    /// Pairs whose receive rings are started.
    started: Vec<u16>,
    fault: Option<PortFault>,
    /// Spreads flows over the receive rings.
    flows: FlowHasher,
    /// The rings that were started with a log; their places above are empty.
    logged: Option<Box<RingPairs<Logged>>>,
}

impl VhostDevice {
    /// Makes a device with room for `queue_pairs` (at least 1) pairs of rings, none started.
    pub fn new(queue_pairs: u16) -> VhostDevice {
        let pairs = usize::from(queue_pairs.max(1));
        VhostDevice {
            rings: RingPairs::new(pairs),
            started: Vec::with_capacity(pairs),
            fault: None,
            flows: FlowHasher::default(),
            logged: None,
        }
    }

    /// Keys the hash that spreads flows over the receive rings.
    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.flows = FlowHasher::new(seed);
    }

    fn check_index(&self, index: usize) -> Result<(), EngineError> {
        let rings = 2 * self.pairs();
        if index < rings { Ok(()) } else { Err(EngineError::NoSuchRing { index, rings }) }
    }

    /// Starts ring `index` (2n: receive, 2n + 1: transmit); replaces a running one. Kicks stay as
    /// its driver was last told, until [`Self::disarm`].
    pub(crate) fn start(
        &mut self,
        index: usize,
        setup: RingSetup,
        fds: RingFds,
        watcher: &Watcher,
    ) -> Result<(), EngineError> {
        self.check_index(index)?;
        let kick_error = |error| EngineError::Kick { index, error };
        // The old ring's registration must go before the same descriptor is registered again.
        self.empty(index);
        let kick = fds.kick.filter(|_| !is_receive(index));
        let kick = kick.map(|fd| watcher.watch(fd)).transpose().map_err(kick_error)?;
        if setup.log.is_some() {
            let pairs = self.pairs();
            let logged = self.logged.get_or_insert_with(|| Box::new(RingPairs::new(pairs)));
            logged.start(index, setup, fds.call, kick)?;
        } else {
            self.rings.start(index, setup, fds.call, kick)?;
        }
        self.recount();
        self.fault = None;
        Ok(())
    }

    /// Drops ring `index`, if it is started; returns the index at which it resumes.
    fn empty(&mut self, index: usize) -> Option<u16> {
        let logged = self.logged.as_mut().and_then(|rings| rings.stop(index));
        let next = self.rings.stop(index).or(logged);
        self.recount();
        next
    }

    /// Stops a ring; returns the index at which it resumes.
    pub(crate) fn stop(&mut self, index: usize) -> Result<u16, EngineError> {
        self.check_index(index)?;
        self.empty(index).ok_or(EngineError::NotStarted(index))
    }

    fn recount(&mut self) {
        self.started.clear();
        let logged = self.logged.as_ref();
        let is_logged = |pair: usize| logged.is_some_and(|rings| rings.receive[pair].is_some());
        let rings = self.rings.receive.iter().enumerate();
        let started = rings.filter(|(pair, ring)| ring.is_some() || is_logged(*pair));
        self.started.extend(started.map(|(pair, _)| pair as u16));
    }

    /// Replaces a started ring's call descriptor, and calls through it: a call just made through
    /// the old one may have been missed.
    pub(crate) fn set_call(&mut self, index: usize, call: Option<OwnedFd>, calls: &mut Calls) {
        let logged = self.logged.as_mut().and_then(|rings| rings.call(index));
        if let Some(place) = self.rings.call(index).or(logged) {
            *place = call;
            notify(true, place, calls);
        }
    }

    /// Replaces a started ring's kick descriptor. Kicks of receive rings are never awaited.
    pub(crate) fn set_kick(
        &mut self,
        index: usize,
        kick: Option<OwnedFd>,
        watcher: &Watcher,
    ) -> Result<(), EngineError> {
        self.check_index(index)?;
        if is_receive(index) {
            return Ok(());
        }
        let logged = self.logged.as_mut().and_then(|rings| rings.kick(index / 2));
        let place = self.rings.kick(index / 2).or(logged);
        let place = place.ok_or(EngineError::NotStarted(index))?;
        *place = None;
        let kick_error = |error| EngineError::Kick { index, error };
        *place = kick.map(|fd| watcher.watch(fd)).transpose().map_err(kick_error)?;
        Ok(())
    }

    /// Gives all rings a new memory map. The first ring that does not fit it is an error. The rings
    /// then keep the map each has, and the caller must drop the frontend.
    pub(crate) fn set_memory(&mut self, memory: &Arc<GuestMemory>) -> Result<(), EngineError> {
        self.rings.set_memory(memory)?;
        self.logged.as_mut().map_or(Ok(()), |logged| logged.set_memory(memory))
    }

    /// Continues each ring from the used index in its memory, which another device has moved.
    pub(crate) fn catch_up(&mut self) {
        self.rings.catch_up();
        if let Some(logged) = &mut self.logged {
            logged.catch_up();
        }
    }

    /// Calls the driver of each started ring; returns the calls added.
    pub(crate) fn call_all(&self, calls: &mut Calls) -> u64 {
        let logged = self.logged.as_ref().map_or(0, |logged| logged.call_all(calls));
        logged + self.rings.call_all(calls)
    }

    /// Drops all rings.
    pub(crate) fn drop_rings(&mut self) {
        self.rings = RingPairs::new(self.pairs());
        self.logged = None;
        self.started.clear();
    }

    /// Drops all rings and the fault.
    pub(crate) fn detach(&mut self) {
        self.drop_rings();
        self.fault = None;
    }

    pub(crate) fn fault(&self) -> Option<PortFault> {
        self.fault
    }

    /// Returns the kick descriptors.
    pub(crate) fn watched(&mut self) -> Vec<&mut Watched> {
        let logged = self.logged.iter_mut().flat_map(|logged| logged.watched());
        self.rings.watched().chain(logged).collect()
    }

    /// Returns whether frames can be put on a receive ring.
    pub(crate) fn is_ready(&self) -> bool {
        !self.started.is_empty() && self.fault.is_none()
    }

    /// Returns the number of pairs of the device.
    pub(crate) fn pairs(&self) -> usize {
        self.rings.transmit.len()
    }

    /// Looks at transmit ring `pair` at the start of a visit.
    pub(crate) fn poll_ring(&mut self, pair: usize, now: Time, may_hold: bool) -> RingPoll {
        let Some(ring) = &mut self.rings.transmit[pair] else {
            return self.poll_logged(pair, now, may_hold);
        };
        match ring.poll(pair, now, may_hold) {
            Ok(poll) => poll,
            Err(fault) => {
                self.fault = Some(fault);
                RingPoll::Empty
            }
        }
    }

    /// Takes up to `max` chains off transmit ring `pair`.
    pub(crate) fn fetch(&mut self, pair: usize, burst: &mut TxBurst, max: usize) -> usize {
        let Some(ring) = &mut self.rings.transmit[pair] else {
            return self.fetch_logged(pair, burst, max);
        };
        match ring.queue.fetch(burst, max) {
            Ok(taken) => taken,
            Err(error) => {
                self.fault = Some(PortFault::Ring { index: 2 * pair + 1, error });
                0
            }
        }
    }

    /// Returns a burst to its ring, in order, as used.
    pub(crate) fn complete(&mut self, pair: usize, burst: &TxBurst) {
        match &mut self.rings.transmit[pair] {
            Some(ring) => ring.queue.complete(burst),
            None => self.complete_logged(pair, burst),
        }
    }

    /// Ends a visit that took `taken` chains; returns the calls added (0 or 1).
    pub(crate) fn finish(
        &mut self,
        pair: usize,
        taken: usize,
        now: Time,
        calls: &mut Calls,
    ) -> u64 {
        match &mut self.rings.transmit[pair] {
            Some(ring) => ring.finish(taken, now, calls),
            None => self.finish_logged(pair, taken, now, calls),
        }
    }

    /// Publishes the receive rings that were written; returns the calls added.
    pub(crate) fn flush(&mut self, calls: &mut Calls) -> u64 {
        let mut added = 0;
        for pair in &self.started {
            let (calls, is_lost) = match &mut self.rings.receive[usize::from(*pair)] {
                Some(ring) if ring.is_unpublished() => ring.publish(calls),
                Some(_) => continue,
                None => logged::flush(&mut self.logged, *pair, calls),
            };
            added += calls;
            if is_lost {
                self.fault = Some(PortFault::MemoryLost);
            }
        }
        added
    }

    /// Requests kicks on all transmit rings. Returns `false`, and requests none, if a ring is not
    /// empty or has no kick descriptor.
    pub(crate) fn arm(&mut self) -> bool {
        let armed = self.rings.arm() && self.logged.as_mut().is_none_or(|logged| logged.arm());
        if !armed {
            self.disarm();
        }
        armed
    }

    pub(crate) fn disarm(&mut self) {
        self.rings.disarm();
        if let Some(logged) = &mut self.logged {
            logged.disarm();
        }
    }
}

impl VhostDevice {
    /// Returns the receive ring for all frames, if only one is started.
    #[inline]
    pub(crate) fn only_ring(&mut self) -> Option<OnlyRing<'_>> {
        let [pair] = self.started[..] else { return None };
        let ring = self.rings.receive[usize::from(pair)].as_mut()?;
        Some(OnlyRing { ring, broken: None })
    }

    /// Records that receive ring `pair` broke the rules.
    #[cold]
    fn broke(&mut self, pair: u16, error: RingError) {
        self.fault = Some(PortFault::Ring { index: 2 * usize::from(pair), error });
        self.started.clear();
    }

    /// Records the outcome of delivery to [`VhostDevice::only_ring`].
    #[inline]
    pub(crate) fn record_broken(&mut self, broken: Option<RingError>) {
        if let (Some(error), [pair]) = (broken, &self.started[..]) {
            self.broke(*pair, error);
        }
    }
}

/// A device with several receive rings: a frame's flow decides.
impl Sink for VhostDevice {
    fn expect(&mut self, frames: usize) {
        for pair in &self.started {
            match &mut self.rings.receive[usize::from(*pair)] {
                Some(ring) => ring.queue.expect(frames),
                None => logged::expect(&mut self.logged, *pair, frames),
            }
        }
    }

    fn put(
        &mut self,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let pair = match self.started[..] {
            [] => return Err(DropReason::EgressNotReady),
            [only] => only,
            ref several => several[self.flows.ring_for(head, several.len())],
        };
        let Some(ring) = &mut self.rings.receive[usize::from(pair)] else {
            return self.put_logged(pair, header, head, body);
        };
        let mut ring = OnlyRing { ring, broken: None };
        let result = ring.put(header, head, body);
        if let Some(error) = ring.broken {
            self.broke(pair, error);
        }
        result
    }
}

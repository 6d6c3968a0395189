//! A port whose device is a virtio-net driver: ring pairs in shared memory.
//!
//! Receive and transmit are named from the driver's side, as in virtio: the switch reads a
//! *transmit* ring and writes a *receive* ring. The halves are kept apart, so that they could run
//! on two workers. A ring that breaks the rules stops all rings of its port, and no other port's.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::{
    GuestMemory, Head, PushError, RingError, RingFds, RingSetup, RxQueue, Segment, TxBurst, TxQueue,
};

use super::calls::Calls;
use super::hold_off::HoldOff;
use super::ring_shares::RingShares;
use super::{Sink, Watched, Watcher};
use crate::drop_reason::DropReason;
use crate::engine::{EngineError, PortFault};
use crate::flow::FlowHasher;
use crate::time::Time;

mod shared_ring;

/// Device side of a virtio-net device: up to `queue_pairs` pairs of rings.
pub struct VhostDevice {
    receive: Vec<Option<Receive>>,
    transmit: Vec<Option<Transmit>>,
    /// Started receive rings, by index into `receive`.
    started: Vec<u16>,
    fault: Option<PortFault>,
    /// Spreads flows over the receive rings.
    flows: FlowHasher,
}

/// A ring that the switch writes.
struct Receive {
    queue: RxQueue,
    call: Option<OwnedFd>,
    /// Whether it holds frames that are not visible yet.
    touched: bool,
    /// Whether it made frames visible of which its driver is still to be notified.
    owes_call: bool,
    /// Who filled its buffers, if its senders share it.
    shares: Option<Box<RingShares>>,
}

/// A ring that the switch reads.
struct Transmit {
    queue: TxQueue,
    call: Option<OwnedFd>,
    kick: Option<Watched>,
    hold_off: HoldOff,
}

/// Result of looking at a transmit ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingPoll {
    Empty,
    /// Chains wait, and it pays to wait for more.
    Hold,
    Serve,
}

impl VhostDevice {
    /// Makes a device with room for `queue_pairs` (at least 1) pairs of rings, none started.
    pub fn new(queue_pairs: u16) -> VhostDevice {
        let pairs = usize::from(queue_pairs.max(1));
        VhostDevice {
            receive: (0..pairs).map(|_| None).collect(),
            transmit: (0..pairs).map(|_| None).collect(),
            started: Vec::with_capacity(pairs),
            fault: None,
            flows: FlowHasher::default(),
        }
    }

    /// Keys the hash that spreads flows over the receive rings.
    pub(crate) fn set_seed(&mut self, seed: u64) {
        self.flows = FlowHasher::new(seed);
    }

    fn check_index(&self, index: usize) -> Result<(), EngineError> {
        let rings = 2 * self.receive.len();
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
        let ring_error = |error| EngineError::Ring { index, error };
        let kick_error = |error| EngineError::Kick { index, error };
        let call = fds.call;
        if is_receive(index) {
            let queue = RxQueue::new(setup).map_err(ring_error)?;
            self.receive[index / 2] =
                Some(Receive { queue, call, touched: false, owes_call: false, shares: None });
            self.recount();
        } else {
            let hold_off = HoldOff::new(setup.size);
            let queue = TxQueue::new(setup).map_err(ring_error)?;
            // The old ring's registration must go before the same descriptor is registered again.
            self.transmit[index / 2] = None;
            let kick = fds.kick.map(|fd| watcher.watch(fd)).transpose().map_err(kick_error)?;
            self.transmit[index / 2] = Some(Transmit { queue, call, kick, hold_off });
        }
        self.fault = None;
        Ok(())
    }

    /// Stops a ring; returns the index at which it resumes.
    pub(crate) fn stop(&mut self, index: usize) -> Result<u16, EngineError> {
        self.check_index(index)?;
        let not_started = EngineError::NotStarted(index);
        if is_receive(index) {
            let ring = self.receive[index / 2].take().ok_or(not_started)?;
            self.recount();
            Ok(ring.queue.next())
        } else {
            let ring = self.transmit[index / 2].take().ok_or(not_started)?;
            Ok(ring.queue.next())
        }
    }

    fn recount(&mut self) {
        self.started.clear();
        let rings = self.receive.iter().enumerate();
        self.started.extend(rings.filter(|(_, ring)| ring.is_some()).map(|(i, _)| i as u16));
    }

    /// Replaces a started ring's call descriptor, and calls through it: a call just made through
    /// the old one may have been missed.
    pub(crate) fn set_call(&mut self, index: usize, call: Option<OwnedFd>, calls: &mut Calls) {
        let pair = index / 2;
        let place = if is_receive(index) {
            self.receive.get_mut(pair).and_then(Option::as_mut).map(|ring| &mut ring.call)
        } else {
            self.transmit.get_mut(pair).and_then(Option::as_mut).map(|ring| &mut ring.call)
        };
        if let Some(place) = place {
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
        let ring = self.transmit[index / 2].as_mut().ok_or(EngineError::NotStarted(index))?;
        ring.kick = None;
        let kick_error = |error| EngineError::Kick { index, error };
        ring.kick = kick.map(|fd| watcher.watch(fd)).transpose().map_err(kick_error)?;
        Ok(())
    }

    /// Gives all rings a new memory map. The first ring that does not fit it is an error. The rings
    /// then keep the map each has, and the caller must drop the frontend.
    pub(crate) fn set_memory(&mut self, memory: &Arc<GuestMemory>) -> Result<(), EngineError> {
        for (pair, ring) in self.receive.iter_mut().enumerate() {
            if let Some(ring) = ring {
                let index = 2 * pair;
                let moved = ring.queue.set_memory(memory.clone());
                moved.map_err(|error| EngineError::Ring { index, error })?;
            }
        }
        for (pair, ring) in self.transmit.iter_mut().enumerate() {
            if let Some(ring) = ring {
                let index = 2 * pair + 1;
                let moved = ring.queue.set_memory(memory.clone());
                moved.map_err(|error| EngineError::Ring { index, error })?;
            }
        }
        Ok(())
    }

    /// Continues each ring from the used index in its memory, which another device has moved.
    pub(crate) fn catch_up(&mut self) {
        for ring in self.receive.iter_mut().flatten() {
            ring.queue.catch_up();
            let size = ring.queue.size();
            ring.shares = ring.shares.take().map(|_| Box::new(RingShares::new(size)));
        }
        self.transmit.iter_mut().flatten().for_each(|ring| ring.queue.catch_up());
    }

    /// Calls the driver of each started ring; returns the calls added.
    pub(crate) fn call_all(&self, calls: &mut Calls) -> u64 {
        let receive = self.receive.iter().flatten().map(|ring| &ring.call);
        let transmit = self.transmit.iter().flatten().map(|ring| &ring.call);
        receive.chain(transmit).map(|call| notify(true, call, calls)).sum()
    }

    /// Drops all rings.
    pub(crate) fn drop_rings(&mut self) {
        self.receive.iter_mut().for_each(|ring| *ring = None);
        self.transmit.iter_mut().for_each(|ring| *ring = None);
        self.recount();
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
        self.transmit.iter_mut().flatten().filter_map(|ring| ring.kick.as_mut()).collect()
    }

    /// Returns whether frames can be put on a receive ring.
    pub(crate) fn is_ready(&self) -> bool {
        !self.started.is_empty() && self.fault.is_none()
    }

    /// Returns the number of pairs of the device.
    pub(crate) fn pairs(&self) -> usize {
        self.transmit.len()
    }

    /// Looks at transmit ring `pair` at the start of a visit.
    pub(crate) fn poll_ring(&mut self, pair: usize, now: Time, may_hold: bool) -> RingPoll {
        let Some(ring) = &mut self.transmit[pair] else { return RingPoll::Empty };
        if ring.queue.memory_lost() {
            self.fault = Some(PortFault::MemoryLost);
            return RingPoll::Empty;
        }
        match ring.queue.pending() {
            Ok(0) => RingPoll::Empty,
            Ok(waiting) if may_hold && ring.hold_off.holds(waiting, now) => RingPoll::Hold,
            Ok(_) => RingPoll::Serve,
            Err(error) => {
                self.fault = Some(PortFault::Ring { index: 2 * pair + 1, error });
                RingPoll::Empty
            }
        }
    }

    /// Takes up to `max` chains off transmit ring `pair`.
    pub(crate) fn fetch(&mut self, pair: usize, burst: &mut TxBurst, max: usize) -> usize {
        let Some(ring) = &mut self.transmit[pair] else { return 0 };
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
        if let Some(ring) = &mut self.transmit[pair] {
            ring.queue.complete(burst);
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
        let Some(ring) = &mut self.transmit[pair] else { return 0 };
        ring.hold_off.served(taken, now);
        notify(ring.queue.publish(), &ring.call, calls)
    }

    /// Publishes the receive rings that were written; returns the calls added.
    pub(crate) fn flush(&mut self, calls: &mut Calls) -> u64 {
        let mut added = 0;
        for pair in &self.started {
            if let Some(ring) = &mut self.receive[usize::from(*pair)]
                && (ring.touched || ring.owes_call)
            {
                ring.touched = false;
                let owed = std::mem::take(&mut ring.owes_call);
                added += notify(ring.queue.publish() | owed, &ring.call, calls);
                if ring.queue.memory_lost() {
                    self.fault = Some(PortFault::MemoryLost);
                }
            }
        }
        added
    }

    /// Requests kicks on all transmit rings. Returns `false`, and requests none, if a ring is not
    /// empty or has no kick descriptor.
    pub(crate) fn arm(&mut self) -> bool {
        let quiet = |ring: &mut Transmit| ring.kick.is_some() && !ring.queue.arm();
        let armed = self.transmit.iter_mut().flatten().all(quiet);
        if !armed {
            self.disarm();
        }
        armed
    }

    pub(crate) fn disarm(&mut self) {
        self.transmit.iter_mut().flatten().for_each(|ring| ring.queue.disarm());
    }
}

impl VhostDevice {
    /// Returns the receive ring for all frames, if only one is started.
    #[inline]
    pub(crate) fn only_ring(&mut self) -> Option<OnlyRing<'_>> {
        let [pair] = self.started[..] else { return None };
        let ring = self.receive[usize::from(pair)].as_mut()?;
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
            if let Some(ring) = &mut self.receive[usize::from(*pair)] {
                ring.queue.expect(frames);
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
        let Some(ring) = &mut self.receive[usize::from(pair)] else {
            return Err(DropReason::EgressNotReady);
        };
        let mut ring = OnlyRing { ring, broken: None };
        let result = ring.put(header, head, body);
        if let Some(error) = ring.broken {
            self.broke(pair, error);
        }
        result
    }
}

/// The only receive ring that a device has started.
pub(crate) struct OnlyRing<'a> {
    ring: &'a mut Receive,
    /// The rule that it broke, if any.
    pub broken: Option<RingError>,
}

impl Sink for OnlyRing<'_> {
    #[inline]
    fn expect(&mut self, frames: usize) {
        self.ring.queue.expect(frames);
    }

    #[inline]
    fn put(
        &mut self,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        self.put_head(header, head, body)
    }

    #[inline(always)]
    fn put_head<H: Head>(
        &mut self,
        header: &[u8; HEADER],
        head: H,
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        match self.ring.queue.push(header, head, body) {
            Ok(()) => {
                self.ring.touched = true;
                Ok(())
            }
            Err(PushError::Full) if self.ring.touched => self.put_again(header, head, body),
            Err(error) => self.refused(error),
        }
    }
}

impl OnlyRing<'_> {
    /// Puts a frame on a ring that is full of frames not yet announced to its driver, which may be
    /// asleep.
    #[cold]
    #[inline(never)]
    fn put_again<H: Head>(
        &mut self,
        header: &[u8; HEADER],
        head: H,
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let ring = &mut *self.ring;
        ring.touched = false;
        ring.owes_call |= ring.queue.publish();
        ring.queue.refresh();
        match ring.queue.push(header, head, body) {
            Ok(()) => {
                ring.touched = true;
                Ok(())
            }
            Err(error) => self.refused(error),
        }
    }

    #[cold]
    fn refused(&mut self, error: PushError) -> Result<(), DropReason> {
        match error {
            PushError::Full => Err(DropReason::EgressFull),
            PushError::TooLarge => Err(DropReason::EgressTooLarge),
            PushError::Broken(error) => {
                self.broken = Some(error);
                Err(DropReason::EgressNotReady)
            }
        }
    }
}

/// Returns whether ring `index` of a virtio-net device is a receive ring (virtio 1.2, section
/// 5.1.2).
fn is_receive(index: usize) -> bool {
    index & 1 == 0
}

/// Adds a call to the driver if it wants one and can be called; returns the calls added.
fn notify(wanted: bool, call: &Option<OwnedFd>, calls: &mut Calls) -> u64 {
    match call {
        Some(event) if wanted => {
            calls.add(event.as_fd());
            1
        }
        _ => 0,
    }
}

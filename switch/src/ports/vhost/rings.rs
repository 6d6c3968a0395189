//! One started ring of a device, and delivery to it. `W` is what becomes of its writes.

use std::os::fd::{AsFd, OwnedFd};

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::{
    Head, PushError, RingError, RingSetup, RxQueue, Segment, TxQueue, Unlogged, Writes,
};

use crate::drop_reason::DropReason;
use crate::engine::PortFault;
use crate::ports::calls::Calls;
use crate::ports::hold_off::HoldOff;
use crate::ports::ring_shares::RingShares;
use crate::ports::{Sink, Watched};
use crate::time::Time;

/// A ring that the switch writes.
pub(super) struct Receive<W = Unlogged> {
    pub(super) queue: RxQueue<W>,
    pub(super) call: Option<OwnedFd>,
    /// Whether it holds frames that are not visible yet.
    pub(super) touched: bool,
    /// Whether it made frames visible of which its driver is still to be notified.
    pub(super) owes_call: bool,
    /// Who filled its buffers, if its senders share it.
    pub(super) shares: Option<Box<RingShares>>,
}

impl<W: Writes> Receive<W> {
    pub(super) fn new(setup: RingSetup, call: Option<OwnedFd>) -> Result<Receive<W>, RingError> {
        let queue = RxQueue::of(setup)?;
        Ok(Receive { queue, call, touched: false, owes_call: false, shares: None })
    }

    #[inline(always)]
    pub(super) fn is_unpublished(&self) -> bool {
        self.touched || self.owes_call
    }

    /// Publishes the frames; returns the calls added, and whether the memory is lost.
    #[inline(always)]
    pub(super) fn publish(&mut self, calls: &mut Calls) -> (u64, bool) {
        self.touched = false;
        let owed = std::mem::take(&mut self.owes_call);
        let added = notify(self.queue.publish() | owed, &self.call, calls);
        (added, self.queue.memory_lost())
    }
}

/// A ring that the switch reads.
pub(super) struct Transmit<W = Unlogged> {
    pub(super) queue: TxQueue<W>,
    pub(super) call: Option<OwnedFd>,
    pub(super) kick: Option<Watched>,
    pub(super) hold_off: HoldOff,
}

impl<W: Writes> Transmit<W> {
    pub(super) fn new(
        setup: RingSetup,
        call: Option<OwnedFd>,
        kick: Option<Watched>,
    ) -> Result<Transmit<W>, RingError> {
        let hold_off = HoldOff::new(setup.size);
        Ok(Transmit { queue: TxQueue::of(setup)?, call, kick, hold_off })
    }

    /// Looks at the ring, that of `pair`, at the start of a visit.
    #[inline(always)]
    pub(super) fn poll(
        &mut self,
        pair: usize,
        now: Time,
        may_hold: bool,
    ) -> Result<RingPoll, PortFault> {
        if self.queue.memory_lost() {
            return Err(PortFault::MemoryLost);
        }
        match self.queue.pending() {
            Ok(0) => Ok(RingPoll::Empty),
            Ok(waiting) if may_hold && self.hold_off.holds(waiting, now) => Ok(RingPoll::Hold),
            Ok(_) => Ok(RingPoll::Serve),
            Err(error) => Err(PortFault::Ring { index: 2 * pair + 1, error }),
        }
    }

    /// Ends a visit that took `taken` chains; returns the calls added (0 or 1).
    #[inline(always)]
    pub(super) fn finish(&mut self, taken: usize, now: Time, calls: &mut Calls) -> u64 {
        self.hold_off.served(taken, now);
        notify(self.queue.publish(), &self.call, calls)
    }

    /// Requests a kick. Returns `false` if the ring is not empty or has no kick descriptor.
    pub(super) fn arm(&mut self) -> bool {
        self.kick.is_some() && !self.queue.arm()
    }
}

/// Result of looking at a transmit ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingPoll {
    Empty,
    /// Chains wait, and it pays to wait for more.
    Hold,
    Serve,
}

/// The only receive ring that a device has started.
pub(crate) struct OnlyRing<'a, W = Unlogged> {
    pub(super) ring: &'a mut Receive<W>,
    /// The rule that it broke, if any.
    pub broken: Option<RingError>,
}

impl<W: Writes> Sink for OnlyRing<'_, W> {
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

impl<W: Writes> OnlyRing<'_, W> {
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

/// Adds a call to the driver if it wants one and can be called; returns the calls added.
pub(super) fn notify(wanted: bool, call: &Option<OwnedFd>, calls: &mut Calls) -> u64 {
    match call {
        Some(event) if wanted => {
            calls.add(event.as_fd());
            1
        }
        _ => 0,
    }
}

//! Rings whose writes are logged, while their guest migrates.
//!
//! They live apart from the others, whose places stay empty meanwhile. The way of a frame looks
//! into the place of a ring anyway and finds nothing there for a ring that is not started; only
//! then does it come here. So no frame of another ring executes an instruction more.

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::{Logged, Segment, TxBurst};

use super::VhostDevice;
use super::pairs::RingPairs;
use super::rings::{OnlyRing, RingPoll, Transmit};
use crate::drop_reason::DropReason;
use crate::engine::PortFault;
use crate::ports::Sink;
use crate::ports::calls::Calls;
use crate::time::Time;

impl VhostDevice {
    fn logged_transmit(&mut self, pair: usize) -> Option<&mut Transmit<Logged>> {
        self.logged.as_mut()?.transmit[pair].as_mut()
    }

    #[cold]
    #[inline(never)]
    pub(super) fn poll_logged(&mut self, pair: usize, now: Time, may_hold: bool) -> RingPoll {
        let Some(ring) = self.logged_transmit(pair) else { return RingPoll::Empty };
        ring.poll(pair, now, may_hold).unwrap_or_else(|fault| {
            self.fault = Some(fault);
            RingPoll::Empty
        })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn fetch_logged(&mut self, pair: usize, burst: &mut TxBurst, max: usize) -> usize {
        let Some(ring) = self.logged_transmit(pair) else { return 0 };
        ring.queue.fetch(burst, max).unwrap_or_else(|error| {
            self.fault = Some(PortFault::Ring { index: 2 * pair + 1, error });
            0
        })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn complete_logged(&mut self, pair: usize, burst: &TxBurst) {
        if let Some(ring) = self.logged_transmit(pair) {
            ring.queue.complete(burst);
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn finish_logged(
        &mut self,
        pair: usize,
        taken: usize,
        now: Time,
        calls: &mut Calls,
    ) -> u64 {
        self.logged_transmit(pair).map_or(0, |ring| ring.finish(taken, now, calls))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn put_logged(
        &mut self,
        pair: u16,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        let rings = self.logged.as_mut().map(|logged| &mut logged.receive);
        let Some(ring) = rings.and_then(|rings| rings[usize::from(pair)].as_mut()) else {
            return Err(DropReason::EgressNotReady);
        };
        let mut ring = OnlyRing { ring, broken: None };
        let result = ring.put_head(header, head, body);
        if let Some(error) = ring.broken {
            self.broke(pair, error);
        }
        result
    }
}

/// Publishes a receive ring that was written; returns the calls added, and whether its memory is
/// lost.
#[cold]
#[inline(never)]
pub(super) fn flush(
    logged: &mut Option<Box<RingPairs<Logged>>>,
    pair: u16,
    calls: &mut Calls,
) -> (u64, bool) {
    let ring = logged.as_mut().and_then(|logged| logged.receive[usize::from(pair)].as_mut());
    match ring {
        Some(ring) if ring.is_unpublished() => ring.publish(calls),
        _ => (0, false),
    }
}

/// Makes buffers ready for frames.
#[cold]
#[inline(never)]
pub(super) fn expect(logged: &mut Option<Box<RingPairs<Logged>>>, pair: u16, frames: usize) {
    if let Some(ring) =
        logged.as_mut().and_then(|logged| logged.receive[usize::from(pair)].as_mut())
    {
        ring.queue.expect(frames);
    }
}

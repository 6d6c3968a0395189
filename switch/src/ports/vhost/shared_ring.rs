//! A receive ring that its senders share ([`RingShares`]): that of a gateway.

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::{Head, Segment};

use super::{OnlyRing, Receive, VhostDevice};
use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::mac_table::PortIndex;
use crate::ports::Sink;
use crate::ports::ring_shares::RingShares;

impl VhostDevice {
    /// Shares the started receive rings among their senders from now on.
    pub(crate) fn share_rings(&mut self) {
        for ring in self.rings.receive.iter_mut().flatten() {
            let size = ring.queue.size();
            ring.shares.get_or_insert_with(|| Box::new(RingShares::new(size)));
        }
    }

    /// Returns the receive ring for a burst from `ingress`, if only one is started and its senders
    /// share it. `counters` are those of that port.
    pub(crate) fn shared_ring<'a>(
        &'a mut self,
        ingress: PortIndex,
        counters: &'a PortCounters,
    ) -> Option<SharedRing<'a>> {
        let ring = self.only_ring()?;
        ring.ring.shares.is_some().then_some(SharedRing { ring, ingress, counters })
    }
}

/// A receive ring that its senders share, for a burst of one of them.
pub(crate) struct SharedRing<'a> {
    pub ring: OnlyRing<'a>,
    ingress: PortIndex,
    /// Those of the ingress port.
    counters: &'a PortCounters,
}

impl Sink for SharedRing<'_> {
    fn expect(&mut self, frames: usize) {
        self.ring.expect(frames);
    }

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
        let Receive { queue, shares, .. } = &mut *self.ring.ring;
        let is_admitted =
            shares.as_ref().is_none_or(|shares| shares.admits(self.ingress, queue.waiting()));
        if !is_admitted && !self.ring.has_room_now(self.ingress) {
            return Err(DropReason::GatewayShare);
        }
        let before = self.ring.ring.queue.next();
        let result = self.ring.put_head(header, head, body);
        let Receive { queue, shares, .. } = &mut *self.ring.ring;
        if let Some(shares) = shares {
            shares.fill(self.ingress, queue.next().wrapping_sub(before), queue.waiting());
        }
        match result {
            // A frame of several buffers may be admitted and find too few.
            Err(DropReason::EgressFull) => Err(DropReason::GatewayShare),
            result => result,
        }
    }

    /// The user sees which machine loses.
    fn counted_at<'c>(&'c self, _receiver: &'c PortCounters) -> &'c PortCounters {
        self.counters
    }
}

impl OnlyRing<'_> {
    /// Looks again whether a port may fill a buffer, after the driver was told of all frames on the
    /// ring.
    #[inline(never)]
    fn has_room_now(&mut self, ingress: PortIndex) -> bool {
        let Receive { queue, touched, owes_call, shares, .. } = &mut *self.ring;
        if std::mem::take(touched) {
            *owes_call |= queue.publish();
        }
        queue.refresh();
        let free = queue.waiting();
        let Some(shares) = shares else { return true };
        shares.pay_back(free);
        // A ring that broke has no buffers either, and the next frame put on it tells.
        free == 0 || shares.admits(ingress, free)
    }
}

//! Tunnels: what their common sockets receive is switched as bursts of their ports.

use std::sync::Arc;

use super::round::BURSTS_PER_TURN;
use super::{Engine, EngineError, PortId, PortLocation, UNATTACHED};
use crate::drop_reason::DropReason;
use crate::mac_table::PortIndex;
use crate::ports::Device;
use crate::ports::vxlan::{Inbox, Losses, Toward, Tunnels, Vtep};
use crate::time::Time;

/// A visit to the tunnels of a worker.
struct TunnelVisit<'a, C> {
    /// When it began.
    now: Time,
    /// When the last burst was done.
    since: Time,
    clock: &'a C,
}

impl Engine {
    /// Tells a receiving end its tunnels; returns those before for the caller to drop.
    ///
    /// # Errors
    /// The port does not exist or receives for no tunnels.
    pub fn set_tunnels(
        &mut self,
        vtep: PortId,
        tunnels: Arc<Tunnels>,
    ) -> Result<Arc<Tunnels>, EngineError> {
        let before = match &mut self.port_mut(vtep)?.device {
            Device::Vtep(vtep) => vtep.set_tunnels(tunnels),
            _ => return Err(EngineError::NotVtep),
        };
        // Datagrams may have waited for this.
        self.activate(self.locate(vtep)?, Time::ZERO);
        Ok(before)
    }

    /// Returns the operating system's error of the last frame that a tunnel did not send, by
    /// number; `None` if there was none.
    pub fn tunnel_error(&self, port: PortId) -> Option<i32> {
        match &self.port(port)?.device {
            Device::Vxlan(tunnel) => tunnel.send_error(),
            _ => None,
        }
    }

    /// Switches what was received for tunnels since `now`, and counts the time as that of their
    /// networks. Returns when the last of them was done.
    #[inline(never)]
    pub(super) fn serve_tunnels(&mut self, now: Time, clock: &impl Fn() -> Time) -> Time {
        let count = self.networks[UNATTACHED].as_ref().map_or(0, |network| network.ports.len());
        let mut visit = TunnelVisit { now, since: now, clock };
        for index in (0..count).map(|index| PortIndex(index as u16)) {
            let Some(vtep) = self.vtep(index) else { continue };
            let (tunnels, worker) = (vtep.tunnels(), vtep.worker());
            let Some(mut inbox) = vtep.take() else { continue };
            let mut losses = vtep.take_losses();
            self.serve_inbox(&mut inbox, &tunnels, worker, &mut losses, &mut visit);
            if let Some(vtep) = self.vtep(index) {
                vtep.release(inbox, losses);
            }
        }
        visit.since
    }

    fn vtep(&mut self, index: PortIndex) -> Option<&mut Vtep> {
        let network = self.networks[UNATTACHED].as_mut()?;
        match &mut network.ports.get_mut(usize::from(index.0))?.as_mut()?.device {
            Device::Vtep(vtep) => Some(vtep),
            _ => None,
        }
    }

    /// Passes on some bursts of an inbox. `losses` were for ports of this worker, too.
    fn serve_inbox<C: Fn() -> Time>(
        &mut self,
        inbox: &mut Inbox,
        tunnels: &Tunnels,
        worker: usize,
        losses: &mut Losses,
        visit: &mut TunnelVisit<'_, C>,
    ) {
        for _ in 0..BURSTS_PER_TURN {
            let Some(Toward { tunnel, refused }) =
                inbox.select(|vni, from| tunnels.find(vni, from))
            else {
                return;
            };
            match self.locations.get(&tunnel.port).copied() {
                Some(at) => {
                    let Losses { busy, overflow } = std::mem::take(losses);
                    self.count_at(at, DropReason::TunnelBusy, busy);
                    self.count_at(at, DropReason::TunnelOverflow, overflow);
                    match refused {
                        Some(reason) => self.count_at(at, reason, inbox.selected_len() as u64),
                        None => self.switch_tunnel(at, inbox, visit.now),
                    }
                    self.charge(at.slot, visit);
                }
                None if tunnel.worker != worker => {
                    tunnels.hand_over(inbox, tunnel.worker, std::mem::take(losses));
                }
                // The port is on its way to another worker, as will be told.
                None => return,
            }
            inbox.advance();
        }
    }

    /// Counts the time since the last burst as that of a network: also that of receiving, which
    /// so falls on those with the most bursts.
    fn charge<C: Fn() -> Time>(&self, slot: usize, visit: &mut TunnelVisit<'_, C>) {
        let done = (visit.clock)();
        let nanos = done.0.saturating_sub(visit.since.0);
        if let Some(network) = &self.networks[slot] {
            network.counters.busy_nanos.add(nanos);
            self.counters.busy_nanos.add(nanos);
        }
        visit.since = done;
    }

    fn count_at(&self, at: PortLocation, reason: DropReason, count: u64) {
        let network = self.networks[at.slot].as_ref();
        if let Some(Some(port)) = network.and_then(|it| it.ports.get(usize::from(at.index.0))) {
            port.count_drops(reason, count);
        }
    }

    /// Switches selected datagrams of an inbox as a burst of their port.
    fn switch_tunnel(&mut self, at: PortLocation, inbox: &mut Inbox, now: Time) {
        if at.slot == UNATTACHED {
            let count = inbox.selected_len() as u64;
            return self.count_at(at, DropReason::NotAttached, count);
        }
        inbox.merge();
        let Engine { networks, pipeline, counters, .. } = self;
        let Some(network) = &mut networks[at.slot] else { return };
        let Some(Some(port)) = network.ports.get(usize::from(at.index.0)) else { return };
        pipeline.note.serve(port.id);
        counters.bursts.add(1);
        pipeline.switch(network, &*inbox, at.index, now);
        pipeline.flush(&mut network.ports);
        pipeline.finish_turn(&mut network.ports, Some(at.index));
        pipeline.note.idle();
    }
}

//! One round of an engine: every active port has its turn, a bounded one.
//!
//! A turn fetches a burst (pass 1), judges and sorts it (2, `forward`), delivers it port by port
//! (3, `delivery`), puts it back to its sender in order (4), and, when the turn ends, makes it
//! all visible and calls whoever wants a call, once a ring (5). A port that is silent for the
//! spin time asks for a kick, looks once more, and leaves the list.

use trama_virtqueue::MAX_BURST;

use super::{Engine, Network, Stage};
use crate::delivery::deliver;
use crate::drop_reason::DropReason;
use crate::forward::{FrameSet, Ingress, Source, classify};
use crate::mac_table::PortIndex;
use crate::ports::vhost::{Look, VhostDevice};
use crate::ports::{Device, Port};
use crate::time::Time;

/// Most bursts of one ring in a row before the next has its turn.
const BURSTS_PER_TURN: usize = 4;

/// What a look at a port found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Silent,
    /// Something waits that is better served later.
    Held,
    Moved,
}

impl Engine {
    /// One round over the active ports; true: something moved.
    pub fn poll(&mut self, now: Time) -> bool {
        let mut moved = false;
        let mut place = 0;
        self.batching.tick(now);
        // Each step either passes a port or removes it.
        while let Some(index) = self.active.get(place).copied() {
            match self.turn(index, now) {
                Turn::Silent if self.retire(index, now) => {
                    self.active.swap_remove(place);
                    continue;
                }
                Turn::Silent | Turn::Held => {}
                Turn::Moved => moved = true,
            }
            place += 1;
        }
        moved
    }

    /// Whether any port must be looked at.
    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether any port waits for a wake-up.
    pub(crate) fn has_armed(&self) -> bool {
        // A removed port's slot counts as armed: at worst a look at epoll that finds nothing.
        self.active.len() < self.ports.len()
    }

    /// A descriptor of the port in `slot` became ready.
    pub(crate) fn ready(&mut self, slot: usize, now: Time) {
        if let Some(Some(port)) = self.ports.get(slot) {
            port.counters.kicks.add(1);
            self.activate(PortIndex(slot as u16), now);
        }
    }

    /// Puts a port on the list of those that are looked at.
    pub(super) fn activate(&mut self, index: PortIndex, now: Time) {
        let Some(port) = self.ports[usize::from(index.0)].as_mut() else { return };
        port.last_moved = port.last_moved.max(now);
        if !port.active {
            port.active = true;
            port.device.disarm();
            self.active.push(index);
        }
    }

    /// Takes a silent port off the list if it was silent for long enough and can wake us.
    fn retire(&mut self, index: PortIndex, now: Time) -> bool {
        let (Some(spin), Some(_)) = (self.spin, &self.registry) else { return false };
        let Some(port) = self.ports[usize::from(index.0)].as_mut() else { return true };
        let is_long = now.saturating_sub(port.last_moved) >= spin;
        if port.fault.is_some() || (is_long && port.device.arm()) {
            port.active = false;
        }
        !port.active
    }

    fn turn(&mut self, index: PortIndex, now: Time) -> Turn {
        let Some(port) = self.ports[usize::from(index.0)].as_mut() else { return Turn::Silent };
        if port.fault.is_some() {
            return Turn::Silent;
        }
        let turn = match &port.device {
            Device::Vhost(vhost) => {
                let pairs = vhost.pairs();
                self.turn_of_rings(index, pairs, now)
            }
            Device::Tap(_) | Device::Dummy(_) => self.turn_of_pool(index, now),
        };
        if let Some(port) = self.ports[usize::from(index.0)].as_mut() {
            port.note_fault();
            if turn == Turn::Moved {
                port.last_moved = now;
            }
        }
        turn
    }

    fn turn_of_rings(&mut self, index: PortIndex, pairs: usize, now: Time) -> Turn {
        let mut turn = Turn::Silent;
        for pair in 0..pairs {
            let Some(vhost) = vhost(&mut self.ports, index) else { return turn };
            match vhost.look(pair, now, self.batching.may_hold()) {
                Look::Empty => {}
                Look::Hold if turn == Turn::Silent => turn = Turn::Held,
                Look::Hold => {}
                Look::Serve => {
                    turn = Turn::Moved;
                    self.serve_ring(index, pair, now);
                }
            }
        }
        turn
    }

    fn serve_ring(&mut self, index: PortIndex, pair: usize, now: Time) {
        let mut total = 0;
        for _ in 0..BURSTS_PER_TURN {
            let Some(device) = vhost(&mut self.ports, index) else { return };
            let taken = device.fetch(pair, &mut self.rings, MAX_BURST);
            if taken == 0 {
                break;
            }
            self.counters.bursts.add(1);
            self.stage.switch(&mut self.ports, &mut self.networks, &self.rings, index, now);
            if let Some(device) = vhost(&mut self.ports, index) {
                device.complete(pair, &self.rings);
            }
            total += taken;
            if taken < MAX_BURST {
                break;
            }
        }
        self.batching.served(total);
        self.stage.flush(&mut self.ports);
        if let Some(Some(port)) = self.ports.get_mut(usize::from(index.0))
            && let Device::Vhost(vhost) = &mut port.device
        {
            let calls = vhost.finish(pair, total, now, &mut self.stage.calls);
            port.counters.calls.add(calls);
        }
        self.stage.calls.make();
    }

    fn turn_of_pool(&mut self, index: PortIndex, now: Time) -> Turn {
        let mut turn = Turn::Silent;
        for _ in 0..BURSTS_PER_TURN {
            self.pool.clear();
            let Some(port) = self.ports[usize::from(index.0)].as_mut() else { break };
            match &mut port.device {
                Device::Tap(tap) => tap.fetch(&mut self.pool),
                Device::Dummy(dummy) => dummy.fetch(&mut self.pool),
                Device::Vhost(_) => {}
            }
            if self.pool.len() == 0 {
                break;
            }
            turn = Turn::Moved;
            self.counters.bursts.add(1);
            self.stage.switch(&mut self.ports, &mut self.networks, &self.pool, index, now);
            if !self.pool.is_full() {
                break;
            }
        }
        self.stage.flush(&mut self.ports);
        self.stage.calls.make();
        turn
    }
}

#[inline]
fn vhost(ports: &mut [Option<Port>], index: PortIndex) -> Option<&mut VhostDevice> {
    match &mut ports[usize::from(index.0)].as_mut()?.device {
        Device::Vhost(vhost) => Some(vhost),
        Device::Tap(_) | Device::Dummy(_) => None,
    }
}

impl Stage {
    /// Passes 2 and 3 over a burst from port `ingress`.
    fn switch<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        networks: &mut [Option<Network>],
        source: &S,
        ingress: PortIndex,
        now: Time,
    ) {
        let Some(port) = &ports[usize::from(ingress.0)] else { return };
        if !port.settings.cable {
            port.count_drops(DropReason::CableOut, source.len() as u64);
            return;
        }
        let network = port.network.and_then(|slot| networks[slot].as_mut());
        let Some(network) = network else {
            port.count_drops(DropReason::NotAttached, source.len() as u64);
            return;
        };
        let at = Ingress {
            port: ingress,
            vlan: &port.settings.vlan,
            mtu: network.settings.mtu,
            counters: &port.counters,
        };
        classify(source, &at, &mut network.table, &mut self.plan, now);
        let lost = self.deliver(ports, network, source, ingress);
        if let Some(port) = &ports[usize::from(ingress.0)] {
            self.plan.count(source, lost, &port.counters);
        }
    }

    /// Pass 3: each port gets what is for it, in order of arrival. Returns the frames of the
    /// flood whose VLAN no other port carries.
    fn deliver<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        network: &Network,
        source: &S,
        ingress: PortIndex,
    ) -> FrameSet {
        if self.plan.flood == 0 {
            for place in 0..self.plan.unicast().len() {
                let (port, frames) = self.plan.unicast()[place];
                self.deliver_to(ports, source, port, frames);
            }
            return 0;
        }
        let mut reached = 0;
        for member in network.members.iter().filter(|member| **member != ingress) {
            let frames = self.plan.flood | self.plan.unicast_of(*member);
            reached |= self.deliver_to(ports, source, *member, frames);
        }
        self.plan.flood & !reached
    }

    #[inline]
    fn deliver_to<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        source: &S,
        index: PortIndex,
        frames: FrameSet,
    ) -> FrameSet {
        let Some(Some(port)) = ports.get_mut(usize::from(index.0)) else { return 0 };
        let was_touched = port.touched;
        let carried = deliver(source, &self.plan, frames, port, &mut self.scratch);
        if port.touched && !was_touched {
            self.touched.push(index);
        }
        carried
    }

    /// Pass 5 at the receivers. The calls are added, not made yet.
    fn flush(&mut self, ports: &mut [Option<Port>]) {
        for index in self.touched.drain(..) {
            if let Some(port) = &mut ports[usize::from(index.0)] {
                port.touched = false;
                let calls = port.device.flush(&mut self.calls);
                if calls != 0 {
                    port.counters.calls.add(calls);
                }
                port.note_fault();
            }
        }
    }
}

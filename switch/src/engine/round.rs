//! One round of an engine: visits every network with active ports, and gives each of these ports a
//! bounded turn.
//!
//! A turn fetches a burst (pass 1), judges and sorts it (2, `forward`), delivers it port by port
//! (3, `delivery`), returns it to its sender in order (4), and at its end makes everything visible
//! and calls the drivers that want it, once per ring (5). A port that is silent for the spin time
//! asks for a kick, is polled once more, and leaves the list.

use std::os::fd::AsFd;
use std::time::Duration;

use trama_virtqueue::TxBurst;

use super::network::Onlookers;
use super::{
    Engine, HdrLen, Network, NetworkSettings, Pipeline, PortId, PortLocation, Station, UNATTACHED,
};
use crate::counters::WorkerCounters;
use crate::delivery::{carried_frames, deliver, deliver_marked, deliver_watched, refusal};
use crate::drop_reason::DropReason;
use crate::faults::{self, Place};
use crate::filter::EgressFilter;
use crate::forward::{FrameSet, Ingress, Source, all_frames, classify};
use crate::mac_table::PortIndex;
use crate::news;
use crate::ports::packet::{SlotBurst, Uplink};
use crate::ports::pool::PoolBurst;
use crate::ports::stream::Stream;
use crate::ports::vhost::{RingPoll, VhostDevice};
use crate::ports::{Device, Port, signal};
use crate::time::Time;

/// Most bursts of one ring in a row before the next ring's turn.
pub(super) const BURSTS_PER_TURN: usize = 4;

/// Result of polling a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PollResult {
    Idle,
    /// Chains wait and are better served later.
    Held,
    Moved,
}

impl Engine {
    /// Runs one round over the active ports; returns `true` if frames moved.
    pub fn poll(&mut self, now: Time) -> bool {
        self.round(now, || now).0
    }

    /// Does the same and counts each network's time; also returns when the last network was done.
    pub(crate) fn round(&mut self, mut now: Time, clock: impl Fn() -> Time) -> (bool, Time) {
        let mut moved = false;
        let mut position = 0;
        // Each iteration passes a network or removes it.
        while let Some(slot) = self.awake.get(position).copied() {
            let has_moved = self.poll_network(slot, now);
            if has_moved && slot == UNATTACHED {
                now = self.serve_tunnels(now, &clock);
            }
            let done = clock();
            let Some(network) = &mut self.networks[slot] else { return (moved, now) };
            if has_moved {
                moved = true;
                let nanos = done.0.saturating_sub(now.0);
                network.counters.busy_nanos.add(nanos);
                self.counters.busy_nanos.add(nanos);
            }
            now = done;
            if network.active.is_empty() {
                network.awake = false;
                self.awake.swap_remove(position);
            } else {
                position += 1;
            }
        }
        (moved, now)
    }

    /// Gives each active port of a network a turn; returns `true` if frames moved.
    fn poll_network(&mut self, slot: usize, now: Time) -> bool {
        let Some(network) = self.networks[slot].as_mut() else { return false };
        let spin = self.spin.filter(|_| self.doorbell.can_wake());
        let Engine { counters, rings, pool, slots, pipeline, burst, .. } = self;
        Visit { network, counters, rings, pool, slots, pipeline, burst: *burst, spin }.run(now)
    }

    /// Returns whether any port must be polled.
    pub(crate) fn has_active(&self) -> bool {
        !self.awake.is_empty()
    }

    /// Returns whether any port waits for a wake-up.
    pub(crate) fn has_armed(&self) -> bool {
        let active = |slot: &usize| self.networks[*slot].as_ref().map_or(0, |n| n.active.len());
        self.awake.iter().map(active).sum::<usize>() < self.locations.len()
    }

    /// Handles the readiness of one of a port's descriptors.
    pub(crate) fn ready(&mut self, id: PortId, now: Time) {
        if let Ok(location) = self.locate(id)
            && let Some(port) = self.port(id)
        {
            port.counters.kicks.add(1);
            self.activate(location, now);
        }
    }

    /// Puts a port on the list of active ports.
    pub(super) fn activate(&mut self, location: PortLocation, now: Time) {
        let Some(network) = self.networks[location.slot].as_mut() else { return };
        let Some(Some(port)) = network.ports.get_mut(usize::from(location.index.0)) else { return };
        port.last_moved = port.last_moved.max(now);
        if !port.active {
            port.active = true;
            if !self.is_held {
                port.device.disarm();
            }
            network.active.push(location.index);
        }
        if !network.awake && !self.is_held {
            network.awake = true;
            self.awake.push(location.slot);
        }
    }
}

/// An engine's visit to one of its networks.
struct Visit<'a> {
    network: &'a mut Network,
    counters: &'a WorkerCounters,
    rings: &'a mut TxBurst,
    pool: &'a mut PoolBurst,
    slots: &'a mut SlotBurst,
    pipeline: &'a mut Pipeline,
    /// Most frames of one burst from a ring.
    burst: usize,
    /// How long a silent port stays active; `None` if always.
    spin: Option<Duration>,
}

impl Visit<'_> {
    fn run(&mut self, now: Time) -> bool {
        let mut moved = false;
        let mut position = 0;
        self.network.batching.tick(now);
        self.pipeline.plan.now = now;
        // Each iteration passes a port or removes it.
        while let Some(index) = self.network.active.get(position).copied() {
            match self.poll_port(index, now) {
                PollResult::Idle if self.retire(index, now) => {
                    self.network.active.swap_remove(position);
                    continue;
                }
                PollResult::Idle | PollResult::Held => {}
                PollResult::Moved => moved = true,
            }
            position += 1;
        }
        self.pipeline.note.idle();
        moved
    }

    fn port(&mut self, index: PortIndex) -> Option<&mut Port> {
        self.network.ports[usize::from(index.0)].as_mut()
    }

    /// Takes a port off the list if it was silent for long enough and can wake the worker.
    fn retire(&mut self, index: PortIndex, now: Time) -> bool {
        let Some(spin) = self.spin else { return false };
        let Some(port) = self.port(index) else { return true };
        let is_long = now.saturating_sub(port.last_moved) >= spin;
        if port.fault.is_some() || (is_long && port.device.arm()) {
            port.active = false;
        }
        !port.active
    }

    fn poll_port(&mut self, index: PortIndex, now: Time) -> PollResult {
        let Some(port) = self.network.ports[usize::from(index.0)].as_ref() else {
            return PollResult::Idle;
        };
        if port.fault.is_some() {
            return PollResult::Idle;
        }
        self.pipeline.note.serve(port.id);
        let result = match &port.device {
            Device::Vhost(vhost) => {
                let pairs = vhost.pairs();
                self.poll_rings(index, pairs, now)
            }
            Device::Uplink(_) => self.poll_slots(index, now),
            Device::Stream(_) => self.poll_stream(index, now),
            Device::Tap(_) | Device::Dgram(_) | Device::Dummy(_) => self.poll_pool(index, now),
            Device::Vtep(_) => self.poll_vtep(index),
            Device::Vxlan(_) => PollResult::Idle,
        };
        if let Some(port) = self.port(index) {
            port.record_fault();
            if result == PollResult::Moved {
                port.last_moved = now;
            }
        }
        result
    }

    fn poll_rings(&mut self, index: PortIndex, pairs: usize, now: Time) -> PollResult {
        let mut result = PollResult::Idle;
        for pair in 0..pairs {
            let may_hold = self.network.batching.may_hold();
            let Some(vhost) = vhost(&mut self.network.ports, index) else { return result };
            match vhost.poll_ring(pair, now, may_hold) {
                RingPoll::Empty => {}
                RingPoll::Hold if result == PollResult::Idle => result = PollResult::Held,
                RingPoll::Hold => {}
                RingPoll::Serve => {
                    result = PollResult::Moved;
                    self.serve_ring(index, pair, now);
                }
            }
        }
        result
    }

    fn serve_ring(&mut self, index: PortIndex, pair: usize, now: Time) {
        let mut total = 0;
        self.pipeline.pair = pair as u16;
        for _ in 0..BURSTS_PER_TURN {
            let Some(device) = vhost(&mut self.network.ports, index) else { return };
            let taken = device.fetch(pair, self.rings, self.burst);
            if taken == 0 {
                break;
            }
            self.counters.bursts.add(1);
            self.pipeline.switch(self.network, self.rings, index, now);
            if let Some(device) = vhost(&mut self.network.ports, index) {
                device.complete(pair, self.rings);
            }
            total += taken;
            if taken < self.burst {
                break;
            }
        }
        self.network.batching.served(total);
        self.pipeline.flush(&mut self.network.ports);
        if let Some(Some(port)) = self.network.ports.get_mut(usize::from(index.0))
            && let Device::Vhost(vhost) = &mut port.device
        {
            let calls = vhost.finish(pair, total, now, &mut self.pipeline.calls);
            port.counters.calls.add(calls);
        }
        self.pipeline.finish_turn(&mut self.network.ports, Some(index));
    }

    /// Out of line, so that its devices cost the turns of the others nothing.
    #[inline(never)]
    fn poll_pool(&mut self, index: PortIndex, now: Time) -> PollResult {
        let mut result = PollResult::Idle;
        for _ in 0..BURSTS_PER_TURN {
            self.pool.clear();
            let Some(port) = self.network.ports[usize::from(index.0)].as_mut() else { break };
            match &mut port.device {
                Device::Tap(tap) => tap.fetch(self.pool),
                Device::Dgram(dgram) => {
                    dgram.fetch(self.pool);
                    dgram.count_refused(&port.counters);
                }
                Device::Dummy(dummy) => dummy.fetch(self.pool),
                _ => {}
            }
            if self.pool.len() == 0 {
                break;
            }
            result = PollResult::Moved;
            self.counters.bursts.add(1);
            self.pipeline.switch(self.network, self.pool, index, now);
            if !self.pool.is_full() {
                break;
            }
        }
        self.pipeline.flush(&mut self.network.ports);
        self.pipeline.finish_turn(&mut self.network.ports, Some(index));
        result
    }

    /// Receives datagrams of tunnels. Their ports are in other networks: see
    /// [`Engine::serve_tunnels`].
    #[inline(never)]
    fn poll_vtep(&mut self, index: PortIndex) -> PollResult {
        let Some(Port { device: Device::Vtep(vtep), .. }) = self.port(index) else {
            return PollResult::Idle;
        };
        if vtep.fetch() { PollResult::Moved } else { PollResult::Idle }
    }

    /// Out of line, so that it costs the other ports' turns nothing.
    #[inline(never)]
    fn poll_stream(&mut self, index: PortIndex, now: Time) -> PollResult {
        let mut result = PollResult::Idle;
        if let Some(device) = stream(&mut self.network.ports, index) {
            device.resume();
        }
        for _ in 0..BURSTS_PER_TURN {
            let Some(device) = stream(&mut self.network.ports, index) else { break };
            let Some(burst) = device.fetch() else { break };
            result = PollResult::Moved;
            // What came may be no more than a part of a frame.
            if burst.len() > 0 {
                self.counters.bursts.add(1);
                self.pipeline.switch(self.network, &*burst, index, now);
            }
            if let Some(device) = stream(&mut self.network.ports, index) {
                device.release(burst);
            }
        }
        if let Some(Some(port)) = self.network.ports.get_mut(usize::from(index.0))
            && let Device::Stream(device) = &mut port.device
            && device.take_cut()
        {
            port.count_drops(DropReason::Truncated, 1);
        }
        self.pipeline.flush(&mut self.network.ports);
        self.pipeline.finish_turn(&mut self.network.ports, Some(index));
        result
    }

    fn poll_slots(&mut self, index: PortIndex, now: Time) -> PollResult {
        let mut result = PollResult::Idle;
        for _ in 0..BURSTS_PER_TURN {
            let Some(device) = uplink(&mut self.network.ports, index) else { break };
            device.fetch(self.slots);
            if self.slots.is_empty() {
                break;
            }
            result = PollResult::Moved;
            self.counters.bursts.add(1);
            self.pipeline.switch(self.network, self.slots, index, now);
            let was_full = self.slots.is_full();
            if let Some(device) = uplink(&mut self.network.ports, index) {
                device.release(self.slots);
            }
            if !was_full {
                break;
            }
        }
        self.pipeline.flush(&mut self.network.ports);
        self.pipeline.finish_turn(&mut self.network.ports, Some(index));
        result
    }
}

#[inline]
fn vhost(ports: &mut [Option<Port>], index: PortIndex) -> Option<&mut VhostDevice> {
    match &mut ports[usize::from(index.0)].as_mut()?.device {
        Device::Vhost(vhost) => Some(vhost),
        _ => None,
    }
}

#[inline]
fn uplink(ports: &mut [Option<Port>], index: PortIndex) -> Option<&mut Uplink> {
    match &mut ports[usize::from(index.0)].as_mut()?.device {
        Device::Uplink(uplink) => Some(uplink),
        _ => None,
    }
}

#[inline]
fn stream(ports: &mut [Option<Port>], index: PortIndex) -> Option<&mut Stream> {
    match &mut ports[usize::from(index.0)].as_mut()?.device {
        Device::Stream(stream) => Some(stream),
        _ => None,
    }
}

/// Returns what a burst from a port is judged by.
#[inline(always)]
pub(super) fn entry<'a>(
    port: &'a mut Port,
    index: PortIndex,
    settings: &NetworkSettings,
) -> Ingress<'a> {
    let filter = &port.settings.filter;
    Ingress {
        port: index,
        vlan: &port.settings.vlan,
        mtu: settings.mtu,
        only_source: filter.only_source(),
        sources: (filter.station != Station::Many).then_some(&mut port.sources),
        counters: &port.counters,
    }
}

impl Pipeline {
    /// Runs passes 2 and 3 over a burst from port `ingress`.
    pub(super) fn switch<S: Source>(
        &mut self,
        network: &mut Network,
        source: &S,
        ingress: PortIndex,
        now: Time,
    ) {
        let Network { id, settings, table, ports, .. } = network;
        let Some(port) = &mut ports[usize::from(ingress.0)] else { return };
        faults::strike(Place::Transmit, port.id);
        if port.is_ingress_special {
            self.switch_special(network, source, ingress, now);
            return;
        }
        if id.is_none() {
            let all = all_frames(source);
            self.plan.count_dropped(all, DropReason::NotAttached, &port.counters);
            self.plan.settle_drops(source, &port.counters);
            return;
        }
        self.plan.ingress = ingress;
        classify(source, &mut entry(port, ingress, settings), table, &mut self.plan, now);
        let (reached, withheld) = self.deliver(network, source, ingress, now);
        self.note.delivered();
        if let Some(port) = &network.ports[usize::from(ingress.0)] {
            self.plan.count(source, reached, withheld, &port.counters);
            if self.plan.reasons.dropped() != 0 {
                self.plan.settle_drops(source, &port.counters);
            }
        }
    }

    /// Pass 3: delivers each port's frames in order of arrival. Returns the frames of the flood
    /// that were delivered, and those whose VLAN some port carries but may not receive.
    fn deliver<S: Source>(
        &mut self,
        network: &mut Network,
        source: &S,
        ingress: PortIndex,
        now: Time,
    ) -> (FrameSet, FrameSet) {
        if self.plan.flood == 0 && !network.has_promiscuous {
            self.deliver_unicast(network, source);
            return (0, 0);
        }
        self.guard_flood(network, source, ingress, now);
        self.deliver_flood::<S, false>(network, source, ingress)
    }

    /// Delivers a burst without frames for several ports.
    #[inline(always)]
    pub(super) fn deliver_unicast<S: Source>(&mut self, network: &mut Network, source: &S) {
        let Network { ports, onlookers, .. } = network;
        for entry in 0..self.plan.unicast().len() {
            let (port, frames) = self.plan.unicast()[entry];
            self.deliver_to(ports, onlookers, source, port, frames);
        }
    }

    /// Delivers a burst some of whose frames may go to several ports; from a tunnel, to those that
    /// are none. Returns what [`Pipeline::deliver`] returns.
    #[inline(always)]
    pub(super) fn deliver_flood<S: Source, const IS_FROM_TUNNEL: bool>(
        &mut self,
        network: &mut Network,
        source: &S,
        ingress: PortIndex,
    ) -> (FrameSet, FrameSet) {
        let Network { ports, onlookers, .. } = network;
        let filter = EgressFilter::new(&self.plan, ports, ingress);
        let (mut reached, mut withheld) = (0, 0);
        let everyone = (0..ports.len()).map(|index| PortIndex(index as u16));
        for index in everyone.filter(|index| *index != ingress) {
            let Some(port) = &ports[usize::from(index.0)] else { continue };
            if IS_FROM_TUNNEL && port.is_tunnel() {
                continue;
            }
            let due = filter.frames_for(source, port) | self.plan.unicast_of(index);
            let withheld_here = self.plan.flood & !due;
            if withheld_here != 0 {
                withheld |= carried_frames(&self.plan, withheld_here, port);
            }
            reached |= self.deliver_to(ports, onlookers, source, index, due);
        }
        (reached, withheld)
    }

    /// Tells control that there is something to ask for.
    #[cold]
    pub(super) fn raise_alarm(&self) {
        if let Some(alarm) = &self.alarm {
            signal(alarm.as_fd());
        }
    }

    #[inline]
    pub(super) fn deliver_to<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        onlookers: &mut Onlookers,
        source: &S,
        index: PortIndex,
        frames: FrameSet,
    ) -> FrameSet {
        let Some(Some(port)) = ports.get_mut(usize::from(index.0)) else { return 0 };
        self.note.deliver(port.id);
        if port.is_egress_special {
            return self.deliver_special(ports, onlookers, source, index, frames);
        }
        let was_touched = port.touched;
        let carried = deliver(source, &self.plan, frames, port, &mut self.scratch);
        if port.touched && !was_touched {
            self.touched.push(index);
        }
        carried
    }

    /// Delivers to a port that is told where frames come from, is watched, or mirrored. Out of
    /// line, so that it costs other ports nothing.
    #[inline(never)]
    fn deliver_special<S: Source>(
        &mut self,
        ports: &mut [Option<Port>],
        onlookers: &mut Onlookers,
        source: &S,
        index: PortIndex,
        frames: FrameSet,
    ) -> FrameSet {
        let ingress = self.plan.ingress;
        let places = [usize::from(index.0), usize::from(ingress.0)];
        let Ok([Some(port), from]) = ports.get_disjoint_mut(places) else { return 0 };
        let is_marked = port.settings.hdr_len == HdrLen::IngressMark;
        let from = from.as_ref().filter(|_| is_marked).map(|port| (ingress, port));
        let was_touched = port.touched;
        let copied_by = if refusal(port).is_none() { port.mirrored.sent } else { 0 };
        let is_watched =
            port.seers.sent != 0 || from.is_some_and(|(_, port)| port.seers.received != 0);
        let carried = match from {
            _ if is_watched => {
                let view = (index, self.burst(), &mut onlookers.watches);
                deliver_watched(source, &self.plan, frames, port, from, view, &mut self.scratch)
            }
            Some(from) => deliver_marked(source, &self.plan, frames, port, from, &mut self.scratch),
            None if !is_marked => deliver(source, &self.plan, frames, port, &mut self.scratch),
            // Nobody sent it that could be named.
            None => 0,
        };
        if port.touched && !was_touched {
            self.touched.push(index);
        }
        if copied_by != 0 {
            self.mirror(ports, onlookers, source, carried, copied_by);
        }
        carried
    }

    /// Pass 5 at the receivers. Calls are recorded, not made yet.
    pub(super) fn flush(&mut self, ports: &mut [Option<Port>]) {
        for index in &self.touched {
            if let Some(port) = &mut ports[usize::from(index.0)] {
                self.note.deliver(port.id);
                let calls = port.device.flush(&mut self.calls);
                if calls != 0 {
                    port.counters.calls.add(calls);
                }
            }
        }
        self.note.delivered();
    }

    /// Tells control of frames that were dropped in this turn.
    #[cold]
    fn tell_drops(&self, ports: &[Option<Port>]) {
        self.plan.news.tell(|counters| {
            let mut ports = ports.iter().flatten();
            ports.find(|port| news::address(&port.counters) == counters).map(|port| port.id)
        });
    }

    /// Ends a turn of port `ingress`, or of the switch itself: makes the calls, then drops the
    /// rings of receivers that broke, with their call descriptors.
    pub(super) fn finish_turn(&mut self, ports: &mut [Option<Port>], ingress: Option<PortIndex>) {
        self.calls.make();
        if self.plan.news.has_pending() {
            self.tell_drops(ports);
        }
        let mut holes = 0;
        for index in self.touched.drain(..) {
            if let Some(port) = &mut ports[usize::from(index.0)] {
                port.touched = false;
                port.record_fault();
                holes += port.device.take_holes();
            }
        }
        if holes != 0
            && let Some(ingress) = ingress
            && let Some(port) = &ports[usize::from(ingress.0)]
        {
            port.count_drops(DropReason::MemoryHole, holes);
        }
    }
}

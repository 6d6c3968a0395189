//! Watches: control adds and removes them, and bursts of watched ports take their way here.

use trama_virtqueue::MAX_BURST;

use super::round::entry;
use super::{Engine, EngineError, Network, NetworkId, Pipeline, PortId, PortLocation};
use crate::delivery::carried_frames;
use crate::filter::EgressFilter;
use crate::forward::{FrameSet, Plan, Source, all_frames, classify};
use crate::mac_table::PortIndex;
use crate::ports::{Device, Port};
use crate::time::Time;
use crate::watch::{
    Burst, Egress, MAX_WATCHES, Sight, Sighting, Watch, WatchCount, WatchId, Way, Writer,
};

/// Bits of a frame's ID for its place in the worker's bursts; the engine's number is above them.
const BURST_BITS: u32 = 48;

impl Engine {
    /// Adds a watch of a network's ports.
    ///
    /// # Errors
    /// The network does not exist, or has as many watches as it can.
    pub fn watch(&mut self, network: NetworkId, watch: Watch) -> Result<WatchId, EngineError> {
        let id = self.ids.next_watch();
        let Network { onlookers, ports, .. } = self.network_mut(network)?;
        match onlookers.watches.add(id, watch, ports) {
            true => Ok(id),
            false => Err(EngineError::TooManyWatches(MAX_WATCHES)),
        }
    }

    /// Lets a watch also see a port that has come to its network since.
    ///
    /// # Errors
    /// There is no such watch on the port's network, or no such port.
    pub fn extend_watch(&mut self, id: WatchId, port: PortId) -> Result<(), EngineError> {
        let PortLocation { slot, index } = self.locate(port)?;
        let Some(Network { onlookers, ports, .. }) = &mut self.networks[slot] else {
            return Err(EngineError::NoSuchPort(port));
        };
        let Some(Some(found)) = ports.get_mut(usize::from(index.0)) else {
            return Err(EngineError::NoSuchPort(port));
        };
        if onlookers.watches.extend(id, index, found) {
            Ok(())
        } else {
            Err(EngineError::NoSuchWatch)
        }
    }

    /// Ends a watch. Returns its end of the queue, for the caller to drop, and what it did at each
    /// of its ports; `None` if there is no such watch.
    pub fn unwatch(
        &mut self,
        network: NetworkId,
        id: WatchId,
    ) -> Option<(Writer, Vec<WatchCount>)> {
        let Network { onlookers, ports, .. } = self.network_mut(network).ok()?;
        onlookers.watches.remove(id, ports)
    }
}

impl Pipeline {
    /// Returns what the watches need to know of the burst that is switched.
    pub(super) fn burst(&self) -> Burst {
        let frames = self.counters.bursts.get() * MAX_BURST as u64;
        let first_id = self.engine << BURST_BITS | frames & ((1 << BURST_BITS) - 1);
        Burst { first_id, time: self.plan.now, queue: None, egress: Egress::Unknown }
    }

    /// Runs passes 2 and 3 over a burst from a port that is closed, a tunnel, watched or mirrored.
    /// Out of line, so that it costs other ports nothing.
    #[inline(never)]
    pub(super) fn switch_special<S: Source>(
        &mut self,
        network: &mut Network,
        source: &S,
        ingress: PortIndex,
        now: Time,
    ) {
        let Some(Some(port)) = network.ports.get(usize::from(ingress.0)) else { return };
        let is_open = port.is_open;
        if !is_open {
            self.refuse(network, source, ingress, now);
            self.show_received(network, source, ingress);
            return;
        }
        let Network { settings, table, ports, .. } = network;
        let Some(Some(port)) = ports.get_mut(usize::from(ingress.0)) else { return };
        self.plan.ingress = ingress;
        let is_from_tunnel = port.is_tunnel();
        classify(source, &mut entry(port, ingress, settings), table, &mut self.plan, now);
        if is_from_tunnel && let Some(Some(port)) = ports.get(usize::from(ingress.0)) {
            self.plan.keep_from_tunnels(source, |to| is_tunnel(ports, to), &port.counters);
        }
        let is_simple = self.plan.flood == 0 && !network.has_promiscuous;
        let (mut reached, mut withheld) = (0, 0);
        if !is_simple {
            self.guard_flood(network, source, ingress, now);
            (reached, withheld) =
                reach(&self.plan, &network.ports, source, ingress, is_from_tunnel);
        }
        // Before they are delivered, so that what enters is seen before what leaves.
        if let Some(port) = &network.ports[usize::from(ingress.0)] {
            self.plan.count(source, reached, withheld, &port.counters);
        }
        self.show_received(network, source, ingress);
        self.mirror_received(network, source, ingress);
        if is_simple {
            self.deliver_unicast(network, source);
        } else if is_from_tunnel {
            self.deliver_flood::<S, true>(network, source, ingress);
        } else {
            self.deliver_flood::<S, false>(network, source, ingress);
        }
        self.note.delivered();
    }

    /// Copies the frames of a burst for the mirrors of its ingress port.
    fn mirror_received<S: Source>(
        &mut self,
        network: &mut Network,
        source: &S,
        ingress: PortIndex,
    ) {
        let Network { ports, onlookers, .. } = network;
        let Some(Some(port)) = ports.get(usize::from(ingress.0)) else { return };
        let by = port.mirrored.received;
        if by != 0 {
            let frames = self.plan.runs().fold(0, |all, (frames, _)| all | frames);
            self.mirror(ports, onlookers, source, frames, by);
        }
    }

    /// Shows the frames of a burst to the watches of its ingress port.
    fn show_received<S: Source>(&mut self, network: &mut Network, source: &S, ingress: PortIndex) {
        let Network { ports, onlookers, .. } = network;
        let Some(Some(port)) = ports.get(usize::from(ingress.0)) else { return };
        let seers = port.seers.received;
        let seen = Sighting { port: port.id, index: ingress, way: Way::Received, seers };
        let queue = matches!(port.device, Device::Vhost(_)).then_some(self.pair);
        let burst = Burst { queue, ..self.burst() };
        let (plan, frames, reasons) = (&self.plan, all_frames(source), &self.plan.reasons);
        let egress = |i: usize| egress_of(plan, ports, i);
        let egress: Option<&dyn Fn(usize) -> Egress> = Some(&egress);
        let sight = Sight { source, plan, burst, seen, frames, reasons, tags: None, egress };
        onlookers.watches.show(&sight);
        self.plan.settle_drops(source, &port.counters);
    }
}

/// Returns whether the port of this index is a tunnel.
pub(super) fn is_tunnel(ports: &[Option<Port>], index: PortIndex) -> bool {
    ports.get(usize::from(index.0)).and_then(Option::as_ref).is_some_and(Port::is_tunnel)
}

/// Returns where frame `i` of a burst leaves.
fn egress_of(plan: &Plan, ports: &[Option<Port>], i: usize) -> Egress {
    let to = plan.unicast().iter().find(|(_, frames)| frames & 1 << i != 0);
    let to = to.and_then(|(index, _)| ports.get(usize::from(index.0))?.as_ref());
    match to {
        Some(port) => Egress::Port(port.id),
        None if plan.flood & 1 << i != 0 => Egress::Several,
        None => Egress::Unknown,
    }
}

/// Returns the flooded and the promiscuous frames of a burst that some port carries, and those of
/// the flood whose VLAN some port carries but may not receive.
fn reach<S: Source>(
    plan: &Plan,
    ports: &[Option<Port>],
    source: &S,
    ingress: PortIndex,
    is_from_tunnel: bool,
) -> (FrameSet, FrameSet) {
    let filter = EgressFilter::new(plan, ports, ingress);
    let indexed = (0..).map(PortIndex).zip(ports).filter(|(index, _)| *index != ingress);
    indexed.fold((0, 0), |(reached, withheld), (index, port)| {
        let port = port.as_ref().filter(|port| !(is_from_tunnel && port.is_tunnel()));
        let Some(port) = port else { return (reached, withheld) };
        let due = filter.frames_for(source, port) | plan.unicast_of(index);
        let withheld_here = carried_frames(plan, plan.flood & !due, port);
        (reached | carried_frames(plan, due, port), withheld | withheld_here)
    })
}

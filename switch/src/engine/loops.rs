//! Loops: probes leave, reports are handed over, ports are blocked. Whether and when is decided by
//! control.

use trama_frame::VlanId;
use trama_frame::vnet::LEN as HEADER;

use super::{Engine, EngineError, NetworkId, Pipeline, PortId, PortLocation};
use crate::forward::{Source, all_frames};
use crate::loops::LoopReport;
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::probe::{self, LoopProbe};
use crate::time::Time;

impl Engine {
    /// Returns the signs of loops since the last call.
    pub fn loop_reports(&mut self) -> Vec<LoopReport> {
        self.networks.iter_mut().flatten().flat_map(|network| network.loops.take()).collect()
    }

    /// Sends a probe from each of these ports that is on the network and carries the VLAN, blocked
    /// or not: as a frame of that VLAN, so with its tag if the port tags it. Whatever comes back
    /// within two seconds is among [`Engine::loop_reports`]. A held engine sends none.
    pub fn send_probes(&mut self, id: NetworkId, vlan: VlanId, ports: &[PortId], now: Time) {
        let Ok(slot) = self.network_slot(id) else { return };
        if self.is_held {
            return;
        }
        for port in ports {
            match self.locate(*port) {
                Ok(location) if location.slot == slot => self.send_probe(id, location, vlan, now),
                _ => {}
            }
        }
        self.pool.clear();
        if let Some(network) = &mut self.networks[slot] {
            network.loops.expects_until = Some(now + probe::LIFETIME);
            self.pipeline.flush(&mut network.ports);
            self.pipeline.finish_turn(&mut network.ports, None);
        }
    }

    fn send_probe(&mut self, id: NetworkId, at: PortLocation, vlan: VlanId, now: Time) {
        let Engine { networks, pool, pipeline, .. } = self;
        let Some(network) = &mut networks[at.slot] else { return };
        let Some(Some(port)) = network.ports.get_mut(usize::from(at.index.0)) else { return };
        if !port.settings.cable || !port.device.is_ready() {
            return;
        }
        let frame = pipeline.probe_key.frame(&LoopProbe::new(id, port.id, vlan, now));
        pool.clear();
        let buffer = pool.buffer();
        buffer[..HEADER].fill(0);
        buffer[HEADER..HEADER + frame.len()].copy_from_slice(&frame);
        pool.commit(frame.len());
        pipeline.plan.set_single(vlan);
        let is_open = std::mem::replace(&mut port.is_open, true);
        // A burst of its own, for the IDs of frames.
        pipeline.counters.bursts.add(1);
        pipeline.deliver_to(&mut network.ports, &mut network.onlookers, pool, at.index, 1);
        pipeline.note.delivered();
        if let Some(Some(port)) = network.ports.get_mut(usize::from(at.index.0)) {
            port.is_open = is_open;
        }
    }

    /// Blocks a port or opens it again. A blocked port sends and receives no frames; those that
    /// would pass are counted as [`DropReason::Loop`](crate::DropReason::Loop). It forgets its
    /// addresses. Reports of the time before do not count for an opened port and are thrown away.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn block_port(&mut self, id: PortId, blocked: bool) -> Result<(), EngineError> {
        let location = self.locate(id)?;
        self.port_mut(id)?.set_blocked(blocked);
        self.flush_port(location);
        if let Some(network) = self.networks[location.slot].as_mut().filter(|_| !blocked) {
            network.loops.take().for_each(drop);
        }
        Ok(())
    }

    /// Forgets the addresses learned on a port.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn forget_addresses(&mut self, id: PortId) -> Result<(), EngineError> {
        let location = self.locate(id)?;
        self.flush_port(location);
        Ok(())
    }
}

impl Pipeline {
    /// Looks at flooded frames before they are delivered: takes probes that come back, applies the
    /// storm limits of the ingress port, and reports moving addresses.
    #[inline(never)]
    pub(super) fn guard_flood<S: Source>(
        &mut self,
        network: &mut super::Network,
        source: &S,
        ingress: PortIndex,
        now: Time,
    ) {
        let super::Network { id, table, ports, loops, .. } = network;
        let Some(id) = *id else { return };
        let mut is_news = false;
        if table.has_moving_pair() {
            while let Some(pair) = table.take_moving_pair() {
                let port = |index: PortIndex| Some(ports.get(usize::from(index.0))?.as_ref()?.id);
                if let (Some(a), Some(b)) = (port(pair.ports[0]), port(pair.ports[1])) {
                    let moves = LoopReport::Moves { network: id, vlan: pair.vlan, ports: [a, b] };
                    is_news |= loops.add(moves);
                }
            }
        }
        let Some(Some(port)) = ports.get_mut(usize::from(ingress.0)) else { return };
        let Port { id: port_id, settings, storm, counters, .. } = port;
        if loops.expects_probes(now) {
            let probe_key = &self.probe_key;
            let vlan = self.plan.take_flooded(source, probe::DESTINATION, counters, |head| {
                let Some(probe) = probe_key.read(head).filter(|probe| probe.network == id) else {
                    return false;
                };
                is_news |= probe.is_fresh(now) && loops.add(returned(&probe, *port_id));
                true
            });
            if let Some(vlan) = vlan {
                table.forget(vlan, probe::SOURCE);
            }
        }
        let limits = &settings.filter.storm;
        if !limits.is_none() && self.plan.flood != 0 {
            is_news |= self.plan.limit_flood(source, limits, storm, counters, now);
        }
        if is_news {
            self.raise_alarm();
        }
    }

    /// Drops the frames of a port that is closed; those of a blocked port may be probes.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse<S: Source>(
        &mut self,
        network: &mut super::Network,
        source: &S,
        ingress: PortIndex,
        now: Time,
    ) {
        let Some(Some(port)) = network.ports.get(usize::from(ingress.0)) else { return };
        let (reason, all) = (port.ingress_refusal(), all_frames(source));
        self.plan.count_dropped(all, reason, &port.counters);
        let Some(id) = network.id.filter(|_| port.settings.cable) else { return };
        if !network.loops.expects_probes(now) {
            return;
        }
        let mut is_news = false;
        for i in (0..source.len()).filter(|i| source.error(*i).is_none()) {
            let probe = self.probe_key.read(source.head(i));
            if let Some(probe) = probe.filter(|probe| probe.network == id && probe.is_fresh(now)) {
                is_news |= network.loops.add(returned(&probe, port.id));
            }
        }
        if is_news {
            self.raise_alarm();
        }
    }
}

fn returned(probe: &LoopProbe, received: PortId) -> LoopReport {
    let LoopProbe { network, port, vlan, .. } = *probe;
    LoopReport::Returned { network, vlan, sent: port, received }
}

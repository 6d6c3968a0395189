//! Explains what would happen to a frame.

use trama_frame::MacAddr;

use super::round::entry;
use super::watching::is_tunnel;
use super::{Engine, EngineError, PortId, PortLocation};
use crate::counters::PortCounters;
use crate::delivery::{carried_frames, egress_tag, refusal};
use crate::drop_reason::DropReason;
use crate::explain::{Exit, Explanation, OneFrame, Peek, Route};
use crate::filter::EgressFilter;
use crate::forward::{Ingress, Plan, Reasons, classify};
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::time::Time;

impl Engine {
    /// Says what would happen to a frame without offloads that entered from a port now. Nothing is
    /// learned, counted or sent.
    ///
    /// # Errors
    /// The port does not exist.
    pub fn explain(
        &mut self,
        port: PortId,
        frame: &[u8],
        now: Time,
    ) -> Result<Explanation, EngineError> {
        let PortLocation { slot, index } = self.locate(port)?;
        let Engine { networks, pipeline, .. } = self;
        let network = networks[slot].as_mut().ok_or(EngineError::NoSuchPort(port))?;
        let (place, plan) = (usize::from(index.0), &mut pipeline.plan);
        let found = network.ports[place].as_mut().ok_or(EngineError::NoSuchPort(port))?;
        let refused = match network.id {
            _ if !found.is_open => Some(found.ingress_refusal()),
            None => Some(DropReason::NotAttached),
            Some(_) => None,
        };
        if refused.is_some() {
            return Ok(Explanation::dropped(refused));
        }
        let (source, counters) = (OneFrame(frame), PortCounters::default());
        plan.ingress = index;
        let at = entry(found, index, &network.settings);
        let mut at = Ingress { sources: None, counters: &counters, ..at };
        classify(&source, &mut at, &mut Peek::new(&network.table), plan, now);
        let known = plan.unicast().first().map(|(port, _)| *port);
        let (is_flood, is_unknown) = (plan.flood != 0, plan.unknown != 0);
        let vlan = plan.runs().next().map(|(_, vlan)| vlan);
        let limits = &found.settings.filter.storm;
        if is_flood && !limits.is_none() {
            plan.limit_flood(&source, limits, &mut found.storm.clone(), &counters, now);
        }
        if is_tunnel(&network.ports, index) {
            plan.keep_from_tunnels(&source, |to| is_tunnel(&network.ports, to), &counters);
        }
        let (exits, withheld) = exits(plan, &source, &network.ports, index);
        let dropped = match plan.reasons.get(0) {
            None if plan.flood != 0 && exits.is_empty() && withheld.is_empty() => {
                Some(DropReason::NoMember)
            }
            None if plan.flood != 0 && exits.is_empty() => Some(DropReason::UnknownUnicast),
            reason => reason,
        };
        let known = known.or((dropped == Some(DropReason::Hairpin)).then_some(index));
        let id = |index: PortIndex| Some(network.ports[usize::from(index.0)].as_ref()?.id);
        let destination = frame.first_chunk().copied().map(MacAddr);
        let age = || network.table.age(vlan?, destination?, now);
        let route = match known {
            Some(index) => id(index).map(|port| Route::Port { port, age: age() }),
            None if is_unknown => Some(Route::Unknown),
            None => is_flood.then_some(Route::Group),
        };
        let here = network.ports[place].as_ref().map_or(0, |port| port.mirrored.received);
        let by = exits.iter().filter(|exit| exit.dropped.is_none()).fold(here, |by, exit| {
            let port = network.ports.iter().flatten().find(|port| port.id == exit.port);
            by | port.map_or(0, |port| port.mirrored.sent)
        });
        let mirrors = network.onlookers.mirrors.copying(by, &source, plan);
        plan.reasons = Reasons::NONE;
        Ok(Explanation { vlan, dropped, route, exits, withheld, mirrors })
    }
}

/// Returns the ports that the frame of a plan leaves by, and those that carry its VLAN but do not
/// receive it as unknown unicast.
fn exits(
    plan: &Plan,
    source: &OneFrame<'_>,
    ports: &[Option<Port>],
    ingress: PortIndex,
) -> (Vec<Exit>, Vec<PortId>) {
    let is_from_tunnel = is_tunnel(ports, ingress);
    let filter = EgressFilter::new(plan, ports, ingress);
    let (mut exits, mut withheld) = (Vec::new(), Vec::new());
    let indexed = (0..).map(PortIndex).zip(ports).filter(|(index, _)| *index != ingress);
    for (index, port) in indexed.filter_map(|(index, port)| Some((index, port.as_ref()?))) {
        if is_from_tunnel && port.is_tunnel() {
            continue;
        }
        let due = filter.frames_for(source, port) | plan.unicast_of(index);
        if carried_frames(plan, due, port) != 0 {
            let (tag, dropped) = (egress_tag(plan, 0, port), refusal(port));
            exits.push(Exit { port: port.id, tag, dropped });
        } else if carried_frames(plan, plan.flood & !due, port) != 0 {
            withheld.push(port.id);
        }
    }
    (exits, withheld)
}

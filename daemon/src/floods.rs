//! Storms and loops of the running ports: asks the workers, lets `storms` and `loops` decide, and
//! does what they say.

use std::collections::HashMap;
use std::time::Duration;

use trama_switch::{DropReason, LoopReport, NetworkId, PortId, Storm};

use crate::apply::{DataPlane, RunningPort};
use crate::config::model::LoopMode;
use crate::loops::{Action, Cause, PortFacts, Proof, Segment};
use crate::storms::Observed;

/// How often the end of a storm is looked for.
const STORM_CHECK: Duration = Duration::from_secs(1);
/// Most ports that send a probe in one job, for which frames wait: a TAP takes some two µs.
const PROBES_PER_JOB: usize = 128;

/// The ports that run, have their cable in and look for loops.
type Ports = HashMap<PortId, Known>;

/// A port that runs and looks for loops.
#[derive(Clone)]
struct Known {
    name: String,
    network: Option<NetworkId>,
    facts: PortFacts,
}

impl DataPlane {
    /// Returns the time until [`DataPlane::follow_floods`] must be called; `None` while there is
    /// nothing to follow.
    pub(crate) fn next_flood_check(&self, now: Duration) -> Option<Duration> {
        let storms = (!self.storms.is_empty()).then_some(STORM_CHECK);
        let loops = self.loops.deadline().map(|deadline| deadline.saturating_sub(now));
        storms.into_iter().chain(loops).min()
    }

    /// Follows storms and loops; `now` is the time since the daemon's start.
    pub(crate) fn follow_floods(&mut self, now: Duration) {
        self.release_blocks();
        let mut storms: HashMap<PortId, Vec<Storm>> = HashMap::new();
        let mut reports = Vec::new();
        for worker in 0..self.workers.len() {
            // A worker that has ended has seen nothing.
            let job =
                self.on_worker(worker, |engine, now| (engine.storms(now), engine.loop_reports()));
            if let Ok((of_ports, signs)) = job {
                storms.extend(of_ports);
                reports.extend(signs);
            }
        }
        self.follow_storms(&storms);
        if storms.is_empty() && reports.is_empty() && self.loops.deadline().is_none() {
            return;
        }
        let ports = self.ports_with_loop_detection();
        let mut actions = self.take_reports(&ports, storms, reports, now);
        actions.extend(self.loops.due(now));
        for action in actions {
            self.act(action, &ports);
        }
    }

    fn follow_storms(&mut self, now: &HashMap<PortId, Vec<Storm>>) {
        self.storms.follow(self.ports.iter().map(|(name, port)| Observed {
            name,
            kinds: now.get(&port.id).into_iter().flatten().map(|storm| storm.kind).collect(),
            limits: port.settings.filter.storm,
            dropped: port.counters.snapshot().dropped(DropReason::Storm),
        }));
    }

    fn ports_with_loop_detection(&self) -> Ports {
        let known = |(name, port): (&String, &RunningPort)| {
            let facts = PortFacts { mode: port.loop_mode, is_uplink: port.is_uplink };
            let known = Known { name: name.clone(), network: port.settings.network, facts };
            let looks = port.loop_mode != LoopMode::Off && port.settings.cable;
            looks.then_some((port.id, known))
        };
        self.ports.iter().filter_map(known).collect()
    }

    fn take_reports(
        &mut self,
        ports: &Ports,
        storms: HashMap<PortId, Vec<Storm>>,
        reports: Vec<LoopReport>,
        now: Duration,
    ) -> Vec<Action> {
        let loops = &mut self.loops;
        for (port, storms) in storms {
            let Some(network) = ports.get(&port).and_then(|port| port.network) else { continue };
            for Storm { vlan, .. } in storms {
                loops.suspect(Segment { network, vlan }, Cause::Storm(port), now);
            }
        }
        let facts = |port: PortId| ports.get(&port).map(|port| port.facts);
        let take = |report| match report {
            LoopReport::Moves { network, vlan, ports } => {
                if ports.iter().any(|port| facts(*port).is_some()) {
                    loops.suspect(Segment { network, vlan }, Cause::Moves(ports), now);
                }
                None
            }
            LoopReport::Returned { network, vlan, sent, received } => {
                let proof = Proof { sent, received };
                loops.prove(Segment { network, vlan }, proof, facts, now)
            }
        };
        reports.into_iter().filter_map(take).collect()
    }

    fn act(&self, action: Action, ports: &Ports) {
        let name = |port: PortId| ports.get(&port).map_or("?", |port| port.name.as_str());
        match action {
            Action::Probe(segment) => self.send_probes(segment, ports),
            Action::Block { port, proof, hold } => {
                self.block(port, true);
                // The loop has moved addresses to the other port, too.
                let other = if port == proof.sent { proof.received } else { proof.sent };
                self.forget_addresses(other);
                let (name, reason) = (name(port), reason(proof, name));
                tracing::warn!(
                    "port {name}: a loop: {reason}; blocked for {} s: remove the loop",
                    hold.as_secs()
                );
            }
            Action::Open(port) => {
                self.block(port, false);
                tracing::info!("port {}: the loop is gone; it is open again", name(port));
            }
            Action::WarnOfMoves([a, b]) => tracing::warn!(
                "ports {} and {}: an address moves between them more than 50 times a second, and \
                 no probe comes back: look for two stations with one address, or for a bond in \
                 balance-rr",
                name(a),
                name(b)
            ),
            Action::WarnOfLoop(proof) => tracing::warn!(
                "port {}: a loop: {}; not blocked: remove the loop",
                name(proof.received),
                reason(proof, name)
            ),
        }
    }

    fn send_probes(&self, segment: Segment, ports: &Ports) {
        let Segment { network, vlan } = segment;
        let running = self.networks.values().find(|running| running.id == network);
        let Some(worker) = running.map(|running| running.worker) else { return };
        let on_it = |(id, port): (&PortId, &Known)| (port.network == Some(network)).then_some(*id);
        let ports: Vec<PortId> = ports.iter().filter_map(on_it).collect();
        for ports in ports.chunks(PROBES_PER_JOB) {
            let ports = ports.to_vec();
            // A worker that has ended has no ports to probe.
            let _ = self.on_worker(worker, move |engine, now| {
                engine.send_probes(network, vlan, &ports, now);
            });
        }
    }

    fn block(&self, port: PortId, blocked: bool) {
        let Some(running) = self.ports.values().find(|running| running.id == port) else { return };
        let done =
            self.on_worker(running.worker, move |engine, _| engine.block_port(port, blocked));
        if let Ok(Err(error)) = done {
            tracing::error!("port {}: {error}", running.settings.name);
        }
    }

    fn forget_addresses(&self, port: PortId) {
        let Some(running) = self.ports.values().find(|running| running.id == port) else { return };
        // A port that is gone has no addresses.
        let _ = self.on_worker(running.worker, move |engine, _| engine.forget_addresses(port));
    }

    /// Opens the blocked ports whose settings have changed (another network, the cable out, or a
    /// `loop` other than "block"), and forgets those that are gone.
    pub(crate) fn release_blocks(&mut self) {
        let Self { loops, ports, .. } = self;
        if !loops.has_blocks() {
            return;
        }
        let ports: HashMap<PortId, &RunningPort> =
            ports.values().map(|port| (port.id, port)).collect();
        let released = loops.release(|port, block| {
            ports.get(&port).is_some_and(|port| {
                let settings = &port.settings;
                port.loop_mode == LoopMode::Block
                    && settings.cable
                    && settings.network == Some(block.segment.network)
            })
        });
        for port in released {
            self.block(port, false);
        }
    }

    /// Returns why a port is blocked, if it is.
    pub(crate) fn loop_block(&self, port: PortId) -> Option<String> {
        let block = self.loops.block(port)?;
        let name = |port: PortId| {
            let named = self.ports.iter().find(|(_, running)| running.id == port);
            named.map_or("?", |(name, _)| name.as_str())
        };
        let seconds = block.hold.as_secs();
        Some(format!("blocked for {seconds} s at a time: {}", reason(block.proof, name)))
    }
}

/// Returns how a loop is known.
fn reason<'a>(proof: Proof, name: impl Fn(PortId) -> &'a str) -> String {
    let Proof { sent, received } = proof;
    match sent == received {
        true => format!("what is sent at port {} comes back", name(sent)),
        false => format!("what is sent at port {} comes in at {}", name(sent), name(received)),
    }
}

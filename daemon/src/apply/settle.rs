//! From one switch to the next: what is built while the other one still runs, and what follows.

use std::time::Instant;

use trama_switch::Engine;
use trama_vhost_net_backend::SessionHandle;

use super::{DataPlane, RunningNetwork};
use crate::plan::Step;

impl DataPlane {
    /// Another switch still moves the frames of what is built from now on.
    pub(crate) fn begin_beside(&mut self) {
        self.is_beside = true;
        self.streams.pause(true);
    }

    /// The other switch has ended. Why a port does not run is logged from now on.
    pub(crate) fn end_beside(&mut self) {
        self.is_beside = false;
        self.streams.pause(false);
        self.failed.values_mut().for_each(|trouble| trouble.reason.clear());
    }

    /// Whether a step can be taken while the other switch runs: what is new gets counters in memory
    /// that the other one still changes.
    pub(crate) fn can_take_beside(&self, step: &Step) -> bool {
        match step {
            Step::AddNetwork { network } => self.kept.has_network(&network.name),
            Step::AddPort { port } => {
                let network = port.network.as_ref();
                let has_network = network.is_none_or(|name| self.kept.has_network(name));
                has_network && self.kept.has_port(&port.name)
            }
            Step::SetMirrors { .. } => true,
            _ => false,
        }
    }

    /// Returns the sessions, which may have to carry out what an earlier switch has.
    pub(crate) fn sessions(&self) -> Vec<SessionHandle> {
        self.ports.values().filter_map(|port| Some(port.session.as_ref()?.handle())).collect()
    }

    /// What an earlier switch had was built: learns what was known before that one has ended, and
    /// lets frames pass.
    pub(crate) fn settle(&mut self) {
        self.crashes.settle();
        let learned = self.kept.settle();
        let epoch = self.kept.epoch();
        for (name, image) in learned {
            let Some(&RunningNetwork { worker, id, .. }) = self.networks.get(&name) else {
                continue;
            };
            for part in image.parts() {
                let part = part.to_vec();
                let learn =
                    move |engine: &mut Engine, now| engine.import_macs(id, &part, epoch, now);
                // A network that is gone learns nothing.
                let _ = self.on_worker(worker, learn);
            }
        }
        self.on_each_worker(|engine, now| engine.release(now));
    }
}

/// Waits until the sessions have carried out what an earlier switch has, or until this time.
pub(crate) fn wait_until_resumed(sessions: &[SessionHandle], until: Instant) {
    for session in sessions {
        session.wait_until_resumed(until.saturating_duration_since(Instant::now()));
    }
}

//! Asks the worker of a port, and the rules of the gateway that would get the frame.

use std::collections::HashMap;

use trama_frame::ethernet::{self, TAG_LEN};
use trama_gateway::NatDrop;
use trama_gateway::explain::{Fate, explain};
use trama_switch::explain::{Exit, Explanation};
use trama_switch::{DropReason, PortId};

use crate::apply::DataPlane;
use crate::config::model::Mirror;
use crate::last_drops::LastDrop;

/// The name of a network's gateway among the ports.
pub(super) const GATEWAY: &str = "gateway";
/// Length of the two addresses, which a tag follows.
const ADDRESSES: usize = 12;

/// What would happen to a frame of a port that runs.
pub(crate) struct Explained {
    /// What the switch would do.
    pub explanation: Explanation,
    /// The ports' names.
    pub names: HashMap<PortId, String>,
    /// The mirrors that would copy the frame.
    pub mirrors: Vec<Mirror>,
    /// What the gateway would do, if it got the frame.
    pub fate: Option<Result<Fate, NatDrop>>,
}

impl DataPlane {
    /// Says what would happen to a frame that a port's machine sent now; `None` if the port does
    /// not run. `network` is the running network that it is on.
    pub(crate) fn explain(
        &self,
        port: &str,
        network: Option<&str>,
        frame: &[u8],
    ) -> Option<Explained> {
        let running = self.ports.get(port)?;
        let (id, bytes) = (running.id, frame.to_vec());
        let told = self.on_worker(running.worker, move |e, now| e.explain(id, &bytes, now));
        let explanation = told.ok()?.ok()?;
        let gateway = network.and_then(|name| self.networks.get(name)?.gateway.as_ref());
        let gateway = gateway.map(|gateway| gateway.port());
        let mut names: HashMap<PortId, String> =
            self.ports.iter().map(|(name, port)| (port.id, name.clone())).collect();
        names.extend(gateway.map(|port| (port, GATEWAY.to_owned())));
        let exit = explanation.exits.iter().find(|exit| Some(exit.port) == gateway);
        let fate = exit.filter(|exit| exit.dropped.is_none()).and_then(|exit| {
            let settings = self.gateway_settings(network?)?;
            Some(explain(settings.nat(), &as_it_leaves(frame, exit)))
        });
        let mirrors = network.map(|name| self.active_mirrors(name)).into_iter().flatten();
        let copies = |place: &usize| explanation.mirrors.contains(place);
        let mirrors = (0..).zip(mirrors).filter(|(place, _)| copies(place));
        let mirrors = mirrors.map(|(_, mirror)| mirror.clone()).collect();
        Some(Explained { explanation, names, mirrors, fate })
    }
}

impl DataPlane {
    /// Returns the last frame that was dropped at a port, for this reason or for any.
    pub(crate) fn last_drop(&self, port: &str, reason: Option<DropReason>) -> Option<LastDrop> {
        self.last_drops.of(self.ports.get(port)?.id, reason)
    }
}

/// Returns a frame without the tag that it does not leave with.
fn as_it_leaves(frame: &[u8], exit: &Exit) -> Vec<u8> {
    let had_tag = ethernet::parse(frame).is_some_and(|header| header.tag.is_some());
    match exit.tag {
        None if had_tag => [&frame[..ADDRESSES], &frame[ADDRESSES + TAG_LEN..]].concat(),
        _ => frame.to_vec(),
    }
}

//! Events of ports: who is connected to them, and whether they run.

use std::sync::Arc;

use smol_str::SmolStr;
use trama_api::event::{Facts, Kind, bounded};
use trama_switch::PortId;
use trama_vhost_net_backend::{LinkWatch, Peer};

use super::Events;

impl Events {
    /// Something has happened to a port; `detail` says more, if it is not empty.
    pub(crate) fn link(&self, port: &str, network: Option<&str>, verdict: &str, detail: &str) {
        let facts = Facts {
            network: network.map(SmolStr::from),
            port: Some(port.into()),
            verdict: Some(bounded(verdict)),
            detail: (!detail.is_empty()).then(|| bounded(detail)),
            ..Facts::default()
        };
        self.add(Kind::Link, facts);
    }

    /// The same for a port that runs.
    pub(crate) fn link_of(&self, port: PortId, verdict: &str, detail: &str) {
        if self.are_kept()
            && let Some(port) = self.ports.get(port)
        {
            self.link(&port.name, port.network.as_deref(), verdict, detail);
        }
    }
}

/// Tells of the frontends at one port.
pub(crate) struct Frontends {
    pub(crate) events: Arc<Events>,
    pub(crate) port: PortId,
}

impl std::fmt::Debug for Frontends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frontends of {:?}", self.port)
    }
}

impl LinkWatch for Frontends {
    fn connected(&self, peer: Option<&Peer>) {
        let peer = peer.map(Peer::to_string).unwrap_or_default();
        self.events.link_of(self.port, "connected", &peer);
    }

    fn active(&self, is_active: bool) {
        let (verdict, detail) = match is_active {
            true => ("up", "the guest's driver has started"),
            false => ("down", "the guest's driver has stopped"),
        };
        self.events.link_of(self.port, verdict, detail);
    }

    fn disconnected(&self, failure: Option<&str>) {
        self.events.link_of(self.port, "disconnected", failure.unwrap_or_default());
    }
}

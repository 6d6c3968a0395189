//! The gateways of the networks: one process each, on a switch port of its own.
//!
//! The port stays while its process is replaced; other ports see a station that is silent for a
//! moment. The process outlives the switch, and the next switch goes on with it. [`Supervisor`]
//! keeps a process running; this file plugs it into a network.

mod heartbeat;
mod left;
mod process;
mod questions;
mod starts;
mod supervisor;

use std::io;
use std::sync::Arc;

use trama_frame::VlanId;
use trama_gateway::question::Row;
use trama_helper::Rights;
use trama_switch::{
    Device, HdrLen, Lasting, NetworkId, PortCounters, PortFilter, PortId, PortSettings,
    Promiscuous, Spoof, Station, StormLimits, VhostDevice, VlanMode, WorkerHandle,
};
use trama_vhost_net::{PortPlace, SwitchPort};

use crate::events::{Events, Known};

pub use questions::{AskError, Pending};
pub use starts::Starts;
pub use supervisor::{GatewayStatus, Supervisor};

/// The name of its port.
const GATEWAY: &str = "gateway";

/// A network's running gateway.
pub(crate) struct Gateway {
    /// Its worker, which changes when the network moves.
    place: PortPlace,
    port: PortId,
    counters: Lasting<PortCounters>,
    events: Arc<Events>,
    supervisor: Supervisor,
}

impl Gateway {
    /// Plugs a gateway into a network and starts its process when its turn comes.
    ///
    /// # Errors
    /// The network's worker refuses the port, or descriptors or threads are missing.
    pub(crate) fn start(
        network: &str,
        place: (WorkerHandle, NetworkId),
        config: trama_gateway::Config,
        (rights, starts, events): (Rights, Arc<Starts>, Arc<Events>),
    ) -> io::Result<Gateway> {
        let (worker, id) = place;
        let settings = PortSettings {
            name: format!("{network}'s gateway"),
            network: Some(id),
            // Untagged, like guests on ports without VLAN settings.
            vlan: VlanMode::Access { tag: VlanId::NONE },
            cable: true,
            filter: PortFilter {
                promiscuous: Promiscuous::Deny,
                station: Station::Known(config.station.mac()),
                // It is not a guest of the network.
                is_outside: true,
                spoof: Spoof::Deny,
                own_address: Some(config.station.mac()),
                storm: StormLimits::NONE,
            },
            mark: 0,
            hdr_len: HdrLen::IngressMark,
        };
        let device = Device::Vhost(VhostDevice::new(1));
        let (port, counters) = worker
            .call(move |engine, _| engine.add_port(settings, device))
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let started = SwitchPort::new(worker.clone(), port).and_then(|rings| {
            let place = rings.place();
            let means = (rights, starts, events.clone());
            Ok((place, Supervisor::start(network, means, rings, config)?))
        });
        match started {
            Ok((place, supervisor)) => {
                let known = Known::new((GATEWAY, Some(network)), 0, counters.clone());
                events.set_port(port, known);
                Ok(Gateway { place, port, counters, events, supervisor })
            }
            Err(error) => {
                remove_port(&worker, port);
                Err(error)
            }
        }
    }

    /// Gives the process new settings.
    pub(crate) fn configure(&self, config: trama_gateway::Config) {
        self.supervisor.configure(config);
    }

    /// Returns the place of its port, by which the port is moved.
    pub(crate) fn place(&self) -> &PortPlace {
        &self.place
    }

    /// Returns its switch port.
    pub(crate) fn port(&self) -> PortId {
        self.port
    }

    /// Returns the counters of its switch port.
    pub(crate) fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Returns the state of its process.
    pub(crate) fn status(&self) -> GatewayStatus {
        self.supervisor.status()
    }

    /// Asks its process a question.
    pub(crate) fn ask<R: Row>(&self) -> Pending<R> {
        self.supervisor.ask()
    }

    /// Ends the process and unplugs it.
    pub(crate) fn stop(self) {
        self.supervisor.stop();
        self.events.forget_port(self.port);
        remove_port(&self.place.hold(), self.port);
    }
}

fn remove_port(worker: &WorkerHandle, port: PortId) {
    // A worker that has ended has no ports. The device is dropped on this thread.
    drop(worker.call(move |engine, _| engine.remove_port(port)));
}

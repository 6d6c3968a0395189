//! What exports ask of the data plane: the networks that have some, their ports and counters.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use trama_export::sflow::InterfaceCounters;
use trama_frame::VlanId;
use trama_helper::Rights;
use trama_switch::{NetworkId, PortId, VlanMode};

use super::Daemon;
use crate::config::derived::running::written_name;
use crate::config::model::export::{Ipfix, Sflow};
use crate::config::model::{Config, Port};
use crate::drop_kinds::{Kind, dropped};
use crate::status::GatewayDrops;

/// A running network of which something is exported.
pub(crate) struct Exported {
    pub name: String,
    pub id: NetworkId,
    /// Distinguishes it from other networks of the host, while the daemon runs.
    pub number: u32,
    pub sflow: Option<Sflow>,
    pub ipfix: Option<Ipfix>,
    pub ports: Vec<ExportedPort>,
}

/// A port of such a network.
#[derive(Clone)]
pub(crate) struct ExportedPort {
    pub id: PortId,
    /// Its number, as in the column `ofport`; `None` for the gateway.
    pub number: Option<u32>,
    pub vlan: VlanMode,
}

impl Daemon {
    /// Returns the running networks that export something; `None` if no network is to.
    pub(crate) fn exported(&self) -> Option<Vec<Exported>> {
        let inner = self.lock();
        if inner.config.networks.iter().all(|it| it.sflow.is_none() && it.ipfix.is_none()) {
            return None;
        }
        let numbers = self.number_ports(&inner.config);
        let mut all = Vec::new();
        for (name, running) in &inner.data_plane.networks {
            let Some(network) = inner.config.network(written_name(name)) else { continue };
            if network.sflow.is_none() && network.ipfix.is_none() {
                continue;
            }
            let ports = inner.data_plane.ports.iter();
            let ports = ports.filter(|(_, port)| port.settings.network == Some(running.id));
            let ports = ports.map(|(name, port)| ExportedPort {
                id: port.id,
                number: numbers.get(name).copied(),
                vlan: port.settings.vlan.clone(),
            });
            let gateway = running.gateway.as_ref().map(|gateway| ExportedPort {
                id: gateway.port(),
                number: None,
                vlan: VlanMode::Access { tag: VlanId::NONE },
            });
            all.push(Exported {
                name: name.clone(),
                id: running.id,
                number: running.id.number() as u32,
                sflow: network.sflow.clone(),
                ipfix: network.ipfix.clone(),
                ports: ports.chain(gateway).collect(),
            });
        }
        Some(all)
    }

    /// Returns the counters of a network's ports.
    pub(crate) fn exported_counters(&self, network: NetworkId) -> Vec<InterfaceCounters> {
        let inner = self.lock();
        let numbers = self.number_ports(&inner.config);
        let ports = inner.config.all_ports();
        let counters = ports.filter_map(|port| {
            let running = inner.data_plane.ports.get(&port.name)?;
            if running.settings.network != Some(network) {
                return None;
            }
            let status = inner.data_plane.port_status(&port, &GatewayDrops::new());
            let counts = &status.counters;
            let dropped = |kind| dropped(&counts.drops, kind);
            Some(InterfaceCounters {
                port: *numbers.get(&port.name)?,
                admin_up: port.cable,
                oper_up: status.link,
                in_octets: counts.rx_bytes,
                in_frames: counts.rx_frames,
                in_discards: dropped(Kind::FromPort),
                in_errors: dropped(Kind::FromPortFaulty),
                out_octets: counts.tx_bytes,
                out_frames: counts.tx_frames,
                out_discards: dropped(Kind::ToPort),
                out_errors: dropped(Kind::ToPortFaulty),
            })
        });
        counters.collect()
    }

    /// Returns the number of each port of a configuration, which is the one in force.
    pub(crate) fn number_ports(&self, config: &Config) -> BTreeMap<String, u32> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let request = |port: &Port| port.openvswitch_interface.get("ofport_request")?.parse().ok();
        let ports: Vec<_> = config.all_ports().collect();
        numbers.update(ports.iter().map(|port| (port.name.as_str(), request(port))))
    }

    /// Returns the way to what needs privileges.
    pub(crate) fn rights(&self) -> Rights {
        self.lock().rights.clone()
    }
}

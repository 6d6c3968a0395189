//! The numbers of `tramactl top`: what is counted anyway, without a word to the workers.

use std::borrow::Cow;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use trama_api::nearest::suggestion;
use trama_api::top::{Numbers, Port};

use super::Daemon;
use crate::apply::DataPlane;
use crate::config::derived::running::{is_part_of, written_name};
use crate::config::model::{self as config, Config};
use crate::status::{GatewayDrops, PortStatus};

impl Daemon {
    /// Returns the numbers of a network, or of all.
    ///
    /// # Errors
    /// There is no such network.
    pub(crate) fn numbers(&self, network: Option<&str>) -> Result<Numbers, String> {
        let inner = self.lock();
        if let Some(name) = network {
            let known: Vec<&str> =
                inner.config.networks.iter().map(|it| it.name.as_str()).collect();
            if !known.contains(&name) {
                return Err(format!("no bridge named {name}{}", suggestion(name, &known)));
            }
        }
        Ok(inner.data_plane.numbers(&inner.config, network, |_, _| ()))
    }
}

impl DataPlane {
    /// Returns the numbers of a network, or of all; `visit` sees what each port's come from.
    pub(super) fn numbers(
        &self,
        config: &Config,
        wanted: Option<&str>,
        mut visit: impl FnMut(&config::Port, &PortStatus),
    ) -> Numbers {
        let mut numbers =
            Numbers { process: std::process::id(), nanos: now(), ..Numbers::default() };
        let mut gateway_drops = GatewayDrops::new();
        let running = self.networks.iter();
        for (name, network) in
            running.filter(|(it, _)| wanted.is_none_or(|name| is_part_of(it, name)))
        {
            let Some(gateway) = &network.gateway else { continue };
            let counters = gateway.status().counters;
            if let Some(nat) = counters.nat {
                numbers.flows.push((name.clone(), nat.flows.values().sum()));
            }
            for drops in counters.port_drops {
                let of_port = gateway_drops.entry((written_name(name), drops.port)).or_default();
                of_port.push((drops.reason, drops.count));
            }
        }
        numbers.flows.sort_unstable();
        let workers = self.workers.iter();
        numbers.busy_nanos =
            workers.map(|worker| worker.handle.counters().snapshot().busy_nanos).collect();
        let is_wanted = |network: Option<&str>| wanted.is_none() || network == wanted;
        let ports = config.all_ports().filter(|port| is_wanted(port.network.as_deref()));
        for port in ports {
            let status = self.port_status(&port, &gateway_drops);
            visit(&port, &status);
            numbers.ports.push(row(status));
        }
        numbers
    }
}

/// Returns the time of the host's monotonic clock, in nanoseconds.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::try_from(time).map_or(0, |since_boot| since_boot.as_nanos() as u64)
}

fn row(status: PortStatus) -> Port {
    let counters = &status.counters;
    let own = counters.drops.iter().filter(|(_, count)| *count > 0);
    let own = own.map(|(reason, count)| (Cow::Borrowed(*reason), *count));
    let gateway = counters.gateway_drops.iter();
    let gateway = gateway.map(|(reason, count)| (Cow::Owned(reason.clone()), *count));
    Port {
        link: status.link,
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        kicks: counters.other("kicks"),
        calls: counters.other("calls"),
        drops: own.chain(gateway).collect(),
        name: status.name,
        network: status.network,
    }
}

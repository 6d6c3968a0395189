//! What captures ask of the data plane: which ports there are to watch, and watches of them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use trama_switch::watch::{Watch, WatchCount, WatchId};
use trama_switch::{NetworkId, PortId, Time, VlanMode};

use super::{Daemon, Inner};
use crate::captures::{Targets, WatchedPort};

/// Converts the time of a worker.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// When that began, since the Unix epoch.
    began: Duration,
    /// The worker's time when it was asked. Bursts of before are earlier, others are not.
    pub(crate) asked: Time,
}

impl Clock {
    fn of_now(asked: Time) -> Clock {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = Duration::from_nanos(asked.as_nanos());
        Clock { began: since_epoch.unwrap_or_default().saturating_sub(now), asked }
    }

    /// Returns a time of the worker as one since the Unix epoch.
    pub(crate) fn of(self, time: Time) -> Duration {
        self.began + Duration::from_nanos(time.as_nanos())
    }
}

impl Daemon {
    /// Returns the running ports that are meant.
    pub(crate) fn ports_to_watch(&self, targets: &Targets) -> Vec<WatchedPort> {
        let inner = self.lock();
        let networks = inner.data_plane.networks.iter();
        let networks: HashMap<_, _> = networks.map(|(name, it)| (it.id, name)).collect();
        let mut ports = Vec::new();
        for (name, port) in &inner.data_plane.ports {
            let Some(id) = port.settings.network else { continue };
            let Some(network_name) = networks.get(&id).copied() else { continue };
            if !targets.include(name, network_name) {
                continue;
            }
            ports.push(WatchedPort {
                name: name.clone(),
                id: port.id,
                network: id,
                network_name: network_name.clone(),
                description: format!("{network_name}, {}", vlans(&port.settings.vlan)),
            });
        }
        for (name, network) in &inner.data_plane.networks {
            // No port of the configuration has such a name.
            let port = format!("{name}/gateway");
            let Some(gateway) = network.gateway.as_ref().filter(|_| targets.include(&port, name))
            else {
                continue;
            };
            ports.push(WatchedPort {
                name: port,
                id: gateway.port(),
                network: network.id,
                network_name: name.clone(),
                description: format!("the gateway of {name}"),
            });
        }
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        ports
    }

    /// Returns the clock of the workers, which all share.
    ///
    /// # Errors
    /// The first worker has ended.
    pub(crate) fn clock(&self) -> Result<Clock, String> {
        self.lock().data_plane.on_worker(0, |_, now| now).map(Clock::of_now)
    }

    /// Adds a watch to a network; returns it with the clock of its worker.
    ///
    /// # Errors
    /// The network is gone, or has as many watches as it can.
    pub(crate) fn watch(
        &self,
        network: NetworkId,
        watch: Watch,
    ) -> Result<(WatchId, Clock), String> {
        let inner = self.lock();
        let worker = inner.worker_of(network).ok_or("the network is gone")?;
        let added = inner
            .data_plane
            .on_worker(worker, move |engine, now| engine.watch(network, watch).map(|id| (id, now)));
        let (id, now) = added?.map_err(|error| error.to_string())?;
        Ok((id, Clock::of_now(now)))
    }

    /// Lets a watch also see a port of its network.
    ///
    /// # Errors
    /// One of them is gone.
    pub(crate) fn extend_watch(
        &self,
        network: NetworkId,
        watch: WatchId,
        port: PortId,
    ) -> Result<(), String> {
        let inner = self.lock();
        let worker = inner.worker_of(network).ok_or("the network is gone")?;
        let extended =
            inner.data_plane.on_worker(worker, move |engine, _| engine.extend_watch(watch, port));
        extended?.map_err(|error| error.to_string())
    }

    /// Ends a watch; returns what it did at each port, nothing if its network is gone.
    pub(crate) fn unwatch(&self, network: NetworkId, watch: WatchId) -> Vec<WatchCount> {
        let inner = self.lock();
        let Some(worker) = inner.worker_of(network) else { return Vec::new() };
        let ended =
            inner.data_plane.on_worker(worker, move |engine, _| engine.unwatch(network, watch));
        // The worker's end of the queue is dropped here, not on the worker.
        ended.ok().flatten().map(|(_, counts)| counts).unwrap_or_default()
    }
}

impl Inner {
    fn worker_of(&self, network: NetworkId) -> Option<usize> {
        let mut networks = self.data_plane.networks.values();
        networks.find(|it| it.id == network).map(|it| it.worker)
    }
}

fn vlans(mode: &VlanMode) -> String {
    match mode {
        VlanMode::Access { tag } if tag.get() == 0 => "access".to_owned(),
        VlanMode::Access { tag } => format!("access VLAN {tag}"),
        VlanMode::Trunk { .. } => "trunk".to_owned(),
        VlanMode::NativeTagged { tag, .. } => format!("native-tagged VLAN {tag}"),
        VlanMode::NativeUntagged { tag, .. } => format!("native-untagged VLAN {tag}"),
    }
}

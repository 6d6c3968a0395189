//! What captures ask of the data plane: which ports there are to watch, and watches of them.

use std::time::{Duration, SystemTime};

use trama_switch::watch::{Watch, WatchCount, WatchId};
use trama_switch::{NetworkId, PortId, Time, VlanMode};

use super::{Daemon, Inner};
use crate::captures::Targets;

/// A port that can be watched.
#[derive(Clone, Debug)]
pub(crate) struct WatchedPort {
    pub name: String,
    pub id: PortId,
    pub network: NetworkId,
    /// Its network and VLANs, in words.
    pub description: String,
}

/// Converts the time of a worker.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// When that began, since the Unix epoch.
    began: Duration,
}

impl Clock {
    fn of_now(now: Time) -> Clock {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = Duration::from_nanos(now.as_nanos());
        Clock { began: since_epoch.unwrap_or_default().saturating_sub(now) }
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
        let networks = &inner.data_plane.networks;
        let mut ports = Vec::new();
        for (name, port) in &inner.data_plane.ports {
            let Some(id) = port.settings.network else { continue };
            let Some((network, _)) = networks.iter().find(|(_, it)| it.id == id) else { continue };
            if !targets.include(name, network) {
                continue;
            }
            let description = format!("{network}, {}", vlans(&port.settings.vlan));
            ports.push(WatchedPort { name: name.clone(), id: port.id, network: id, description });
        }
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        ports
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

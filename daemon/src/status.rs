//! What the running daemon reports about itself, as plain values.

use std::time::Duration;

use serde::Serialize;

/// A snapshot of everything that runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// In the configuration's order.
    pub networks: Vec<NetworkStatus>,
    /// In the configuration's order.
    pub ports: Vec<PortStatus>,
    /// By worker number.
    pub workers: Vec<WorkerStatus>,
    /// Keys of `[daemon]` whose change waits for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Status {
    /// The port of this name.
    pub fn port(&self, name: &str) -> Option<&PortStatus> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The network of this name.
    pub fn network(&self, name: &str) -> Option<&NetworkStatus> {
        self.networks.iter().find(|network| network.name == name)
    }
}

/// One network as it runs.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// The worker it lives on.
    pub worker: usize,
    /// MAC addresses it knows now.
    pub mac_entries: usize,
}

/// One port as it runs.
#[derive(Clone, Debug, Serialize)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// The network it is on.
    pub network: Option<String>,
    /// Why it is stored but not running; `None` = it runs.
    pub not_running: Option<String>,
    /// Whether frames can pass: it runs, something is plugged in, and the cable too.
    pub link: bool,
    /// The vhost-user session, if it is such a port and runs.
    pub vhost: Option<VhostStatus>,
    /// The device's own MAC address, where we know it (TAP).
    pub mac: Option<String>,
    /// Frames, bytes and drops since the port's device was made.
    pub counters: PortCounts,
}

/// The state of a vhost-user session.
#[derive(Clone, Debug, Serialize)]
pub struct VhostStatus {
    /// `listening`, `connecting` or `connected`.
    pub state: &'static str,
    /// What ended the last connection, if it was an error.
    pub last_error: Option<String>,
    /// Connections so far.
    pub connects: u64,
    /// Negotiated virtio features, bit by number.
    pub features: u64,
    /// Queue pairs in use.
    pub queue_pairs: u16,
}

/// Counters of a port; rx = frames that enter the switch from it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PortCounts {
    /// Frames received from the port.
    pub rx_frames: u64,
    /// Bytes received from the port.
    pub rx_bytes: u64,
    /// Frames sent to the port.
    pub tx_frames: u64,
    /// Bytes sent to the port.
    pub tx_bytes: u64,
    /// Frames dropped, by reason; all reasons, in a fixed order.
    pub drops: Vec<(&'static str, u64)>,
    /// The other counters by name (GSO frames, software fallbacks, kicks, calls...), fixed order.
    pub others: Vec<(&'static str, u64)>,
}

impl PortCounts {
    /// All drops together.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|(_, count)| count).sum()
    }
}

/// Counters of a worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerStatus {
    /// Its number, from 0.
    pub worker: usize,
    /// Time spent on frames.
    pub busy: Duration,
    /// Times it woke from sleep.
    pub wakeups: u64,
    /// Bursts handled.
    pub bursts: u64,
}

/// One learnt MAC address.
#[derive(Clone, Debug, Serialize)]
pub struct FdbRow {
    /// The network's name.
    pub network: String,
    /// The port's name.
    pub port: String,
    /// The VLAN, 0 = none.
    pub vlan: u16,
    /// The address.
    pub mac: String,
    /// Time since a frame from it was last seen.
    pub age: Duration,
}

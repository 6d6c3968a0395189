//! What the running daemon reports about itself, as plain values.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use trama_gateway::report::LeaseRow;
use trama_switch::counters::{MirrorSnapshot, PortSnapshot};
use trama_switch::{DropReason, FloodKind, PortId};
use trama_vhost_net_backend::{Peer, SessionState};

use crate::apply::{DataPlane, RunningPort};

pub use crate::changes::Changes;
use crate::config::derived::running::{is_part_of, written_name};
use crate::config::model::{Config, Port};
use crate::crashes::Restarts;
use crate::export::Statuses;
use crate::gateway::{Gateway, GatewayStatus};
pub use crate::socket_status::SocketStatus;

/// A snapshot of everything that runs.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// In the configuration's order.
    pub networks: Vec<NetworkStatus>,
    /// In the configuration's order.
    pub ports: Vec<PortStatus>,
    /// By name.
    pub mirrors: Vec<MirrorStatus>,
    /// By worker number.
    pub workers: Vec<WorkerStatus>,
    /// How often one switch has followed another.
    pub restarts: Restarts,
    /// How often the configuration was changed.
    pub changes: Changes,
    /// Keys of `[daemon]` whose change waits for a restart.
    pub needs_restart: Vec<&'static str>,
    /// How exports go.
    pub(crate) exports: Statuses,
    /// Where each port is in `ports`.
    places: HashMap<String, usize>,
}

impl Status {
    /// Returns a snapshot of networks and ports alone.
    pub(crate) fn of(networks: Vec<NetworkStatus>, ports: Vec<PortStatus>) -> Status {
        let names = ports.iter().enumerate();
        let places = names.map(|(place, port)| (port.name.clone(), place)).collect();
        Status { networks, ports, places, ..Status::default() }
    }

    /// Returns the port of this name.
    pub fn port(&self, name: &str) -> Option<&PortStatus> {
        self.places.get(name).map(|place| &self.ports[*place])
    }

    /// Returns the network of this name.
    pub fn network(&self, name: &str) -> Option<&NetworkStatus> {
        self.networks.iter().find(|network| network.name == name)
    }
}

/// One network as it runs.
#[derive(Clone, Debug)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Its worker.
    pub worker: usize,
    /// The number of entries in its MAC table.
    pub mac_entries: usize,
    /// How often an address moved to another port.
    pub mac_moves: u64,
    /// Time that workers spent on its frames.
    pub busy: Duration,
    /// Its gateway, if it has one.
    pub gateway: Option<GatewayStatus>,
    /// The counters of the gateway's port.
    pub gateway_port: Option<PortCounts>,
}

/// One port as it runs.
#[derive(Clone, Debug)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// The network it is on.
    pub network: Option<String>,
    /// Why it does not run; `None` if it runs.
    pub not_running: Option<String>,
    /// What of its settings is not in force while it runs, and why.
    pub not_in_force: Option<String>,
    /// Whether it is left out for a time, because it has made the switch crash.
    pub left_out: bool,
    /// Whether frames can pass: it runs, a device or frontend is plugged in, the cable is in, and
    /// no loop blocks it.
    pub link: bool,
    /// The vhost-user session, if it is such a port and runs.
    pub vhost: Option<VhostStatus>,
    /// The socket of a stream or datagram port that runs.
    pub socket: Option<SocketStatus>,
    /// The device's own MAC address, if known (TAP).
    pub mac: Option<String>,
    /// The kinds of flooded frames of which it sends more than it may.
    pub storms: Vec<&'static str>,
    /// Why it is blocked because of a loop; `None` if it is not.
    pub loop_block: Option<String>,
    /// Its mark; 0 if it does not run.
    pub mark: u16,
    /// Frames, bytes and drops since the port's device was made.
    pub counters: PortCounts,
}

/// An address of a network that a DHCP client has, had or is offered.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The network.
    pub network: String,
    /// The gateway's row for the address.
    pub row: LeaseRow,
}

/// The state of a vhost-user session.
#[derive(Clone, Debug)]
pub struct VhostStatus {
    /// The socket.
    pub path: PathBuf,
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
    /// The process that is connected, as `pid 4711 uid 1000`.
    pub peer: Option<String>,
    /// Other processes that have connected and wait for their turn.
    pub waiting: Vec<String>,
    /// Bytes of the VMM's memory that are mapped.
    pub memory_mapped: u64,
    /// Bytes of it that the daemon was the first to touch, and so pays for.
    pub memory_populated: u64,
}

/// Counters of a port. Received frames (rx) are those that enter the switch from the port.
#[derive(Clone, Debug, Default)]
pub struct PortCounts {
    /// Frames received from the port.
    pub rx_frames: u64,
    /// Bytes received from the port.
    pub rx_bytes: u64,
    /// Frames sent to the port.
    pub tx_frames: u64,
    /// Bytes sent to the port.
    pub tx_bytes: u64,
    /// Frames dropped, for every reason, in a fixed order.
    pub drops: Vec<(&'static str, u64)>,
    /// Frames of the port that its network's gateway dropped, by reason, without zeros.
    pub gateway_drops: Vec<(String, u64)>,
    /// The other counters by name (GSO frames, software fallbacks, kicks, …), in a fixed order.
    pub others: Vec<(&'static str, u64)>,
}

impl PortCounts {
    /// Returns one of the other counters; 0 if there is none of that name.
    pub fn other(&self, name: &str) -> u64 {
        self.others.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count)
    }

    /// Returns the frames dropped for the reason of this name.
    pub fn drops_for(&self, reason: &str) -> u64 {
        self.drops.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
    }

    /// Returns the sum of all drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|(_, count)| count).sum()
    }
}

/// A mirror as it runs.
#[derive(Clone, Debug)]
pub struct MirrorStatus {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// What it has copied since the switch started, or since it was made.
    pub counters: MirrorSnapshot,
}

/// Counters of a worker.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its number, from 0.
    pub worker: usize,
    /// Time spent on frames.
    pub busy: Duration,
    /// Number of wake-ups.
    pub wakeups: u64,
    /// Bursts handled.
    pub bursts: u64,
}

/// One MAC address that is known.
#[derive(Clone, Debug)]
pub struct FdbRow {
    /// The network's name.
    pub network: String,
    /// The port's name.
    pub port: String,
    /// The VLAN; 0 if there is none.
    pub vlan: u16,
    /// The address.
    pub mac: String,
    /// Time since the last frame from the address; `None` if it belongs to the port.
    pub age: Option<Duration>,
}

impl PortStatus {
    /// Returns what is wrong with it, if anything.
    pub fn trouble(&self) -> Option<&str> {
        self.not_running.as_deref().or(self.not_in_force.as_deref())
    }
}

impl DataPlane {
    /// Returns a snapshot of what runs of `config`.
    pub(crate) fn status(&self, config: &Config, needs_restart: Vec<&'static str>) -> Status {
        let mut networks = Vec::with_capacity(config.networks.len());
        // Ports are reported as they are written, networks as they run.
        for name in config.running_names() {
            let Some(running) = self.networks.get(&name) else { continue };
            let (id, worker) = (running.id, running.worker);
            let part = |part| {
                let count = self.on_worker(worker, move |e, now| e.count_macs(id, part, now));
                count.ok().flatten()
            };
            let moves = self.on_worker(worker, move |engine, _| engine.mac_moves(id));
            let gateway = running.gateway.as_ref();
            networks.push(NetworkStatus {
                name,
                worker,
                mac_entries: (0..).map_while(part).sum(),
                mac_moves: moves.ok().flatten().unwrap_or_default(),
                busy: Duration::from_nanos(running.counters.snapshot().busy_nanos),
                gateway: gateway.map(Gateway::status),
                gateway_port: gateway.map(|gateway| counts(&gateway.counters().snapshot())),
            });
        }
        let drops = gateway_drops(&networks);
        let ports = config.all_ports().map(|port| self.port_status(&port, &drops)).collect();
        let workers = self.workers.iter().enumerate().map(|(worker, running)| {
            let counters = running.handle.counters().snapshot();
            WorkerStatus {
                worker,
                busy: Duration::from_nanos(counters.busy_nanos),
                wakeups: counters.wakeups,
                bursts: counters.bursts,
            }
        });
        let (workers, restarts) = (workers.collect(), self.crashes.restarts());
        let mirrors = self.mirrored().map(|(network, mirror, counters)| MirrorStatus {
            name: mirror.name.clone(),
            network: network.to_owned(),
            counters,
        });
        let mut mirrors: Vec<_> = mirrors.collect();
        mirrors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Status { mirrors, workers, restarts, needs_restart, ..Status::of(networks, ports) }
    }

    pub(crate) fn port_status(&self, port: &Port, gateways: &GatewayDrops<'_>) -> PortStatus {
        let running = self.ports.get(&port.name);
        let mark = running.map_or(0, |port| port.settings.mark);
        let own = (port.network.as_deref().unwrap_or_default(), u64::from(mark));
        let gateway_drops = gateways.get(&own).filter(|_| mark != 0).cloned().unwrap_or_default();
        let counters = running.map(|port| counts(&port.counters.snapshot())).unwrap_or_default();
        let vhost = running.and_then(vhost_status);
        let socket = self.socket_status(&port.name);
        let has_peer = vhost.as_ref().is_none_or(|session| session.queue_pairs > 0)
            && socket.as_ref().is_none_or(|socket| socket.peer.is_some());
        let loop_block = running.and_then(|running| self.loop_block(running.id));
        let is_plugged = has_peer && port.cable && port.network.is_some();
        let reason = self.failed.get(&port.name).map(|trouble| trouble.reason.clone());
        let (not_running, not_in_force) =
            if running.is_some() { (None, reason) } else { (reason, None) };
        PortStatus {
            name: port.name.clone(),
            network: port.network.clone(),
            not_running,
            not_in_force,
            left_out: self.crashes.left_out(&port.name).is_some(),
            link: running.is_some() && is_plugged && loop_block.is_none(),
            vhost,
            socket,
            mac: running.and_then(|running| running.mac).map(|mac| mac.to_string()),
            storms: self.storms.of(&port.name).map(FloodKind::name).collect(),
            loop_block,
            mark,
            counters: PortCounts { gateway_drops, ..counters },
        }
    }

    /// Returns the learnt addresses of a network, sorted; `None` if there is no such network.
    pub(crate) fn fdb(&self, network: &str) -> Option<Vec<FdbRow>> {
        let running = self.networks.get(network)?;
        let id = running.id;
        let entries = self.on_worker(running.worker, move |engine, now| engine.fdb(id, now));
        let mut names: HashMap<PortId, &str> =
            self.ports.iter().map(|(name, port)| (port.id, name.as_str())).collect();
        names.extend(running.gateway.as_ref().map(|gateway| (gateway.port(), "gateway")));
        let row = |(id, entry): (PortId, trama_switch::FdbEntry)| {
            Some(FdbRow {
                network: written_name(network).to_owned(),
                port: (*names.get(&id)?).to_owned(),
                vlan: entry.vlan.get(),
                mac: entry.mac.to_string(),
                age: entry.age,
            })
        };
        let mut rows: Vec<FdbRow> =
            entries.unwrap_or_default().into_iter().filter_map(row).collect();
        rows.sort_by(|a, b| (a.vlan, &a.mac).cmp(&(b.vlan, &b.mac)));
        Some(rows)
    }

    /// Forgets the learnt addresses of one network, or of all. Returns `false` if there is no such
    /// network.
    pub(crate) fn fdb_flush(&self, network: Option<&str>) -> bool {
        match network {
            Some(name) => {
                let parts = self.networks.iter().filter(|(running, _)| is_part_of(running, name));
                let flushed = parts.map(|(_, network)| {
                    let id = network.id;
                    self.on_worker(network.worker, move |e, _| e.flush_fdb(Some(id))).is_ok()
                });
                flushed.reduce(|all, one| all && one).unwrap_or(false)
            }
            None => {
                let flush = |worker| self.on_worker(worker, |engine, _| engine.flush_fdb(None));
                (0..self.workers.len()).all(|worker| flush(worker).is_ok())
            }
        }
    }
}

fn vhost_status(port: &RunningPort) -> Option<VhostStatus> {
    let session = port.session.as_ref()?;
    let status = session.status();
    Some(VhostStatus {
        path: session.path().to_owned(),
        state: match status.state {
            SessionState::Listening => "listening",
            SessionState::Connecting => "connecting",
            SessionState::Connected => "connected",
            SessionState::Unplugged => "unplugged",
            SessionState::Stopped => "stopped",
        },
        last_error: status.last_error,
        connects: status.connects,
        features: status.features,
        queue_pairs: status.queue_pairs_active,
        peer: status.peer.map(|peer| peer.to_string()),
        waiting: status.waiting.iter().map(Peer::to_string).collect(),
        memory_mapped: status.memory_mapped,
        memory_populated: status.memory_populated,
    })
}

/// What gateways have dropped of a port's frames, by the port's network and mark.
pub(crate) type GatewayDrops<'a> = HashMap<(&'a str, u64), Vec<(String, u64)>>;

fn gateway_drops(networks: &[NetworkStatus]) -> GatewayDrops<'_> {
    let mut all = GatewayDrops::new();
    for network in networks {
        for drops in network.gateway.iter().flat_map(|gateway| &gateway.counters.port_drops) {
            let of_port = all.entry((written_name(&network.name), drops.port)).or_default();
            of_port.push((drops.reason.clone(), drops.count));
        }
    }
    all
}

fn counts(counters: &PortSnapshot) -> PortCounts {
    PortCounts {
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        drops: DropReason::ALL.iter().map(|r| (r.name(), counters.dropped(*r))).collect(),
        gateway_drops: Vec::new(),
        others: vec![
            ("rx_gso_frames", counters.rx_gso_frames),
            ("tx_gso_frames", counters.tx_gso_frames),
            ("software_gso_frames", counters.software_gso_frames),
            ("software_checksum_frames", counters.software_checksum_frames),
            ("flooded_frames", counters.flooded_frames),
            ("kicks", counters.kicks),
            ("calls", counters.calls),
        ],
    }
}

//! The ports of a capture, which come and go, and the watches that see them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use trama_capture::pcapng::{Interface, Statistics, Writer};
use trama_switch::watch::{Reader, Watch, WatchId, queue};
use trama_switch::{NetworkId, PortId};

use super::Wanted;
use crate::ctl::Failure;
use crate::state::Daemon;
use crate::state::watches::{Clock, WatchedPort};

/// Bytes of the queues of a capture.
const QUEUES: usize = 4 << 20;
/// Least bytes of each.
const MIN_QUEUE: usize = 64 << 10;

/// The ports of a capture.
pub(super) struct Ports {
    daemon: Arc<Daemon>,
    pub(super) watches: Vec<Watched>,
    pub(super) seen: HashMap<PortId, Seen>,
}

/// A network that is watched.
pub(super) struct Watched {
    network: NetworkId,
    /// Until the watch is ended.
    id: Option<WatchId>,
    pub(super) queue: Reader,
    pub(super) clock: Clock,
}

/// A port that is captured, or was.
pub(super) struct Seen {
    pub(super) name: String,
    network: NetworkId,
    /// Its place among the interfaces of the file.
    pub(super) place: u32,
    pub(super) captured: u64,
    pub(super) missed: u64,
    /// What became of it, if it is gone.
    gone: Option<&'static str>,
}

impl Ports {
    pub(super) fn new(daemon: Arc<Daemon>) -> Ports {
        Ports { daemon, watches: Vec::new(), seen: HashMap::new() }
    }

    /// Watches what there is.
    ///
    /// # Errors
    /// A stated port does not run, or a network cannot be watched.
    pub(super) fn begin(
        &mut self,
        wanted: &Wanted,
        file: &mut Writer<Vec<u8>>,
    ) -> Result<(), Failure> {
        let ports = self.daemon.ports_to_watch(&wanted.targets);
        let is_missing = |name: &&String| ports.iter().all(|port| port.name != **name);
        if let Some(name) = wanted.targets.ports.iter().find(is_missing) {
            return Err(format!(
                "port {name} does not run or has no network; tramactl show says why"
            )
            .into());
        }
        let added = self.add(&ports, wanted, file);
        if added.is_err() {
            self.unwatch();
        }
        Ok(added?)
    }

    /// Adds ports that have come and ends those that are gone; returns whether the capture goes on.
    pub(super) fn follow(&mut self, wanted: &Wanted, file: &mut Writer<Vec<u8>>) -> bool {
        let ports = self.daemon.ports_to_watch(&wanted.targets);
        let there: HashSet<(PortId, NetworkId)> =
            ports.iter().map(|port| (port.id, port.network)).collect();
        for (id, seen) in &mut self.seen {
            if seen.gone.is_none() && !there.contains(&(*id, seen.network)) {
                seen.gone = Some("the port was removed or has left its network");
            }
        }
        if let Err(error) = self.add(&ports, wanted, file) {
            // The network may be going just now; the next look shows.
            tracing::debug!("capture: {error}");
        }
        !wanted.targets.are_ports() || self.seen.values().any(|seen| seen.gone.is_none())
    }

    /// Watches ports that are not watched yet.
    fn add(
        &mut self,
        ports: &[WatchedPort],
        wanted: &Wanted,
        file: &mut Writer<Vec<u8>>,
    ) -> Result<(), String> {
        let networks: HashSet<NetworkId> = ports.iter().map(|port| port.network).collect();
        let room = (QUEUES / networks.len().max(1)).max(MIN_QUEUE);
        for port in ports {
            if self.seen.contains_key(&port.id) {
                continue;
            }
            let watched = self.watches.iter().find(|it| it.network == port.network);
            match watched.and_then(|it| it.id) {
                Some(id) => self.daemon.extend_watch(port.network, id, port.id)?,
                None => self.watch(port, wanted, room)?,
            }
            let interface = Interface {
                name: port.name.as_str().into(),
                description: port.description.as_str().into(),
            };
            let place = file.interface(&interface).map_err(|error| error.to_string())?;
            let (name, network) = (port.name.clone(), port.network);
            let seen = Seen { name, network, place, captured: 0, missed: 0, gone: None };
            self.seen.insert(port.id, seen);
        }
        Ok(())
    }

    /// Watches a network, of which it sees one port at first.
    fn watch(&mut self, port: &WatchedPort, wanted: &Wanted, room: usize) -> Result<(), String> {
        let (writer, reader) =
            queue(room).map_err(|error| format!("no queue can be made: {error}"))?;
        let watch = Watch {
            ports: vec![port.id],
            received: wanted.received,
            sent: wanted.sent,
            frames: wanted.frames,
            drops: wanted.drops,
            snaplen: wanted.snaplen as usize,
            filter: wanted.filter(),
            sampling: None,
            queue: writer,
        };
        let (id, clock) = self.daemon.watch(port.network, watch)?;
        let (network, id) = (port.network, Some(id));
        self.watches.push(Watched { network, id, queue: reader, clock });
        Ok(())
    }

    /// Ends the watches; what they have seen can still be read. Returns how many frames were
    /// missed that no record has told of.
    pub(super) fn unwatch(&mut self) -> u64 {
        let mut late = 0;
        for watched in &mut self.watches {
            let Some(id) = watched.id.take() else { continue };
            for count in self.daemon.unwatch(watched.network, id) {
                if let Some(seen) = self.seen.get_mut(&count.port) {
                    late += count.missed.saturating_sub(seen.missed);
                    seen.missed = seen.missed.max(count.missed);
                }
            }
        }
        late
    }

    /// Writes what was seen of each port.
    pub(super) fn end(&self, file: &mut Writer<Vec<u8>>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut all: Vec<_> = self.seen.values().collect();
        all.sort_by_key(|seen| seen.place);
        for seen in all {
            // Memory takes what is written.
            let _ = file.statistics(&Statistics {
                interface: seen.place,
                time: now,
                captured: seen.captured,
                missed: seen.missed,
                comment: seen.gone.map(Into::into),
            });
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        // Where there is no thread to do it.
        self.unwatch();
    }
}

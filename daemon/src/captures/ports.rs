//! The ports of a capture or of the ring, which come and go, and the watches that see them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use trama_capture::pcapng::{Statistics, Writer};
use trama_frame::checksum;
use trama_switch::watch::{Reader, Record, Watch, WatchId, queue};
use trama_switch::{NetworkId, PortId};

use super::wanted::{Wanted, WatchedPort};
use crate::ctl::Failure;
use crate::state::Daemon;
use crate::state::watches::Clock;

/// Bytes of the queues of a capture.
const QUEUES: usize = 4 << 20;
/// Least bytes of each.
const MIN_QUEUE: usize = 64 << 10;

/// What is said of a port that is gone.
const GONE: &str = "the port was removed or has left its network";

/// The ports of a capture, or of the ring.
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
    pub(super) port: Arc<WatchedPort>,
    /// Its place among the interfaces of the file.
    pub(super) place: u32,
    pub(super) captured: u64,
    pub(super) missed: u64,
    /// Frames that the ring has missed.
    pub(super) missed_before: u64,
    life: Life,
}

/// Whether a port is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Watched,
    /// It was, but is not any more.
    Gone,
    /// Only the ring has frames of it: it was gone when the capture began.
    Past,
}

/// Called with each port that joins, in the order of their places.
pub(super) type Tell<'a> = &'a mut dyn FnMut(&WatchedPort);

impl Ports {
    pub(super) fn new(daemon: Arc<Daemon>) -> Ports {
        Ports { daemon, watches: Vec::new(), seen: HashMap::new() }
    }

    /// Watches what there is.
    ///
    /// # Errors
    /// A stated port does not run, or a network cannot be watched.
    pub(super) fn begin(&mut self, wanted: &Wanted, tell: Tell<'_>) -> Result<(), Failure> {
        let ports = self.daemon.ports_to_watch(&wanted.targets);
        let is_missing = |name: &&String| ports.iter().all(|port| port.name != **name);
        if let Some(name) = wanted.targets.ports.iter().find(is_missing) {
            return Err(format!(
                "port {name} does not run or has no network; tramactl show says why"
            )
            .into());
        }
        let added = self.add(ports, wanted, tell);
        if added.is_err() {
            self.unwatch();
        }
        Ok(added?)
    }

    /// Adds ports that have come and ends those that are gone; returns whether the capture goes on.
    pub(super) fn follow(&mut self, wanted: &Wanted, tell: Tell<'_>) -> bool {
        let ports = self.daemon.ports_to_watch(&wanted.targets);
        let there: HashSet<(PortId, NetworkId)> =
            ports.iter().map(|port| (port.id, port.network)).collect();
        for (id, seen) in &mut self.seen {
            if seen.life == Life::Watched && !there.contains(&(*id, seen.port.network)) {
                seen.life = Life::Gone;
            }
        }
        if let Err(error) = self.add(ports, wanted, tell) {
            // The network may be going just now; the next look shows.
            tracing::debug!("capture: {error}");
        }
        !wanted.targets.are_ports() || self.seen.values().any(|seen| seen.life == Life::Watched)
    }

    /// Watches ports that are not watched yet.
    fn add(
        &mut self,
        ports: Vec<WatchedPort>,
        wanted: &Wanted,
        tell: Tell<'_>,
    ) -> Result<(), String> {
        let networks: HashSet<NetworkId> = ports.iter().map(|port| port.network).collect();
        let room = (QUEUES / networks.len().max(1)).max(MIN_QUEUE);
        for port in ports {
            if self.seen.get(&port.id).is_some_and(|seen| seen.life == Life::Watched) {
                continue;
            }
            let watched = self.watches.iter().find(|it| it.network == port.network);
            match watched.and_then(|it| it.id) {
                Some(id) => self.daemon.extend_watch(port.network, id, port.id)?,
                None => self.watch(&port, wanted, room)?,
            }
            let port = Arc::new(port);
            let seen = self.join(&port, Life::Watched, tell);
            // It may have come back, or have changed its network.
            (seen.life, seen.port) = (Life::Watched, port);
        }
        Ok(())
    }

    /// Returns a port, which joins if it is not known.
    fn join(&mut self, port: &Arc<WatchedPort>, life: Life, tell: Tell<'_>) -> &mut Seen {
        let place = self.seen.len() as u32;
        self.seen.entry(port.id).or_insert_with(|| {
            tell(port);
            let port = Arc::clone(port);
            Seen { port, place, captured: 0, missed: 0, missed_before: 0, life }
        })
    }

    /// Returns a port of which the ring has a frame.
    pub(super) fn past(&mut self, port: &Arc<WatchedPort>, tell: Tell<'_>) -> &mut Seen {
        self.join(port, Life::Past, tell)
    }

    /// Returns the clock of a network that is watched.
    pub(super) fn clock(&self, network: NetworkId) -> Option<Clock> {
        self.watches.iter().find(|it| it.network == network).map(|it| it.clock)
    }

    /// Forgets the ports that are gone since the last look, and networks that have ended.
    pub(super) fn forget_gone(&mut self) {
        self.seen.retain(|_, seen| seen.life == Life::Watched);
        self.watches.retain(|watched| !watched.queue.is_over());
    }

    /// Watches a network, of which it sees one port at first.
    fn watch(&mut self, port: &WatchedPort, wanted: &Wanted, room: usize) -> Result<(), String> {
        let (writer, reader) =
            queue(room).map_err(|error| format!("no queue can be made: {error}"))?;
        let watch = Watch {
            ports: vec![port.id],
            frames: wanted.frames,
            dropped: wanted.dropped,
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
                missed: seen.missed + seen.missed_before,
                comment: (seen.life == Life::Gone).then(|| GONE.into()),
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

/// Fills in a checksum that is left to the receiver, if the frame is there as a whole.
pub(super) fn finish_checksum(record: &Record<'_>, bytes: &mut [u8]) {
    let mut header = record.header;
    if bytes.len() == record.len {
        checksum::complete(bytes, &mut header);
    }
}

//! What the switch has counted and learned, in memory that the keeper has too.
//!
//! The next switch goes on with the counters of each port and network by its name, and learns the
//! addresses that were known, as far as their ports are still there. Without a keeper the counters
//! are this process's own.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use trama_helper::{Entry, Rights};
use trama_switch::counters::{Lasting, NetworkCounters, PortCounters};
use trama_switch::{CounterSlab, Epoch, KeptError, MacImage, Network};

/// The keeper's key of the counters.
const COUNTERS: &str = "counters";
/// Ports and networks whose counters are kept; those beyond begin again.
const SLOTS: usize = 16_384;

/// Counters and MAC tables of which the keeper has copies.
pub(crate) struct KeptState {
    rights: Rights,
    counters: Mutex<Option<CounterSlab>>,
    /// The entries of the counters and of each network's MAC table.
    _counters: Option<Entry>,
    tables: HashMap<String, Entry>,
    /// What was learned before, by network, until the ports are there again.
    learned: HashMap<String, MacImage>,
    epoch: Epoch,
}

impl KeptState {
    /// Goes on with what an earlier switch has counted; `epoch` is that of the workers' clock.
    pub(crate) fn open(rights: &Rights, epoch: Epoch) -> KeptState {
        let (slab, entry) = match open_counters(rights) {
            Some((slab, entry)) => (Some(slab), Some(entry)),
            None => (None, None),
        };
        KeptState {
            rights: rights.clone(),
            counters: Mutex::new(slab),
            _counters: entry,
            tables: HashMap::new(),
            learned: HashMap::new(),
            epoch,
        }
    }

    fn with_counters<R>(&self, act: impl FnOnce(&mut CounterSlab) -> R) -> Option<R> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(act)
    }

    /// Returns the counters of a port.
    pub(crate) fn port(&self, name: &str) -> Lasting<PortCounters> {
        self.with_counters(|slab| slab.port(name)).flatten().unwrap_or_default()
    }

    /// Returns the counters of a network.
    pub(crate) fn network(&self, name: &str) -> Lasting<NetworkCounters> {
        self.with_counters(|slab| slab.network(name)).flatten().unwrap_or_default()
    }

    /// A port was removed.
    pub(crate) fn forget_port(&self, name: &str) {
        self.with_counters(|slab| slab.forget_port(name));
    }

    /// A network was removed.
    pub(crate) fn forget_network(&mut self, name: &str) {
        self.with_counters(|slab| slab.forget_network(name));
        self.tables.remove(name);
    }

    /// Everything that is configured was built: what is left belongs to nothing.
    pub(crate) fn settle(&self) {
        self.with_counters(CounterSlab::forget_unused);
    }

    /// Reads what was learned in a network before, and keeps what it learns from now on.
    pub(crate) fn keep_macs(&mut self, name: &str, network: &mut Network) {
        let key = format!("macs/{name}");
        if let Some(memory) = self.rights.kept_memory(&key) {
            match MacImage::read(memory) {
                Ok(image) => drop(self.learned.insert(name.to_owned(), image)),
                Err(error) => tracing::info!("network {name}: begins to learn: {error}"),
            }
        }
        if self.keeps() {
            self.put_macs(name, network.keep_macs(self.epoch));
        }
    }

    /// Whether there is a keeper, so that MAC tables belong into memory that outlives the process.
    pub(crate) fn keeps(&self) -> bool {
        self.rights.has_keeper()
    }

    /// Gives the keeper the memory of a network's MAC table.
    pub(crate) fn put_macs(&mut self, name: &str, memory: io::Result<OwnedFd>) {
        match memory.map(|memory| self.rights.keep_memory(&format!("macs/{name}"), &memory)) {
            // The old entry has the same key: dropped, it would remove the new one.
            Ok(Some(entry)) => std::mem::forget(self.tables.insert(name.to_owned(), entry)),
            Ok(None) => {}
            Err(error) => tracing::warn!("network {name}: its addresses are not kept: {error}"),
        }
    }

    /// Takes what was learned before, by network.
    pub(crate) fn take_learned(&mut self) -> HashMap<String, MacImage> {
        std::mem::take(&mut self.learned)
    }

    /// The epoch of the workers' clock.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Maps the counters of an earlier switch, or makes memory for them.
fn open_counters(rights: &Rights) -> Option<(CounterSlab, Entry)> {
    if !rights.has_keeper() {
        return None;
    }
    let open = |memory: OwnedFd| -> Result<(CounterSlab, OwnedFd), KeptError> {
        Ok((CounterSlab::open(memory.try_clone()?)?, memory))
    };
    let kept = rights.kept_memory(COUNTERS).map(open);
    let opened = match kept {
        Some(Ok(opened)) => Ok(opened),
        Some(Err(error)) => {
            tracing::info!("counters begin at zero: {error}");
            CounterSlab::create(SLOTS)
        }
        None => CounterSlab::create(SLOTS),
    };
    let warn = |error: &KeptError| tracing::warn!("counters are not kept: {error}");
    let (slab, memory) = opened.inspect_err(warn).ok()?;
    let entry = rights.keep_memory(COUNTERS, &memory)?;
    Some((slab, entry))
}

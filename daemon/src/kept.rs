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
    /// Memory of new counters that the keeper does not have yet.
    new_counters: Option<OwnedFd>,
    /// The entry of each network's MAC table.
    tables: HashMap<String, Entry>,
    /// Until the earlier switch has ended: the memory of tables, of which the keeper still has the
    /// earlier one's.
    new_tables: Option<HashMap<String, OwnedFd>>,
    epoch: Epoch,
}

impl KeptState {
    /// Goes on with what an earlier switch has counted, which may still count; `epoch` is that of
    /// the workers' clock. Nothing changes for that one until [`KeptState::settle`].
    pub(crate) fn open(rights: &Rights, epoch: Epoch) -> KeptState {
        let (slab, new_counters) = match open_counters(rights) {
            Some((slab, memory)) => (Some(slab), memory),
            None => (None, None),
        };
        KeptState {
            rights: rights.clone(),
            counters: Mutex::new(slab),
            new_counters,
            tables: HashMap::new(),
            new_tables: Some(HashMap::new()),
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
        if let Some(tables) = &mut self.new_tables {
            tables.remove(name);
        }
    }

    /// Whether a port of this name can count without a change of what an earlier switch has.
    pub(crate) fn has_port(&self, name: &str) -> bool {
        self.is_new() || self.with_counters(|slab| slab.has_port(name)).unwrap_or(true)
    }

    /// The same for a network.
    pub(crate) fn has_network(&self, name: &str) -> bool {
        self.is_new() || self.with_counters(|slab| slab.has_network(name)).unwrap_or(true)
    }

    /// Whether the counters are this switch's own.
    fn is_new(&self) -> bool {
        self.new_counters.is_some()
    }

    /// The earlier switch has ended, and what it had was built: gives the keeper what is new.
    /// Returns what was learned before, by network.
    pub(crate) fn settle(&mut self) -> HashMap<String, MacImage> {
        if let Some(memory) = self.new_counters.take() {
            // It stays, until other memory takes its place.
            std::mem::forget(self.rights.keep_memory(COUNTERS, &memory));
        }
        let mut learned = HashMap::new();
        for (name, memory) in self.new_tables.take().unwrap_or_default() {
            learned.extend(self.learned_before(&name).map(|image| (name.clone(), image)));
            self.put_macs(&name, Ok(memory));
        }
        learned
    }

    /// Everything that is configured was built: counters that are left belong to nothing.
    pub(crate) fn forget_unused(&self) {
        self.with_counters(CounterSlab::forget_unused);
    }

    /// Reads what an earlier switch had learned in a network.
    fn learned_before(&self, name: &str) -> Option<MacImage> {
        let memory = self.rights.kept_memory(&format!("macs/{name}"))?;
        let note = |error: &KeptError| tracing::info!("network {name}: begins to learn: {error}");
        MacImage::read(memory).inspect_err(note).ok()
    }

    /// Keeps what a new network learns from now on.
    pub(crate) fn keep_macs(&mut self, name: &str, network: &mut Network) {
        if self.keeps() {
            self.put_macs(name, network.keep_macs(self.epoch));
        }
    }

    /// Whether there is a keeper, so that MAC tables belong into memory that outlives the process.
    pub(crate) fn keeps(&self) -> bool {
        self.rights.has_keeper()
    }

    /// Gives the keeper the memory of a network's MAC table, once the earlier switch has ended.
    pub(crate) fn put_macs(&mut self, name: &str, memory: io::Result<OwnedFd>) {
        let memory = match memory {
            Ok(memory) => memory,
            Err(error) => {
                return tracing::warn!("network {name}: its addresses are not kept: {error}");
            }
        };
        if let Some(tables) = &mut self.new_tables {
            tables.insert(name.to_owned(), memory);
        } else if let Some(entry) = self.rights.keep_memory(&format!("macs/{name}"), &memory) {
            // The old entry has the same key: dropped, it would remove the new one.
            std::mem::forget(self.tables.insert(name.to_owned(), entry));
        }
    }

    /// The epoch of the workers' clock.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Maps the counters of an earlier switch, or makes memory for them, which is returned as well.
fn open_counters(rights: &Rights) -> Option<(CounterSlab, Option<OwnedFd>)> {
    if !rights.has_keeper() {
        return None;
    }
    match rights.kept_memory(COUNTERS).map(CounterSlab::open) {
        Some(Ok(slab)) => return Some((slab, None)),
        Some(Err(error)) => tracing::info!("counters begin at zero: {error}"),
        None => {}
    }
    let warn = |error: &KeptError| tracing::warn!("counters are not kept: {error}");
    let (slab, memory) = CounterSlab::create(SLOTS).inspect_err(warn).ok()?;
    Some((slab, Some(memory)))
}

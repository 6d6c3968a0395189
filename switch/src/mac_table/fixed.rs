//! Static entries: addresses that belong to one port, such as those of a network's gateway and of
//! the host.
//!
//! They are in the buckets like learned entries, so a look-up finds them the same way. Their tick
//! is the largest number, by which they never expire. They are not counted, so they neither take
//! room from learned addresses nor make their port the one that is evicted from. A flush of their
//! port writes them again with its new generation.

use trama_frame::{MacAddr, VlanId};

use super::bucket::Value;
use super::{MacTable, PortIndex};

/// Most static entries of a table: few enough that their buckets always have room. A network has
/// one for its gateway or for the host.
const MAX_STATIC: usize = 16;

/// An address that belongs to one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticEntry {
    /// The port.
    pub port: PortIndex,
    /// The VLAN in which the address belongs to it.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
}

impl MacTable {
    /// Replaces the static entries. The first 16 stations' addresses count, and of several entries
    /// for one address and VLAN the first.
    pub fn set_static(&mut self, entries: impl IntoIterator<Item = StaticEntry>) {
        for old in std::mem::take(&mut self.fixed) {
            if let Some(slot) = self.find(self.address(old.vlan, old.mac)) {
                self.clear(slot);
            }
        }
        for entry in entries {
            let is_taken = |known: &StaticEntry| (known.vlan, known.mac) == (entry.vlan, entry.mac);
            let is_station = self.address(entry.vlan, entry.mac).is_station();
            if self.fixed.len() < MAX_STATIC && is_station && !self.fixed.iter().any(is_taken) {
                self.fixed.push(entry);
            }
        }
        self.write_static(None);
    }

    /// Writes the static entries of `port`, or all, with their ports' current generations.
    pub(super) fn write_static(&mut self, port: Option<PortIndex>) {
        for place in 0..self.fixed.len() {
            let entry = self.fixed[place];
            if port.is_none_or(|port| port == entry.port) {
                self.write(entry);
            }
        }
    }

    /// Inserts an entry like a learned one, beyond the capacity, and then no longer counts it.
    fn write(&mut self, StaticEntry { port, vlan, mac }: StaticEntry) {
        let index = usize::from(port.0);
        self.reserve_ports(index + 1);
        let address = self.address(vlan, mac);
        if let Some(slot) = self.find(address) {
            self.clear(slot);
        }
        let generation = self.ports[index].generation;
        self.capacity += 1;
        // There is no clock here; at tick 0 only flushed entries are dead.
        self.insert(address, Value::new(port, generation, 0), 0);
        self.capacity -= 1;
        if let Some(slot) = self.find(address) {
            self.ports[index].entries -= 1;
            self.held -= 1;
            self.buckets[slot.bucket].values[slot.way] = Value::fixed(port, generation);
        }
    }
}

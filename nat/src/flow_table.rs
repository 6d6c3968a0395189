//! A table of flows that expire when they are idle, within limits.
//!
//! The flows of one switch port with the same lifetime are in one queue, ordered by last use. The
//! next to expire is at the front of a queue, so finding it, and moving a used flow to the back,
//! costs the same with one flow and with fifty thousand. The queues also give the idlest flow of a
//! port that has to make room.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::io::PortMark;

/// Most flows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of one switch port.
    pub port: usize,
    /// In total.
    pub total: usize,
}

/// No slot: the end of a queue.
const NONE: u32 = u32::MAX;

/// Flows by key. A flow's *class* selects its lifetime.
pub(crate) struct FlowTable<K, V, const CLASSES: usize> {
    lifetimes: [Duration; CLASSES],
    limits: Limits,
    numbers: HashMap<K, u32, RandomState>,
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<u32>,
    ports: HashMap<PortMark, PortFlows<CLASSES>, RandomState>,
}

struct Slot<K, V> {
    key: K,
    value: V,
    port: PortMark,
    class: usize,
    used: Duration,
    prev: u32,
    next: u32,
}

/// The flows of a switch port.
struct PortFlows<const CLASSES: usize> {
    count: usize,
    queues: [Queue; CLASSES],
}

#[derive(Clone, Copy)]
struct Queue {
    front: u32,
    back: u32,
}

impl<K: Copy + Eq + Hash, V, const CLASSES: usize> FlowTable<K, V, CLASSES> {
    /// An empty table. A flow of class n expires `lifetimes[n]` after its last use.
    pub(crate) fn new(lifetimes: [Duration; CLASSES], limits: Limits) -> Self {
        let (numbers, ports) = (HashMap::default(), HashMap::default());
        FlowTable { lifetimes, limits, numbers, slots: Vec::new(), free: Vec::new(), ports }
    }

    /// All flows: key, value, time of last use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V, Duration)> {
        self.slots.iter().flatten().map(|slot| (&slot.key, &slot.value, slot.used))
    }

    /// The number of flows.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of a flow, valid until it is removed.
    pub(crate) fn find(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// A flow by its number.
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut V> {
        self.slot_mut(number).map(|slot| &mut slot.value)
    }

    /// A flow by its number, with its key and port.
    pub(crate) fn entry_mut(&mut self, number: u32) -> Option<(&K, PortMark, &mut V)> {
        self.slot_mut(number).map(|slot| (&slot.key, slot.port, &mut slot.value))
    }

    /// The flow to evict before `port` can have another; `None` if there is room.
    ///
    /// A port at its own limit makes room itself. At the total limit, the port with the most flows
    /// does, so that no port can take another's.
    pub(crate) fn eviction_candidate(&self, port: PortMark) -> Option<u32> {
        let count = self.ports.get(&port).map_or(0, |flows| flows.count);
        if count >= self.limits.port {
            return self.idlest_of(port);
        }
        if self.len() >= self.limits.total {
            return self.idlest_of_busiest();
        }
        None
    }

    /// The idlest flow of the port with the most flows.
    pub(crate) fn idlest_of_busiest(&self) -> Option<u32> {
        let (port, _) = self.ports.iter().max_by_key(|(port, flows)| (flows.count, **port))?;
        self.idlest_of(*port)
    }

    fn idlest_of(&self, port: PortMark) -> Option<u32> {
        let fronts = self.ports.get(&port)?.queues.iter().map(|queue| queue.front);
        let used = |number: &u32| self.slot(*number).map(|slot| slot.used);
        fronts.filter(|front| *front != NONE).min_by_key(used)
    }

    /// Adds a flow that is not in the table, used now. Returns its number.
    pub(crate) fn insert(
        &mut self,
        now: Duration,
        port: PortMark,
        key: K,
        value: V,
        class: usize,
    ) -> u32 {
        let slot = Slot { key, value, port, class, used: now, prev: NONE, next: NONE };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(slot);
                number
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as u32
            }
        };
        self.numbers.insert(key, number);
        let empty = Queue { front: NONE, back: NONE };
        let flows = || PortFlows { count: 0, queues: [empty; CLASSES] };
        self.ports.entry(port).or_insert_with(flows).count += 1;
        self.append(number);
        number
    }

    /// Marks a flow as used now, and sets its class.
    pub(crate) fn touch(&mut self, now: Duration, number: u32, class: usize) {
        self.unlink(number);
        let Some(slot) = self.slot_mut(number) else { return };
        (slot.class, slot.used) = (class, now);
        self.append(number);
    }

    /// Removes a flow.
    pub(crate) fn remove(&mut self, number: u32) -> Option<(K, V)> {
        self.unlink(number);
        let slot = self.slots.get_mut(number as usize)?.take()?;
        self.numbers.remove(&slot.key);
        self.free.push(number);
        if let Some(flows) = self.ports.get_mut(&slot.port) {
            flows.count -= 1;
            if flows.count == 0 {
                self.ports.remove(&slot.port);
            }
        }
        Some((slot.key, slot.value))
    }

    /// A flow that has expired.
    pub(crate) fn expired(&self, now: Duration) -> Option<u32> {
        self.next_expiry().filter(|(end, _)| *end <= now).map(|(_, number)| number)
    }

    /// When the next flow expires.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.next_expiry().map(|(end, _)| end)
    }

    fn next_expiry(&self) -> Option<(Duration, u32)> {
        let fronts = self.ports.values().flat_map(|flows| flows.queues.iter());
        let end = |queue: &Queue| {
            let slot = self.slot(queue.front)?;
            Some((slot.used + self.lifetimes[slot.class], queue.front))
        };
        fronts.filter_map(end).min()
    }

    fn slot(&self, number: u32) -> Option<&Slot<K, V>> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// Appends a slot to its queue.
    fn append(&mut self, number: u32) {
        let Some(slot) = self.slot(number) else { return };
        let (port, class) = (slot.port, slot.class);
        let Some(flows) = self.ports.get_mut(&port) else { return };
        let queue = &mut flows.queues[class];
        let prev = std::mem::replace(&mut queue.back, number);
        if prev == NONE {
            queue.front = number;
        }
        if let Some(last) = self.slot_mut(prev) {
            last.next = number;
        }
        if let Some(slot) = self.slot_mut(number) {
            (slot.prev, slot.next) = (prev, NONE);
        }
    }

    /// Removes a slot from its queue.
    fn unlink(&mut self, number: u32) {
        let Some(slot) = self.slot(number) else { return };
        let (port, class, prev, next) = (slot.port, slot.class, slot.prev, slot.next);
        if let Some(slot) = self.slot_mut(prev) {
            slot.next = next;
        }
        if let Some(slot) = self.slot_mut(next) {
            slot.prev = prev;
        }
        let Some(flows) = self.ports.get_mut(&port) else { return };
        let queue = &mut flows.queues[class];
        if queue.front == number {
            queue.front = next;
        }
        if queue.back == number {
            queue.back = prev;
        }
    }
}

#[cfg(test)]
mod tests;

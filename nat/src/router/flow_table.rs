//! Flows that end when they have been idle for long enough, within limits.
//!
//! The flows of one switch port with the same time to live stand in a queue, the one that was used
//! last at its end. So what ends next is at the front of a queue: finding it, and moving a flow
//! that is used to the end, costs the same with one flow and with fifty thousand. The same queues
//! say which flow of a port was idle for longest when it has to make room.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::io::PortId;

/// Flows that there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of one switch port.
    pub port: usize,
    /// Of all of them.
    pub total: usize,
}

/// Stands for no slot, at the end of a queue.
const NONE: u32 = u32::MAX;

/// Flows by key. `LIVES` holds the times to live that there are; a flow's *class* is an index of it.
pub(crate) struct FlowTable<K, V, const CLASSES: usize> {
    lives: [Duration; CLASSES],
    limits: Limits,
    numbers: HashMap<K, u32, RandomState>,
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<u32>,
    ports: HashMap<PortId, Account<CLASSES>, RandomState>,
}

struct Slot<K, V> {
    key: K,
    value: V,
    port: PortId,
    class: usize,
    used: Duration,
    before: u32,
    after: u32,
}

/// What a switch port has.
struct Account<const CLASSES: usize> {
    count: usize,
    queues: [Queue; CLASSES],
}

#[derive(Clone, Copy)]
struct Queue {
    front: u32,
    back: u32,
}

impl<K: Copy + Eq + Hash, V, const CLASSES: usize> FlowTable<K, V, CLASSES> {
    /// An empty table; a flow of class n ends `lives[n]` after its last use.
    pub fn new(lives: [Duration; CLASSES], limits: Limits) -> Self {
        let (numbers, ports) = (HashMap::default(), HashMap::default());
        FlowTable { lives, limits, numbers, slots: Vec::new(), free: Vec::new(), ports }
    }

    /// All flows: key, value, and when each was used last.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V, Duration)> {
        self.slots.iter().flatten().map(|slot| (&slot.key, &slot.value, slot.used))
    }

    /// Flows in it.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of a flow, as long as it lives.
    pub fn find(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// A flow by its number.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut V> {
        self.slot_mut(number).map(|slot| &mut slot.value)
    }

    /// A flow by its number, with what it is kept by.
    pub fn entry_mut(&mut self, number: u32) -> Option<(&K, PortId, &mut V)> {
        self.slot_mut(number).map(|slot| (&slot.key, slot.port, &mut slot.value))
    }

    /// Whose flow has to end before `port` can have another; `None`: there is room.
    ///
    /// A port at its own limit has to make room itself. Where all together are at theirs, the port
    /// that has most makes room, so that no port can take another's.
    pub fn must_end(&self, port: PortId) -> Option<u32> {
        let count = self.ports.get(&port).map_or(0, |account| account.count);
        if count >= self.limits.port {
            return self.idlest_of(port);
        }
        if self.len() >= self.limits.total {
            return self.idlest_of_largest();
        }
        None
    }

    /// The flow that was idle for longest, of the port that has most.
    pub fn idlest_of_largest(&self) -> Option<u32> {
        let (port, _) = self.ports.iter().max_by_key(|(port, account)| (account.count, **port))?;
        self.idlest_of(*port)
    }

    fn idlest_of(&self, port: PortId) -> Option<u32> {
        let fronts = self.ports.get(&port)?.queues.iter().map(|queue| queue.front);
        let used = |number: &u32| self.slot(*number).map(|slot| slot.used);
        fronts.filter(|front| *front != NONE).min_by_key(used)
    }

    /// Adds a flow that is not in the table, used now; its number.
    pub fn insert(&mut self, now: Duration, port: PortId, key: K, value: V, class: usize) -> u32 {
        let slot = Slot { key, value, port, class, used: now, before: NONE, after: NONE };
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
        let account = || Account { count: 0, queues: [empty; CLASSES] };
        self.ports.entry(port).or_insert_with(account).count += 1;
        self.append(number);
        number
    }

    /// A flow was used, and is of this class from now on.
    pub fn touch(&mut self, now: Duration, number: u32, class: usize) {
        self.unlink(number);
        let Some(slot) = self.slot_mut(number) else { return };
        (slot.class, slot.used) = (class, now);
        self.append(number);
    }

    /// Takes a flow out.
    pub fn remove(&mut self, number: u32) -> Option<(K, V)> {
        self.unlink(number);
        let slot = self.slots.get_mut(number as usize)?.take()?;
        self.numbers.remove(&slot.key);
        self.free.push(number);
        if let Some(account) = self.ports.get_mut(&slot.port) {
            account.count -= 1;
            if account.count == 0 {
                self.ports.remove(&slot.port);
            }
        }
        Some((slot.key, slot.value))
    }

    /// A flow whose time has come.
    pub fn expired(&self, now: Duration) -> Option<u32> {
        self.next_end().filter(|(end, _)| *end <= now).map(|(_, number)| number)
    }

    /// When the next flow's time comes.
    pub fn deadline(&self) -> Option<Duration> {
        self.next_end().map(|(end, _)| end)
    }

    fn next_end(&self) -> Option<(Duration, u32)> {
        let fronts = self.ports.values().flat_map(|account| account.queues.iter());
        let end = |queue: &Queue| {
            let slot = self.slot(queue.front)?;
            Some((slot.used + self.lives[slot.class], queue.front))
        };
        fronts.filter_map(end).min()
    }

    fn slot(&self, number: u32) -> Option<&Slot<K, V>> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// Puts a slot at the end of its queue.
    fn append(&mut self, number: u32) {
        let Some(slot) = self.slot(number) else { return };
        let (port, class) = (slot.port, slot.class);
        let Some(account) = self.ports.get_mut(&port) else { return };
        let queue = &mut account.queues[class];
        let before = std::mem::replace(&mut queue.back, number);
        if before == NONE {
            queue.front = number;
        }
        if let Some(last) = self.slot_mut(before) {
            last.after = number;
        }
        if let Some(slot) = self.slot_mut(number) {
            (slot.before, slot.after) = (before, NONE);
        }
    }

    /// Takes a slot out of its queue.
    fn unlink(&mut self, number: u32) {
        let Some(slot) = self.slot(number) else { return };
        let (port, class, before, after) = (slot.port, slot.class, slot.before, slot.after);
        if let Some(slot) = self.slot_mut(before) {
            slot.after = after;
        }
        if let Some(slot) = self.slot_mut(after) {
            slot.before = before;
        }
        let Some(account) = self.ports.get_mut(&port) else { return };
        let queue = &mut account.queues[class];
        if queue.front == number {
            queue.front = after;
        }
        if queue.back == number {
            queue.back = before;
        }
    }
}

#[cfg(test)]
mod tests;

//! The MAC table of a network: the port on which an address was last seen, per VLAN.
//!
//! **Layout.** A key is VLAN and MAC in 64 bits, a value port, generation and age tick in 64 bits.
//! Four pairs make a bucket of one cache line. A key may be in either of two buckets, chosen by a
//! seeded hash; a look-up reads the first and, if the key is not there, the second: never more. If
//! both are full, a new entry moves others to their second buckets (cuckoo hashing); with a quarter
//! of the slots spare, a short bounded search always finds room. Guests choose MAC addresses but
//! know neither of the hash's two secrets.
//!
//! **Ageing.** Nothing sweeps the table in the background. An entry is dead when its tick is older
//! than the ageing time or its generation is not its port's current one. Dead entries are neither
//! found nor listed, and their slots are reused. So flushing a port is one increment.
//!
//! **Limits.** When the table is full, an entry of the port that holds the most is evicted (of the
//! learning port, unless another holds more): a port that learns a million addresses only ever
//! displaces its own.
//!
//! **Static entries** ([`MacTable::set_static`]) belong to one port: they do not expire, move or
//! count, and are never evicted.
//!
//! **Keeping.** The buckets can be in a memfd that a later process reads; `image` has the details.
//!
//! Only the constructor, [`MacTable::set_limits`], [`MacTable::set_static`] and
//! [`MacTable::reserve_ports`] allocate.

mod bucket;
mod fixed;
mod image;
mod moves;
mod peek;

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use foldhash::quality::FixedState;
use trama_frame::{MacAddr, VlanId};
use trama_virtqueue::{Table, prefetch};

use crate::time::Time;
pub(crate) use bucket::Address;
use bucket::{Bucket, Slot, Value, WAYS, key, vlan_of};
pub use fixed::StaticEntry;
pub(crate) use image::identity;
use image::{Head, in_this_order};
pub use image::{KeptMac, MacImage};
use moves::Moves;
pub(crate) use moves::MovingPair;

/// Used slots of a bucket in a full table, on average: three quarters keeps the search for room
/// short, at 21 bytes per entry.
const FILL_PER_BUCKET: usize = 3;
/// Small tables need enough buckets to choose from.
const MIN_BUCKETS: usize = 16;
/// Largest table: 2^24 entries, 341 MiB.
const MAX_CAPACITY: usize = 1 << 24;
/// Buckets examined for room: the new entry's two, the other buckets of the eight entries there,
/// and those of the thirty-two entries in these.
const MAX_SEARCH: usize = 2 + 2 * WAYS + 2 * WAYS * WAYS;
/// Buckets examined for an entry of the largest port before the best one found is taken.
const MAX_SWEEP: usize = 1024;
/// Buckets of a table larger than a level-2 cache of 1 MiB. Prefetching the second line costs 3 %
/// of a frame if it is in the cache, and saves 10 % with a million addresses.
const LARGE_TABLE: usize = 1 << 14;
/// Buckets read at a time to count addresses: 512 KiB, some tens of microseconds.
const BUCKETS_PER_PART: usize = 8192;
/// Ports that a table has room for before [`MacTable::reserve_ports`].
const INITIAL_PORTS: usize = 64;
/// Unit of ages, as a power of two of nanoseconds: 268 ms. 32 bits of it are 36 years.
const TICK_SHIFT: u32 = 28;
/// The tick of [`Time::ZERO`]: 78 hours, so that addresses seen by an earlier process have a tick.
const FIRST_TICK: u64 = 1 << 20;

/// Number of a port within its network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortIndex(pub u16);

/// An address and its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbEntry {
    /// The port on which it was last seen, or to which it belongs.
    pub port: PortIndex,
    /// The VLAN in which it was seen.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
    /// Time since it was last seen, to [`MacTable::TICK`]; `None` if the entry is static.
    pub age: Option<Duration>,
}

/// Result of [`MacTable::learn`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// The address was there, on this port, or belongs to it; nothing was written.
    Known,
    /// The address was there, on this port; its age was reset.
    Refreshed,
    /// The address was not there.
    New,
    /// The address was on another port.
    Moved,
    /// The address was new and the table was full: an entry of this port was evicted.
    Evicted(PortIndex),
    /// The address is zero or a group address: nothing was learned.
    Ignored,
    /// The address belongs to another port: nothing was learned.
    Foreign,
}

fn tick(now: Time) -> u32 {
    u32::try_from((now.0 >> TICK_SHIFT) + FIRST_TICK).unwrap_or(u32::MAX)
}

/// State of each port.
#[derive(Clone, Copy, Default)]
struct PortState {
    /// Learned entries with the current generation, dead by age or not.
    entries: u32,
    /// Entries with another generation are flushed.
    generation: u16,
}

/// The addresses learned in one network. The module describes the algorithm.
pub struct MacTable {
    buckets: Table<Bucket>,
    /// The head of the image that the buckets are in, if the table is kept.
    head: Option<Head>,
    ports: Vec<PortState>,
    /// Sum of the ports' `entries`.
    held: usize,
    /// The static entries.
    fixed: Vec<StaticEntry>,
    moves: Moves,
    capacity: usize,
    /// Age in ticks beyond which an entry is dead.
    max_age: u32,
    /// Where the search for an entry to evict continues.
    evict_from: usize,
    /// The variant with a second multiplication. With the fast one, a full table of equidistant
    /// addresses ran out of room in 76 of 1400 pairs of seed and distance, and up to 89 % of its
    /// entries were in their second buckets; with this one in none, and 14 %.
    hasher: FixedState,
    /// Second secret of the hash. With only one, the difference of two keys would decide whether
    /// they collide.
    secret: u64,
}

impl MacTable {
    /// Precision of ages. An entry lives at least the ageing time and at most two ticks longer.
    pub const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);

    /// Makes a table of at most `capacity` entries (1 to 2^24). Each is forgotten `aging` after it
    /// was last seen. `seed` must be unknown to the guests.
    pub fn new(capacity: usize, aging: Duration, seed: u64) -> MacTable {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let buckets = capacity.div_ceil(FILL_PER_BUCKET).max(MIN_BUCKETS);
        MacTable {
            buckets: Table::on_heap(Bucket::EMPTY, buckets),
            head: None,
            ports: vec![PortState::default(); INITIAL_PORTS],
            held: 0,
            fixed: Vec::new(),
            moves: Moves::new(),
            capacity,
            max_age: max_age(aging),
            evict_from: 0,
            // By a hasher other than `hasher`, so that the two secrets are unrelated.
            secret: FixedState::default().hash_one(seed),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Makes room for ports up to `count - 1`, so that learning on them never allocates.
    pub fn reserve_ports(&mut self, count: usize) {
        if count > self.ports.len() {
            self.ports.resize(count, PortState::default());
        }
    }

    /// Changes the limits. Entries beyond a smaller capacity are evicted as by new ones; a longer
    /// ageing time may revive entries that had just expired. With another capacity the table is no
    /// longer kept.
    pub fn set_limits(&mut self, capacity: usize, aging: Duration) {
        self.max_age = max_age(aging);
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        if capacity == self.capacity {
            return;
        }
        let count = capacity.div_ceil(FILL_PER_BUCKET).max(MIN_BUCKETS);
        let buckets = Table::on_heap(Bucket::EMPTY, count);
        let old = std::mem::replace(&mut self.buckets, buckets);
        self.head = None;
        let counted: Vec<(u64, Value)> = old
            .iter()
            .flat_map(|bucket| bucket.keys.into_iter().zip(bucket.values))
            .filter(|(key, value)| *key != 0 && self.is_counted(*value))
            .collect();
        // There is no clock here; the latest sighting is a lower bound of the time.
        let now = counted.iter().map(|(_, value)| value.tick()).max().unwrap_or(0);
        (self.capacity, self.held, self.evict_from) = (capacity, 0, 0);
        self.ports.iter_mut().for_each(|port| port.entries = 0);
        for (key, value) in counted {
            self.insert(Address { key, hash: self.hash(key) }, value, now);
        }
        self.write_static(None);
    }

    /// Returns the port on which `mac` was last seen in `vlan`, unless it has expired.
    pub fn lookup(&self, vlan: VlanId, mac: MacAddr, now: Time) -> Option<PortIndex> {
        self.lookup_at(self.address(vlan, mac), now)
    }

    /// Records that `mac` sent a frame of `vlan` from `port`. Writes nothing if that was recorded
    /// in this tick already.
    pub fn learn(&mut self, vlan: VlanId, mac: MacAddr, port: PortIndex, now: Time) -> Learned {
        self.learn_at(self.address(vlan, mac), port, now)
    }

    /// Hashes an address that will be looked up or learned, and prefetches its first line.
    #[inline]
    pub(crate) fn address(&self, vlan: VlanId, mac: MacAddr) -> Address {
        let key = key(vlan, mac);
        let hash = self.hash(key);
        prefetch(&raw const self.buckets[self.buckets_of(hash).0]);
        Address { key, hash }
    }

    /// Returns whether look-ups wait for their second line, so that [`MacTable::prefetch_second`]
    /// pays.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.buckets.len() >= LARGE_TABLE
    }

    /// Prefetches the second line of an address that is not in the first, which is cached by now.
    #[inline]
    pub(crate) fn prefetch_second(&self, Address { key, hash }: Address) {
        let (first, second) = self.buckets_of(hash);
        let is_here = self.buckets[first].way(key).is_some();
        prefetch(&raw const self.buckets[if is_here { first } else { second }]);
    }

    /// Does the same as [`MacTable::lookup`].
    #[inline(always)]
    pub(crate) fn lookup_at(&self, address: Address, now: Time) -> Option<PortIndex> {
        let value = self.value(self.find(address)?);
        self.is_live(value, tick(now)).then(|| value.port())
    }

    /// Does the same as [`MacTable::learn`].
    // Else it is called for each run, since bursts are judged in two places.
    #[inline(always)]
    pub(crate) fn learn_at(&mut self, address: Address, port: PortIndex, now: Time) -> Learned {
        let index = usize::from(port.0);
        if index >= self.ports.len() {
            self.reserve_ports(index + 1);
        }
        let tick = tick(now);
        let value = Value::new(port, self.ports[index].generation, tick);
        match self.find(address) {
            Some(slot) if self.value(slot) == value => Learned::Known,
            Some(slot) => self.update(slot, address, value, tick),
            None => self.insert(address, value, tick),
        }
    }

    /// Returns whether [`MacTable::take_moving_pair`] has something to return.
    #[inline]
    pub(crate) fn has_moving_pair(&self) -> bool {
        self.moves.has_new()
    }

    /// Returns a pair of ports between which addresses move suspiciously often, once a second.
    pub(crate) fn take_moving_pair(&mut self) -> Option<MovingPair> {
        self.moves.take()
    }

    /// Forgets a learned address.
    pub(crate) fn forget(&mut self, vlan: VlanId, mac: MacAddr) {
        if let Some(slot) = self.find(self.address(vlan, mac))
            && !self.value(slot).is_static()
        {
            self.clear(slot);
        }
    }

    /// Returns whether at `now` the time `since` is further back than the ageing time.
    pub(crate) fn is_beyond_age(&self, since: Time, now: Time) -> bool {
        tick(now).saturating_sub(tick(since)) > self.max_age
    }

    /// Forgets everything learned.
    pub fn flush(&mut self) {
        for port in 0..self.ports.len() {
            self.flush_port(PortIndex(port as u16));
        }
    }

    /// Forgets the addresses learned on `port`.
    pub fn flush_port(&mut self, port: PortIndex) {
        let Some(state) = self.ports.get(usize::from(port.0)).copied() else { return };
        if state.generation == u16::MAX {
            // Old entries of generation 0 must be gone before it comes again.
            self.clear_flushed();
        }
        self.held -= state.entries as usize;
        let generation = state.generation.wrapping_add(1);
        self.ports[usize::from(port.0)] = PortState { entries: 0, generation };
        self.keep_generation(port);
        self.write_static(Some(port));
    }

    /// Returns the number of known addresses in one part of the table, counted from part 0; `None`
    /// if there is no such part. In parts, because frames wait while the table is read.
    pub fn len_of_part(&self, part: usize, now: Time) -> Option<usize> {
        let buckets = self.buckets.chunks(BUCKETS_PER_PART).nth(part)?;
        Some(self.live(buckets, tick(now)).count())
    }

    /// Returns the known addresses, ordered by VLAN and address.
    pub fn entries(&self, now: Time) -> Vec<FdbEntry> {
        let now = tick(now);
        let entry = |(key, value): (u64, Value)| FdbEntry {
            port: value.port(),
            vlan: vlan_of(key),
            mac: MacAddr::from_u64(key),
            age: (!value.is_static()).then(|| Self::TICK * now.saturating_sub(value.tick())),
        };
        let mut entries: Vec<FdbEntry> = self.live(&self.buckets, now).map(entry).collect();
        entries.sort_unstable_by_key(|entry| (entry.vlan, entry.mac));
        entries
    }

    fn live<'a>(
        &'a self,
        buckets: &'a [Bucket],
        now: u32,
    ) -> impl Iterator<Item = (u64, Value)> + 'a {
        buckets
            .iter()
            .flat_map(|bucket| bucket.keys.into_iter().zip(bucket.values))
            .filter(move |(key, value)| *key != 0 && self.is_live(*value, now))
    }

    #[inline]
    fn hash(&self, key: u64) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(key);
        hasher.write_u64(self.secret);
        hasher.finish()
    }

    /// Returns the two buckets that may hold a key of this hash.
    #[inline]
    fn buckets_of(&self, hash: u64) -> (usize, usize) {
        let scale = |half: u64| ((half * self.buckets.len() as u64) >> 32) as usize;
        (scale(hash >> 32), scale(hash & 0xffff_ffff))
    }

    #[inline]
    fn find(&self, Address { key, hash }: Address) -> Option<Slot> {
        let (first, second) = self.buckets_of(hash);
        if let Some(way) = self.buckets[first].way(key) {
            return Some(Slot { bucket: first, way });
        }
        self.buckets[second].way(key).map(|way| Slot { bucket: second, way })
    }

    #[inline]
    fn value(&self, slot: Slot) -> Value {
        self.buckets[slot.bucket].values[slot.way]
    }

    /// Returns whether the entry counts for its port: it was learned and not flushed.
    #[inline]
    fn is_counted(&self, value: Value) -> bool {
        self.is_current(value) && !value.is_static()
    }

    /// Returns whether the entry was not flushed.
    #[inline]
    fn is_current(&self, value: Value) -> bool {
        self.ports[usize::from(value.port().0)].generation == value.generation()
    }

    #[inline]
    fn is_live(&self, value: Value, now: u32) -> bool {
        now.saturating_sub(value.tick()) <= self.max_age && self.is_current(value)
    }

    /// Replaces the value of a key in the table.
    fn update(&mut self, slot: Slot, address: Address, value: Value, now: u32) -> Learned {
        let old = self.value(slot);
        if old.is_static() {
            return if old.port() == value.port() { Learned::Known } else { Learned::Foreign };
        }
        if !self.is_current(old) {
            self.clear(slot);
            return self.insert(address, value, now);
        }
        self.buckets[slot.bucket].values[slot.way] = value;
        self.ports[usize::from(old.port().0)].entries -= 1;
        self.ports[usize::from(value.port().0)].entries += 1;
        match self.is_live(old, now) {
            true if old.port() == value.port() => Learned::Refreshed,
            true => {
                self.moves.record(address.vlan(), old.port(), value.port(), now);
                Learned::Moved
            }
            false => Learned::New,
        }
    }

    /// Adds a key that is not in the table. Group addresses and zero are never in it, so every
    /// attempt to learn one comes here; known addresses do not pay for the check.
    #[cold]
    fn insert(&mut self, address: Address, value: Value, now: u32) -> Learned {
        if !address.is_station() {
            return Learned::Ignored;
        }
        let mut evicted = None;
        if self.held >= self.capacity {
            evicted = self.make_room(value.port(), now);
        }
        let slot = self.vacate(address, now).unwrap_or_else(|| {
            let slot = self.largest_candidate(address);
            evicted = Some(self.value(slot).port());
            self.clear(slot);
            slot
        });
        let bucket = &mut self.buckets[slot.bucket];
        bucket.keys[slot.way] = 0;
        in_this_order();
        bucket.values[slot.way] = value;
        in_this_order();
        bucket.keys[slot.way] = address.key;
        self.ports[usize::from(value.port().0)].entries += 1;
        self.held += 1;
        evicted.map_or(Learned::New, Learned::Evicted)
    }

    /// Empties a slot.
    fn clear(&mut self, slot: Slot) {
        let bucket = self.buckets[slot.bucket];
        if bucket.keys[slot.way] != 0 && self.is_counted(bucket.values[slot.way]) {
            self.ports[usize::from(bucket.values[slot.way].port().0)].entries -= 1;
            self.held -= 1;
        }
        self.buckets[slot.bucket].keys[slot.way] = 0;
    }

    /// Empties the slots of flushed entries.
    fn clear_flushed(&mut self) {
        let ports = &self.ports;
        for bucket in self.buckets.iter_mut() {
            for (key, value) in bucket.keys.iter_mut().zip(bucket.values) {
                if ports[usize::from(value.port().0)].generation != value.generation() {
                    *key = 0;
                }
            }
        }
    }

    /// Makes room in a full table for an entry of `port`: removes an expired one, or else one of
    /// the port with the most entries, which is returned.
    fn make_room(&mut self, port: PortIndex, now: u32) -> Option<PortIndex> {
        let largest = self.largest(port);
        let mut best: Option<Slot> = None;
        for examined in 0..self.buckets.len() {
            if examined >= MAX_SWEEP && best.is_some() {
                break;
            }
            let bucket = self.evict_from;
            self.evict_from = (self.evict_from + 1) % self.buckets.len();
            for way in 0..WAYS {
                let slot = Slot { bucket, way };
                let value = self.value(slot);
                if self.buckets[bucket].keys[way] == 0 || !self.is_current(value) {
                    continue;
                }
                if !self.is_live(value, now) {
                    self.clear(slot);
                    return None;
                }
                if value.is_static() {
                    continue;
                }
                if value.port() == largest {
                    self.clear(slot);
                    return Some(largest);
                }
                if best.is_none_or(|best| self.entries_of_port(best) < self.entries_of_port(slot)) {
                    best = Some(slot);
                }
            }
        }
        let slot = best?;
        let port = self.value(slot).port();
        self.clear(slot);
        Some(port)
    }

    /// Returns the port that holds the most entries; `port` unless another holds more.
    fn largest(&self, port: PortIndex) -> PortIndex {
        let mut largest = usize::from(port.0);
        for (index, state) in self.ports.iter().enumerate() {
            if state.entries > self.ports[largest].entries {
                largest = index;
            }
        }
        PortIndex(largest as u16)
    }

    /// Returns the number of entries of the port of this entry.
    fn entries_of_port(&self, slot: Slot) -> u32 {
        self.ports[usize::from(self.value(slot).port().0)].entries
    }

    /// Returns the slot among an address's own whose port holds the most entries.
    fn largest_candidate(&self, address: Address) -> Slot {
        let (first, second) = self.buckets_of(address.hash);
        let ways = |bucket| (0..WAYS).map(move |way| Slot { bucket, way });
        ways(first)
            .chain(ways(second))
            .filter(|slot| !self.value(*slot).is_static())
            .max_by_key(|slot| self.entries_of_port(*slot))
            .unwrap_or(Slot { bucket: first, way: 0 })
    }

    /// Returns a free slot in one of an address's buckets, moving other entries if necessary.
    /// Searches breadth first, at most [`MAX_SEARCH`] buckets; `None` if none of them has room.
    fn vacate(&mut self, address: Address, now: u32) -> Option<Slot> {
        /// A bucket to which the entry in `way` of the bucket of step `from` may move.
        #[derive(Clone, Copy, Default)]
        struct Step {
            bucket: usize,
            from: usize,
            way: usize,
        }
        let (first, second) = self.buckets_of(address.hash);
        // Mostly one of them is free, and no search is needed.
        let is_free = |bucket| self.reusable(bucket, now);
        if let Some(slot) = is_free(first).or_else(|| is_free(second)) {
            self.clear(slot);
            return Some(slot);
        }
        let mut steps = [Step::default(); MAX_SEARCH];
        (steps[0].bucket, steps[1].bucket) = (first, second);
        let mut len = 2;
        let mut at = 0;
        while at < len {
            let bucket = steps[at].bucket;
            if let Some(mut slot) = self.reusable(bucket, now) {
                self.clear(slot);
                while at >= 2 {
                    let Step { from, way, .. } = steps[at];
                    let source = Slot { bucket: steps[from].bucket, way };
                    self.relocate(source, slot);
                    (slot, at) = (source, from);
                }
                return Some(slot);
            }
            for way in 0..WAYS {
                if len < MAX_SEARCH {
                    let (one, other) = self.buckets_of(self.hash(self.buckets[bucket].keys[way]));
                    let elsewhere = if one == bucket { other } else { one };
                    steps[len] = Step { bucket: elsewhere, from: at, way };
                    len += 1;
                }
            }
            at += 1;
        }
        None
    }

    /// Returns a slot of `bucket` without a live entry.
    fn reusable(&self, bucket: usize, now: u32) -> Option<Slot> {
        let Bucket { keys, values } = self.buckets[bucket];
        let way = (0..WAYS).find(|way| keys[*way] == 0 || !self.is_live(values[*way], now))?;
        Some(Slot { bucket, way })
    }

    /// Copies an entry to an emptied slot.
    fn relocate(&mut self, from: Slot, to: Slot) {
        let Bucket { keys, values } = self.buckets[from.bucket];
        self.buckets[to.bucket].values[to.way] = values[from.way];
        in_this_order();
        self.buckets[to.bucket].keys[to.way] = keys[from.way];
    }
}

fn max_age(aging: Duration) -> u32 {
    let ticks = aging.as_nanos().div_ceil(MacTable::TICK.as_nanos());
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

//! The MAC table of a network: which port an address was last seen on, per VLAN.
//!
//! **Layout.** A key is VLAN and MAC in 64 bits, a value port, generation and age tick in 64 bits.
//! Four pairs make a bucket of one cache line. A key may live in either of two buckets, which a
//! seeded hash chooses; a look-up reads the first and, where that lacks the key, the second:
//! never more. A newcomer that finds both full moves others to their second buckets (cuckoo
//! hashing); with a quarter of the slots spare, a short bounded search always finds the room.
//! Guests choose MAC addresses but know neither of the hash's two secrets.
//!
//! **Forgetting.** Nothing sweeps the table in the background. An entry is dead when its tick is
//! older than the ageing time or its generation is not its port's current one; the dead are not
//! found, not listed, and their slots are taken when needed. So flushing a port is one increment.
//!
//! **Limits.** When the table is full, the port that holds the most entries gives one up (the
//! learning port itself, when no other holds more): a port that learns a million addresses only
//! ever displaces its own.
//!
//! Nothing allocates but the constructor, [`MacTable::set_limits`] and
//! [`MacTable::reserve_ports`].

mod bucket;

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use foldhash::quality::FixedState;
use trama_frame::{MacAddr, VlanId};
use trama_virtqueue::{in_huge_pages, prefetch};

use crate::time::Time;
pub(crate) use bucket::Address;
use bucket::{Bucket, Slot, Value, WAYS, key};

/// Share of a bucket that a full table uses on average: three quarters keeps the search for room
/// short, at 21 bytes an entry.
const FILL: usize = 3;
/// So that few entries still have buckets to choose from.
const MIN_BUCKETS: usize = 16;
/// Largest table: 2^24 entries, 341 MiB.
const MAX_CAPACITY: usize = 1 << 24;
/// Buckets examined for a newcomer's room: its own two, their eight entries' other buckets, and
/// those of the thirty-two entries there.
const SEARCH: usize = 2 + 2 * WAYS + 2 * WAYS * WAYS;
/// Buckets examined for an entry of the largest port before the best seen is taken instead.
const SWEEP: usize = 1024;
/// Buckets of a table that leaves a level-2 cache of 1 MiB. Looking for the second line costs 3 %
/// of a frame where it is in the cache anyway, and saves 10 % with a million addresses.
const LARGE: usize = 1 << 14;
/// Buckets that are read at a time to count addresses: 512 KiB, some tens of microseconds.
const PART: usize = 8192;
/// Ports that a table knows before [`MacTable::reserve_ports`] is asked for more.
const INITIAL_PORTS: usize = 64;
/// The unit of ages, as a power of two of nanoseconds: 268 ms. 32 bits of it are 36 years.
const TICK_SHIFT: u32 = 28;

/// The number of a port within its network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortIndex(pub u16);

/// An address and where it was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbEntry {
    /// The port it was last seen on.
    pub port: PortIndex,
    /// The VLAN it was seen in.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
    /// How long ago it was last seen, to [`MacTable::TICK`].
    pub age: Duration,
}

/// What [`MacTable::learn`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// The address was there, on this port, and nothing was written.
    Known,
    /// The address was there, on this port; its age begins again.
    Refreshed,
    /// The address was not there.
    New,
    /// The address was on another port.
    Moved,
    /// The address was not there and the table was full: an entry of this port had to go.
    Evicted(PortIndex),
    /// The address, zero or a group's, is no station's: nothing was learned.
    Ignored,
}

fn tick(now: Time) -> u32 {
    u32::try_from(now.0 >> TICK_SHIFT).unwrap_or(u32::MAX)
}

/// What the table keeps of each port.
#[derive(Clone, Copy, Default)]
struct PortState {
    /// Entries with the current generation, whether or not they are too old.
    entries: u32,
    /// Entries with another generation were flushed.
    generation: u16,
}

/// The addresses learned in one network. See the module for how it works.
pub struct MacTable {
    buckets: Box<[Bucket]>,
    ports: Vec<PortState>,
    /// Sum of the ports' `entries`.
    held: usize,
    capacity: usize,
    /// Age in ticks beyond which an entry is dead.
    max_age: u32,
    /// Where the search for an entry to evict goes on.
    hand: usize,
    /// The variant with a second multiplication: with the fast one, a full table of addresses at
    /// equal distances ran out of room in 76 of 1400 pairs of seed and distance, and up to 89 % of
    /// its entries were in their second buckets; with this one in none, and 14 %.
    hasher: FixedState,
    /// Second secret of the hash: with one alone, the difference of two keys would decide whether
    /// they collide.
    secret: u64,
}

impl MacTable {
    /// The precision of ages. An entry lives at least the ageing time and at most two of these
    /// longer.
    pub const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);

    /// A table of at most `capacity` entries (1 to 2^24), each forgotten when it was not seen for
    /// `aging`. `seed` must be unknown to the guests.
    pub fn new(capacity: usize, aging: Duration, seed: u64) -> MacTable {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let buckets = capacity.div_ceil(FILL).max(MIN_BUCKETS);
        MacTable {
            buckets: in_huge_pages(Bucket::EMPTY, buckets),
            ports: vec![PortState::default(); INITIAL_PORTS],
            held: 0,
            capacity,
            max_age: max_age(aging),
            hand: 0,
            // By a hasher other than the one it serves, so that the two secrets are unrelated.
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

    /// Changes the limits. Entries beyond a smaller capacity leave as if newcomers evicted them; a
    /// longer ageing time may bring back what had just become too old.
    pub fn set_limits(&mut self, capacity: usize, aging: Duration) {
        self.max_age = max_age(aging);
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        if capacity == self.capacity {
            return;
        }
        let count = capacity.div_ceil(FILL).max(MIN_BUCKETS);
        let buckets = in_huge_pages(Bucket::EMPTY, count);
        let old = std::mem::replace(&mut self.buckets, buckets);
        let counted: Vec<(u64, Value)> = old
            .iter()
            .flat_map(|bucket| bucket.keys.into_iter().zip(bucket.values))
            .filter(|(key, value)| *key != 0 && self.is_counted(*value))
            .collect();
        // No clock here: the latest sighting is when it can be at the earliest.
        let now = counted.iter().map(|(_, value)| value.tick()).max().unwrap_or(0);
        (self.capacity, self.held, self.hand) = (capacity, 0, 0);
        self.ports.iter_mut().for_each(|port| port.entries = 0);
        for (key, value) in counted {
            self.insert(Address { key, hash: self.hash(key) }, value, now);
        }
    }

    /// The port that `mac` was last seen on in `vlan`, unless that was too long ago.
    pub fn lookup(&self, vlan: VlanId, mac: MacAddr, now: Time) -> Option<PortIndex> {
        self.lookup_at(self.address(vlan, mac), now)
    }

    /// Notes that `mac` sent a frame of `vlan` from `port`. Writes nothing when that is known and
    /// was noted in this tick.
    pub fn learn(&mut self, vlan: VlanId, mac: MacAddr, port: PortIndex, now: Time) -> Learned {
        self.learn_at(self.address(vlan, mac), port, now)
    }

    /// Hashes an address that will be looked up or learned, and asks for the line it may be in.
    #[inline]
    pub(crate) fn address(&self, vlan: VlanId, mac: MacAddr) -> Address {
        let key = key(vlan, mac);
        let hash = self.hash(key);
        prefetch(&raw const self.buckets[self.homes(hash).0]);
        Address { key, hash }
    }

    /// Whether look-ups wait for their second line, so that [`MacTable::look_ahead`] pays.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.buckets.len() >= LARGE
    }

    /// Asks for the second line of an address if it is not in the first, which is here by now.
    #[inline]
    pub(crate) fn look_ahead(&self, Address { key, hash }: Address) {
        let (first, second) = self.homes(hash);
        let is_here = self.buckets[first].way(key).is_some();
        prefetch(&raw const self.buckets[if is_here { first } else { second }]);
    }

    /// As [`MacTable::lookup`].
    #[inline]
    pub(crate) fn lookup_at(&self, address: Address, now: Time) -> Option<PortIndex> {
        let value = self.value(self.find(address)?);
        self.is_live(value, tick(now)).then(|| value.port())
    }

    /// As [`MacTable::learn`].
    #[inline]
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

    /// Whether what was so at `since` is beyond the ageing time at `now`.
    pub(crate) fn is_beyond_age(&self, since: Time, now: Time) -> bool {
        tick(now).saturating_sub(tick(since)) > self.max_age
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        for port in 0..self.ports.len() {
            self.flush_port(PortIndex(port as u16));
        }
    }

    /// Forgets what was learned on `port`.
    pub fn flush_port(&mut self, port: PortIndex) {
        let Some(state) = self.ports.get(usize::from(port.0)).copied() else { return };
        if state.generation == u16::MAX {
            // Before generation 0 comes again, its old entries must be gone.
            self.clear_flushed();
        }
        self.held -= state.entries as usize;
        let generation = state.generation.wrapping_add(1);
        self.ports[usize::from(port.0)] = PortState { entries: 0, generation };
    }

    /// How many addresses are known in one part of the table, from part 0 on; `None`: there is no
    /// such part. In parts, because frames wait while the table is read.
    pub fn len_of_part(&self, part: usize, now: Time) -> Option<usize> {
        let buckets = self.buckets.chunks(PART).nth(part)?;
        Some(self.live(buckets, tick(now)).count())
    }

    /// The known addresses, by VLAN and address.
    pub fn entries(&self, now: Time) -> Vec<FdbEntry> {
        let now = tick(now);
        let entry = |(key, value): (u64, Value)| FdbEntry {
            port: value.port(),
            vlan: VlanId::new((key >> 48) as u16 & VlanId::MAX.get()).unwrap_or(VlanId::NONE),
            mac: MacAddr::from_u64(key),
            age: Self::TICK * now.saturating_sub(value.tick()),
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

    /// The two buckets that may hold a key of this hash.
    #[inline]
    fn homes(&self, hash: u64) -> (usize, usize) {
        let scale = |half: u64| ((half * self.buckets.len() as u64) >> 32) as usize;
        (scale(hash >> 32), scale(hash & 0xffff_ffff))
    }

    #[inline]
    fn find(&self, Address { key, hash }: Address) -> Option<Slot> {
        let (first, second) = self.homes(hash);
        if let Some(way) = self.buckets[first].way(key) {
            return Some(Slot { bucket: first, way });
        }
        self.buckets[second].way(key).map(|way| Slot { bucket: second, way })
    }

    #[inline]
    fn value(&self, slot: Slot) -> Value {
        self.buckets[slot.bucket].values[slot.way]
    }

    /// Whether the entry counts for its port: it was not flushed.
    #[inline]
    fn is_counted(&self, value: Value) -> bool {
        self.ports[usize::from(value.port().0)].generation == value.generation()
    }

    #[inline]
    fn is_live(&self, value: Value, now: u32) -> bool {
        now.saturating_sub(value.tick()) <= self.max_age && self.is_counted(value)
    }

    /// Learns a key that the table has, with another value.
    fn update(&mut self, slot: Slot, address: Address, value: Value, now: u32) -> Learned {
        let old = self.value(slot);
        if !self.is_counted(old) {
            self.clear(slot);
            return self.insert(address, value, now);
        }
        self.buckets[slot.bucket].values[slot.way] = value;
        self.ports[usize::from(old.port().0)].entries -= 1;
        self.ports[usize::from(value.port().0)].entries += 1;
        match self.is_live(old, now) {
            true if old.port() == value.port() => Learned::Refreshed,
            true => Learned::Moved,
            false => Learned::New,
        }
    }

    /// Adds a key that the table has not. A table without those that are no station's makes every
    /// attempt to learn one come here, where known addresses do not pay for the check.
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
            let slot = self.largest_of_homes(address);
            evicted = Some(self.value(slot).port());
            self.clear(slot);
            slot
        });
        self.buckets[slot.bucket].keys[slot.way] = address.key;
        self.buckets[slot.bucket].values[slot.way] = value;
        self.ports[usize::from(value.port().0)].entries += 1;
        self.held += 1;
        evicted.map_or(Learned::New, Learned::Evicted)
    }

    /// Empties a slot, whatever is in it.
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
        for bucket in &mut self.buckets {
            for (key, value) in bucket.keys.iter_mut().zip(bucket.values) {
                if ports[usize::from(value.port().0)].generation != value.generation() {
                    *key = 0;
                }
            }
        }
    }

    /// Makes room in a full table for an entry of `port`: removes one that is too old, or else one
    /// of the port that holds the most, which is returned.
    fn make_room(&mut self, port: PortIndex, now: u32) -> Option<PortIndex> {
        let largest = self.largest(port);
        let mut best: Option<Slot> = None;
        for examined in 0..self.buckets.len() {
            if examined >= SWEEP && best.is_some() {
                break;
            }
            let bucket = self.hand;
            self.hand = (self.hand + 1) % self.buckets.len();
            for way in 0..WAYS {
                let slot = Slot { bucket, way };
                let value = self.value(slot);
                if self.buckets[bucket].keys[way] == 0 || !self.is_counted(value) {
                    continue;
                }
                if !self.is_live(value, now) {
                    self.clear(slot);
                    return None;
                }
                if value.port() == largest {
                    self.clear(slot);
                    return Some(largest);
                }
                if best.is_none_or(|best| self.entries_beside(best) < self.entries_beside(slot)) {
                    best = Some(slot);
                }
            }
        }
        let slot = best?;
        let port = self.value(slot).port();
        self.clear(slot);
        Some(port)
    }

    /// The port that holds the most entries; `port` unless another holds more.
    fn largest(&self, port: PortIndex) -> PortIndex {
        let mut largest = usize::from(port.0);
        for (index, state) in self.ports.iter().enumerate() {
            if state.entries > self.ports[largest].entries {
                largest = index;
            }
        }
        PortIndex(largest as u16)
    }

    /// How many entries the port of this entry holds.
    fn entries_beside(&self, slot: Slot) -> u32 {
        self.ports[usize::from(self.value(slot).port().0)].entries
    }

    /// The slot among an address's own whose port holds the most entries.
    fn largest_of_homes(&self, address: Address) -> Slot {
        let (first, second) = self.homes(address.hash);
        let ways = |bucket| (0..WAYS).map(move |way| Slot { bucket, way });
        ways(first)
            .chain(ways(second))
            .max_by_key(|slot| self.entries_beside(*slot))
            .unwrap_or(Slot { bucket: first, way: 0 })
    }

    /// A slot in one of an address's buckets, emptied by moving other entries along if it must be.
    /// Breadth first, at most [`SEARCH`] buckets; `None` if none of them has room.
    fn vacate(&mut self, address: Address, now: u32) -> Option<Slot> {
        /// A bucket to which the entry in `way` of the bucket of step `from` may move.
        #[derive(Clone, Copy, Default)]
        struct Step {
            bucket: usize,
            from: usize,
            way: usize,
        }
        let (first, second) = self.homes(address.hash);
        // Mostly one of them has, and no search has to be set up.
        let is_free = |bucket| self.reusable(bucket, now);
        if let Some(slot) = is_free(first).or_else(|| is_free(second)) {
            self.clear(slot);
            return Some(slot);
        }
        let mut steps = [Step::default(); SEARCH];
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
                if len < SEARCH {
                    let (one, other) = self.homes(self.hash(self.buckets[bucket].keys[way]));
                    let elsewhere = if one == bucket { other } else { one };
                    steps[len] = Step { bucket: elsewhere, from: at, way };
                    len += 1;
                }
            }
            at += 1;
        }
        None
    }

    /// A slot of `bucket` that holds nothing alive.
    fn reusable(&self, bucket: usize, now: u32) -> Option<Slot> {
        let Bucket { keys, values } = self.buckets[bucket];
        let way = (0..WAYS).find(|way| keys[*way] == 0 || !self.is_live(values[*way], now))?;
        Some(Slot { bucket, way })
    }

    /// Copies an entry to an emptied slot.
    fn relocate(&mut self, from: Slot, to: Slot) {
        let Bucket { keys, values } = self.buckets[from.bucket];
        self.buckets[to.bucket].keys[to.way] = keys[from.way];
        self.buckets[to.bucket].values[to.way] = values[from.way];
    }
}

fn max_age(aging: Duration) -> u32 {
    let ticks = aging.as_nanos().div_ceil(MacTable::TICK.as_nanos());
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

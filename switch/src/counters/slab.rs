//! Counters in memory that outlives the process.
//!
//! One memfd has a slot for each port and network, found by its name, so that thousands of ports
//! take one descriptor and one mapping. A slot's first word says whether it is taken and is written
//! last. So a process that is killed at any time leaves slots that are complete, or free. A counter
//! is one word: what is lost is at most the addition that was about to be stored.
//!
//! The head names the layout by the counters' names. Another version of the program with other
//! counters refuses the memory and begins with new memory, from zero.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hasher;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use siphasher::sip::SipHasher24;
use trama_virtqueue::{Lasting, LastingMemory, atomic_words};

use super::{CounterSet, NetworkCounters, PortCounters};
use crate::drop_reason::DropReason;
use crate::kept::KeptError;

/// Longest name of a port or network, in bytes.
pub const MAX_NAME: usize = 63;
const NAME_WORDS: usize = (MAX_NAME + 1) / 8;
/// Bytes of a slot: its label, and the counters of a port or network.
const SLOT: usize = size_of::<Label>() + size_of::<PortCounters>();
const _: () = assert!(size_of::<NetworkCounters>() <= size_of::<PortCounters>());
const MAGIC: u64 = u64::from_le_bytes(*b"trama-co");

atomic_words! {
    /// What is at the start of the memory.
    struct Head {
        magic: AtomicU64,
        layout: AtomicU64,
        /// Slots that have been taken at some time: those behind are untouched.
        used: AtomicU64,
    }
}

atomic_words! {
    /// What is at the start of a slot.
    struct Label {
        /// 0 if the slot is free, else a [`Kind`], and the name's length from bit 8 on.
        taken: AtomicU64,
        name: [AtomicU64; NAME_WORDS],
    }
}

/// What a slot's counters are of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Port = 1,
    Network = 2,
}

type Key = (Kind, String);

/// A slot that is taken.
struct Slot {
    index: usize,
    /// Dead when nothing in this process counts there any more.
    holder: Weak<()>,
}

/// The counters of ports and networks in one memfd, by name.
pub struct CounterSlab {
    memory: Arc<LastingMemory>,
    head: Lasting<Head>,
    taken: HashMap<Key, Slot>,
    /// Slots that were released; some may still have holders.
    free: Vec<Slot>,
}

impl CounterSlab {
    /// Makes memory for `slots` ports and networks, of which only what is used takes memory; also
    /// returns its descriptor, for the next process.
    ///
    /// # Errors
    /// The memory cannot be made.
    pub fn create(slots: usize) -> Result<(CounterSlab, OwnedFd), KeptError> {
        let (memory, file) = LastingMemory::create(size_of::<Head>() + slots * SLOT)?;
        let head = head(&memory)?;
        head.layout.store(layout(), Ordering::Relaxed);
        head.magic.store(MAGIC, Ordering::Release);
        let (taken, free) = (HashMap::new(), Vec::new());
        Ok((CounterSlab { memory, head, taken, free }, file.into()))
    }

    /// Maps what another process has made, whose counters go on.
    ///
    /// # Errors
    /// It is not such memory, or one of another version of the program.
    pub fn open(fd: OwnedFd) -> Result<CounterSlab, KeptError> {
        let memory = LastingMemory::open(&File::from(fd))?;
        let head = head(&memory)?;
        if head.magic.load(Ordering::Acquire) != MAGIC {
            return Err(KeptError::NotThis { what: "counters" });
        }
        if head.layout.load(Ordering::Relaxed) != layout() {
            return Err(KeptError::OtherLayout { what: "counters" });
        }
        let mut slab = CounterSlab { memory, head, taken: HashMap::new(), free: Vec::new() };
        for index in 0..slab.used() {
            let label = slab.label(index).ok_or(KeptError::Short { what: "counters" })?;
            let slot = Slot { index, holder: Weak::new() };
            match key_of(&label).filter(|key| !slab.taken.contains_key(key)) {
                Some(key) => drop(slab.taken.insert(key, slot)),
                None => slab.free.push(slot),
            }
        }
        Ok(slab)
    }

    /// Returns the counters of the port of this name: with the values that they had, or zero.
    /// `None` if there is no room or the name is longer than [`MAX_NAME`]. Only one port at a time
    /// may count there.
    pub fn port(&mut self, name: &str) -> Option<Lasting<PortCounters>> {
        self.counters(Kind::Port, name)
    }

    /// Returns the counters of the network of this name, as [`CounterSlab::port`] does.
    pub fn network(&mut self, name: &str) -> Option<Lasting<NetworkCounters>> {
        self.counters(Kind::Network, name)
    }

    /// Whether there are counters of a port of this name.
    pub fn has_port(&self, name: &str) -> bool {
        self.taken.contains_key(&(Kind::Port, name.to_owned()))
    }

    /// Whether there are counters of a network of this name.
    pub fn has_network(&self, name: &str) -> bool {
        self.taken.contains_key(&(Kind::Network, name.to_owned()))
    }

    /// Forgets the counters of a port that was removed. The slot is used again when nothing in this
    /// process holds its counters.
    pub fn forget_port(&mut self, name: &str) {
        self.forget((Kind::Port, name.to_owned()));
    }

    /// Forgets the counters of a network that was removed.
    pub fn forget_network(&mut self, name: &str) {
        self.forget((Kind::Network, name.to_owned()));
    }

    /// Forgets the counters that were not asked for since the memory was opened: their ports and
    /// networks are gone from the configuration.
    pub fn forget_unused(&mut self) {
        let unused = |slot: &Slot| slot.holder.strong_count() == 0;
        let keys = self.taken.iter().filter(|(_, slot)| unused(slot)).map(|(key, _)| key.clone());
        for key in keys.collect::<Vec<_>>() {
            self.forget(key);
        }
    }

    fn counters<T: CounterSet>(&mut self, kind: Kind, name: &str) -> Option<Lasting<T>> {
        let key = (kind, name.to_owned());
        let known = self.taken.get(&key).map(|slot| (slot.index, slot.holder.upgrade()));
        let index = match known {
            Some((index, _)) => index,
            None if name.len() > MAX_NAME => return None,
            None => self.vacant()?,
        };
        let holder = known.as_ref().and_then(|(_, holder)| holder.clone()).unwrap_or_default();
        let slot = Slot { index, holder: Arc::downgrade(&holder) };
        let counters: Lasting<T> = self.memory.at(offset(index) + size_of::<Label>(), holder)?;
        if known.is_none() {
            counters.reset();
            write_name(&*self.label(index)?, kind, name);
        }
        self.taken.insert(key, slot);
        Some(counters)
    }

    /// Returns a slot that nothing uses.
    fn vacant(&mut self) -> Option<usize> {
        if let Some(at) = self.free.iter().position(|slot| slot.holder.strong_count() == 0) {
            return Some(self.free.swap_remove(at).index);
        }
        let index = self.used();
        self.label(index)?;
        self.memory.at::<PortCounters>(offset(index) + size_of::<Label>(), Arc::new(()))?;
        self.head.used.store(index as u64 + 1, Ordering::Release);
        Some(index)
    }

    fn forget(&mut self, key: Key) {
        let Some(slot) = self.taken.remove(&key) else { return };
        if let Some(label) = self.label(slot.index) {
            label.taken.store(0, Ordering::Release);
        }
        self.free.push(slot);
    }

    fn used(&self) -> usize {
        usize::try_from(self.head.used.load(Ordering::Acquire)).unwrap_or(usize::MAX)
    }

    fn label(&self, index: usize) -> Option<Lasting<Label>> {
        self.memory.at(offset(index), Arc::new(()))
    }
}

fn head(memory: &Arc<LastingMemory>) -> Result<Lasting<Head>, KeptError> {
    memory.at(0, Arc::new(())).ok_or(KeptError::Short { what: "counters" })
}

/// Returns where a slot begins, in bytes.
fn offset(index: usize) -> usize {
    index.saturating_mul(SLOT).saturating_add(size_of::<Head>())
}

/// Names the layout: the counters and their order.
fn layout() -> u64 {
    // The keys are part of the format.
    let mut hasher = SipHasher24::new_with_keys(1, SLOT as u64);
    let reasons = DropReason::ALL.iter().map(|reason| reason.name());
    let fields = PortCounters::FIELDS.iter().chain(NetworkCounters::FIELDS).copied();
    for name in fields.chain(reasons) {
        hasher.write(name.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

/// Names a slot; it is taken with the last store.
fn write_name(label: &Label, kind: Kind, name: &str) {
    let mut bytes = [0; NAME_WORDS * 8];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    for (word, bytes) in label.name.iter().zip(bytes.as_chunks().0) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    label.taken.store(kind as u64 | (name.len() as u64) << 8, Ordering::Release);
}

/// Returns what a slot is of, unless it is free.
fn key_of(label: &Label) -> Option<Key> {
    let taken = label.taken.load(Ordering::Acquire);
    let kind = [Kind::Port, Kind::Network].into_iter().find(|kind| *kind as u64 == taken & 0xff)?;
    let bytes: Vec<u8> =
        label.name.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    let name = bytes.get(..usize::try_from(taken >> 8).ok()?)?;
    Some((kind, String::from_utf8(name.to_vec()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(fd: &OwnedFd) -> Result<CounterSlab, KeptError> {
        CounterSlab::open(fd.try_clone().unwrap())
    }

    #[test]
    fn the_next_process_goes_on_with_the_values() {
        let (mut slab, fd) = CounterSlab::create(5000).unwrap();
        let ports: Vec<_> = (0..5000).map(|i| slab.port(&format!("port{i}")).unwrap()).collect();
        for (i, counters) in ports.iter().enumerate() {
            counters.rx_frames.add(i as u64);
            counters.drop(DropReason::DeviceError, 1);
        }
        let before = ports[7].snapshot();
        drop((slab, ports));
        let mut slab = again(&fd).unwrap();
        let counters = slab.port("port7").unwrap();
        assert_eq!((counters.snapshot(), before.rx_frames), (before, 7));
        counters.rx_frames.add(1);
        assert_eq!(again(&fd).unwrap().port("port7").unwrap().rx_frames.get(), 8);
        assert_eq!(slab.port("port4999").unwrap().rx_frames.get(), 4999);
    }

    #[test]
    fn ports_and_networks_of_one_name_count_apart() {
        let (mut slab, fd) = CounterSlab::create(4).unwrap();
        slab.port("a").unwrap().calls.add(1);
        slab.network("a").unwrap().busy_nanos.add(2);
        let mut slab = again(&fd).unwrap();
        assert_eq!(slab.port("a").unwrap().calls.get(), 1);
        assert_eq!(slab.network("a").unwrap().busy_nanos.get(), 2);
        assert!(slab.port(&"n".repeat(MAX_NAME)).is_some());
        assert!(slab.port(&"n".repeat(MAX_NAME + 1)).is_none());
    }

    #[test]
    fn a_slot_is_used_again_when_nothing_counts_there() {
        let (mut slab, _fd) = CounterSlab::create(2).unwrap();
        // The memory is whole pages, so there is room for some more.
        let mut all: Vec<_> = (0..100).map_while(|i| slab.port(&i.to_string())).collect();
        assert!((2..100).contains(&all.len()));
        slab.forget_port("0");
        assert!(slab.port("new").is_none(), "the old one still counts");
        all[0].rx_frames.add(9);
        all.swap_remove(0);
        assert_eq!(slab.port("new").unwrap().rx_frames.get(), 0);
        assert!(slab.port("newer").is_none());
    }

    #[test]
    fn what_is_not_asked_for_is_forgotten() {
        let (mut slab, fd) = CounterSlab::create(4).unwrap();
        for name in ["a", "b"] {
            slab.port(name).unwrap().rx_frames.add(1);
        }
        let mut slab = again(&fd).unwrap();
        let held = slab.port("a").unwrap();
        slab.forget_unused();
        assert_eq!((held.rx_frames.get(), slab.port("b").unwrap().rx_frames.get()), (1, 0));
        assert_eq!(again(&fd).unwrap().port("a").unwrap().rx_frames.get(), 1);
    }

    #[test]
    fn other_memory_is_refused_with_the_reason() {
        let refusal = |fd: &OwnedFd| again(fd).err().unwrap().to_string();
        let (slab, fd) = CounterSlab::create(4).unwrap();
        slab.head.layout.fetch_add(1, Ordering::Relaxed);
        assert!(refusal(&fd).contains("another version"), "{}", refusal(&fd));
        slab.head.layout.fetch_sub(1, Ordering::Relaxed);
        slab.head.used.store(1000, Ordering::Relaxed);
        assert!(refusal(&fd).contains("too short"), "{}", refusal(&fd));
        slab.head.used.store(u64::MAX, Ordering::Relaxed);
        assert!(refusal(&fd).contains("too short"), "{}", refusal(&fd));
        slab.head.magic.store(0, Ordering::Relaxed);
        assert!(refusal(&fd).contains("not counters"), "{}", refusal(&fd));
        let file = OwnedFd::from(File::open("/dev/null").unwrap());
        assert!(again(&file).is_err());
    }
}

//! The image of a MAC table: what a later process can read of it.
//!
//! The table's own buckets are in a memfd, so learning writes nothing twice. A head before them
//! says how to read them: the time of tick 0, and for each port its identity, a hash of its name,
//! and its generation. The descriptor can only be read: another process inserts what it finds
//! plausible into a table of its own, which has its own hash, ports and clock.
//!
//! The process may have been killed at any instruction. A slot's key is written after its value, so
//! it is never read with the value of another key. An entry that was being moved may be read twice.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, compiler_fence};

use siphasher::sip::SipHasher24;
use trama_frame::{MacAddr, VlanId};
use trama_virtqueue::{TABLE_AT, Table, in_memfd};

use super::bucket::{Bucket, Value, WAYS, vlan_of};
use super::{FIRST_TICK, MacTable, PortIndex, PortState, TICK_SHIFT, tick};
use crate::kept::KeptError;
use crate::time::{Epoch, Time};
use crate::types::MAX_PORTS;

const MAGIC: u64 = u64::from_le_bytes(*b"trama-ma");
/// Changes with the format of head, keys or values.
const LAYOUT: u64 = 1;
/// Words of the head: these, then identity and generation of each port.
const MAGIC_AT: usize = 0;
const LAYOUT_AT: usize = 1;
const BUCKETS_AT: usize = 2;
const ZERO_AT: usize = 3;
const PORTS_AT: usize = 8;
const HEAD_WORDS: usize = PORTS_AT + 2 * MAX_PORTS;
/// Buckets read at a time.
const BUCKETS_PER_READ: usize = 4096;
/// Addresses of a part: some hundred microseconds to insert.
const MACS_PER_PART: usize = 4096;

/// The head of a table's image.
pub(super) type Head = Table<u64>;

/// Keeps the compiler from exchanging the stores before and after it. A process that is killed has
/// done all stores up to an instruction.
#[inline(always)]
pub(super) fn in_this_order() {
    compiler_fence(Ordering::Release);
}

/// Returns what stands for the port of this name in images; never 0.
pub(crate) fn identity(name: &str) -> u64 {
    // The keys are part of the format.
    SipHasher24::new_with_keys(2, LAYOUT).hash(name.as_bytes()).max(1)
}

/// An address that an earlier process had learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptMac {
    /// The identity of its port.
    pub(crate) port: u64,
    pub(crate) vlan: VlanId,
    pub(crate) mac: MacAddr,
    /// When it was last seen, in nanoseconds of the monotonic clock.
    pub(crate) seen: i64,
}

/// The addresses that an earlier process had learned in a network.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MacImage(Vec<KeptMac>);

impl MacImage {
    /// Reads what [`Network::keep_macs`](crate::Network::keep_macs) has kept. The process that
    /// wrote it must be gone, or have stopped.
    ///
    /// # Errors
    /// It is not such an image, or one of another version of the program.
    pub fn read(fd: OwnedFd) -> Result<MacImage, KeptError> {
        let (what, file) = ("a MAC table", File::from(fd));
        let len = file.metadata()?.len();
        if len < TABLE_AT as u64 {
            return Err(KeptError::NotThis { what });
        }
        let head = read_words(&file, 0, HEAD_WORDS)?;
        if head[MAGIC_AT] != MAGIC {
            return Err(KeptError::NotThis { what });
        }
        if head[LAYOUT_AT] != LAYOUT {
            return Err(KeptError::OtherLayout { what });
        }
        let room = (len - TABLE_AT as u64) / size_of::<Bucket>() as u64;
        let count = usize::try_from(head[BUCKETS_AT]).ok().filter(|count| *count as u64 <= room);
        let count = count.ok_or(KeptError::Short { what })?;
        let mut macs = Vec::new();
        for first in (0..count).step_by(BUCKETS_PER_READ) {
            let buckets = BUCKETS_PER_READ.min(count - first);
            let at = TABLE_AT + first * size_of::<Bucket>();
            let words = read_words(&file, at as u64, buckets * 2 * WAYS)?;
            for [keys, values] in words.as_chunks::<WAYS>().0.as_chunks::<2>().0 {
                let pairs = keys.iter().zip(values);
                macs.extend(pairs.filter_map(|(key, value)| entry(&head, *key, *value)));
            }
        }
        Ok(MacImage(macs))
    }

    /// Returns the number of addresses.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the addresses in parts, each small enough for one request to a worker.
    pub fn parts(&self) -> impl Iterator<Item = &[KeptMac]> {
        self.0.chunks(MACS_PER_PART)
    }
}

/// Returns the entry of a slot unless it is empty, static, flushed or implausible.
fn entry(head: &[u64], key: u64, value: u64) -> Option<KeptMac> {
    let value = Value::from_raw(value);
    let (vlan, mac) = (vlan_of(key), MacAddr::from_u64(key));
    let is_plausible = super::bucket::key(vlan, mac) == key && !value.is_static();
    let place = PORTS_AT + 2 * usize::from(value.port().0);
    let [port, generation] = *head.get(place..place + 2)?.as_array()?;
    let is_current = port != 0 && generation == u64::from(value.generation());
    let zero = head[ZERO_AT] as i64;
    let seen = zero.checked_add(i64::from(value.tick()) << TICK_SHIFT)?;
    (is_plausible && is_current).then_some(KeptMac { port, vlan, mac, seen })
}

fn read_words(file: &File, at: u64, count: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; count * 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect())
}

impl MacTable {
    /// Moves the table into a memfd; returns its descriptor, which can only be read.
    ///
    /// # Errors
    /// The memory cannot be made; the table stays where it is.
    pub(crate) fn keep(&mut self, epoch: Epoch) -> io::Result<OwnedFd> {
        let (mut head, mut buckets, file) =
            in_memfd(Bucket::EMPTY, self.buckets.len(), HEAD_WORDS)?;
        buckets.copy_from_slice(&self.buckets);
        head[LAYOUT_AT] = LAYOUT;
        head[BUCKETS_AT] = buckets.len() as u64;
        head[ZERO_AT] = epoch.as_nanos().wrapping_sub((FIRST_TICK << TICK_SHIFT) as i64) as u64;
        head[MAGIC_AT] = MAGIC;
        (self.head, self.buckets) = (Some(head), buckets);
        (0..self.ports.len()).for_each(|port| self.keep_generation(PortIndex(port as u16)));
        Ok(file.into())
    }

    /// Returns whether the table is in a memfd.
    pub(crate) fn is_kept(&self) -> bool {
        self.head.is_some()
    }

    /// Names the port of an index to later processes; `None` if there is none.
    pub(crate) fn set_identity(&mut self, port: PortIndex, identity: Option<u64>) {
        let Some(head) = &mut self.head else { return };
        if let Some(word) = head.get_mut(PORTS_AT + 2 * usize::from(port.0)) {
            *word = identity.unwrap_or(0);
        }
    }

    /// Tells later processes a port's current generation.
    pub(super) fn keep_generation(&mut self, port: PortIndex) {
        let Some(head) = &mut self.head else { return };
        let word = head.get_mut(PORTS_AT + 2 * usize::from(port.0) + 1);
        if let (Some(word), Some(state)) = (word, self.ports.get(usize::from(port.0))) {
            let PortState { generation, .. } = *state;
            *word = u64::from(generation);
        }
    }

    /// Learns an address of an earlier process on a port of this one. Returns whether it was
    /// learned: it is not if it is known, too old, from the future, or if the table is full.
    pub(crate) fn import(
        &mut self,
        kept: &KeptMac,
        port: PortIndex,
        epoch: Epoch,
        now: Time,
    ) -> bool {
        let clock = epoch.as_nanos().saturating_add_unsigned(now.0);
        let age = clock.checked_sub(kept.seen).and_then(|age| u64::try_from(age).ok());
        let ticks = age.and_then(|age| u32::try_from(age >> TICK_SHIFT).ok());
        let Some(ticks) = ticks.filter(|ticks| *ticks <= self.max_age) else { return false };
        let Some(state) = self.ports.get(usize::from(port.0)) else { return false };
        let now = tick(now);
        let value = Value::new(port, state.generation, now.saturating_sub(ticks));
        let address = self.address(kept.vlan, kept.mac);
        if self.held >= self.capacity || self.find(address).is_some() {
            return false;
        }
        self.insert(address, value, now) == super::Learned::New
    }
}

#[cfg(test)]
mod tests;

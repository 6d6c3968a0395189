//! Counters with one writer each: the worker.
//!
//! Only the worker adds, with a relaxed load and a relaxed store: no locked instruction, and a
//! burst adds once per counter. Any thread may read at any time. Each value is exact, but a
//! snapshot is not taken at one instant. The structures fill whole 128-byte blocks (a pair of cache
//! lines, as the prefetcher fetches them), so that readers and adjacent counters never share a line
//! with the worker's own state.
//!
//! Counters are on the heap, or in a [`CounterSlab`], where the next process finds them.

mod slab;

pub use trama_virtqueue::{Counter, Lasting};
use trama_virtqueue::{Words, atomic_words};

use crate::drop_reason::DropReason;
pub use slab::{CounterSlab, MAX_NAME};

/// A structure of counters.
trait CounterSet: Words {
    /// The names of its fields, in their order in memory.
    const FIELDS: &[&str];

    /// Sets every counter to zero.
    fn reset(&self);
}

/// Declares a structure of counters and the plain structure of its snapshot.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident / $(#[$snapshot_doc:meta])* $snapshot:ident {
        $($(#[$field_doc:meta])* $field:ident,)*
    } $({ $(#[$array_doc:meta])* $array:ident: [$len:expr] })?) => {
        atomic_words! {
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: Counter,)*
                $($(#[$array_doc])* pub $array: [Counter; $len],)?
            }
        }

        $(#[$snapshot_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $snapshot {
            $($(#[$field_doc])* pub $field: u64,)*
            $($(#[$array_doc])* pub $array: [u64; $len],)?
        }

        // Not derived: the standard library has it for short arrays only.
        impl Default for $name {
            fn default() -> $name {
                $name {
                    $($field: Counter::default(),)*
                    $($array: std::array::from_fn(|_| Counter::default()),)?
                }
            }
        }

        impl Default for $snapshot {
            fn default() -> $snapshot {
                $snapshot { $($field: 0,)* $($array: [0; $len],)? }
            }
        }

        impl $name {
            /// Returns the current values.
            pub fn snapshot(&self) -> $snapshot {
                $snapshot {
                    $($field: self.$field.get(),)*
                    $($array: std::array::from_fn(|i| self.$array[i].get()),)?
                }
            }
        }

        impl CounterSet for $name {
            const FIELDS: &[&str] = &[$(stringify!($field),)* $(stringify!($array),)?];

            fn reset(&self) {
                $(self.$field.reset();)*
                $(self.$array.iter().for_each(Counter::reset);)?
            }
        }
    };
}

counters! {
    /// Traffic of a port. "Rx" entered the switch from the port, "tx" left through it. Bytes are
    /// those of the Ethernet frame, without the virtio-net header.
    PortCounters /
    /// The values of [`PortCounters`] at one time.
    PortSnapshot {
        /// Frames that the port sent into the switch and that were forwarded or flooded.
        rx_frames,
        /// Their bytes.
        rx_bytes,
        /// Frames delivered to the port.
        tx_frames,
        /// Their bytes.
        tx_bytes,
        /// Frames received from the port that were larger than the MTU, to be segmented later.
        rx_gso_frames,
        /// Frames delivered to the port that were larger than the MTU.
        tx_gso_frames,
        /// Frames segmented in software because the port did not negotiate the offload.
        software_gso_frames,
        /// Frames whose checksum was completed in software for the port.
        software_checksum_frames,
        /// Frames from the port that went to every other member of their VLAN.
        flooded_frames,
        /// Times the port's driver woke the switch.
        kicks,
        /// Times the switch woke the port's driver.
        calls,
    } {
        /// Dropped frames by [`DropReason`].
        drops: [DropReason::COUNT]
    }
}

impl PortCounters {
    /// Adds `n` frames dropped for `reason`.
    #[inline]
    pub fn drop(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }
}

impl PortSnapshot {
    /// Returns the number of frames dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Returns the number of frames dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }
}

counters! {
    /// Use of a worker's time.
    WorkerCounters /
    /// The values of [`WorkerCounters`] at one time.
    WorkerSnapshot {
        /// Nanoseconds spent in rounds that moved frames; rounds that found none do not count.
        busy_nanos,
        /// Times the worker woke from sleep.
        wakeups,
        /// Bursts taken from ports.
        bursts,
    }
}

counters! {
    /// What a mirror copied.
    MirrorCounters /
    /// The values of [`MirrorCounters`] at one time.
    MirrorSnapshot {
        /// Copies that its output took.
        frames,
        /// Bytes of the copied frames, as long as they entered, or as they were cut.
        bytes,
        /// Frames that its output did not take.
        lost,
    }
}

counters! {
    /// Time that a network took on its workers.
    NetworkCounters /
    /// The values of [`NetworkCounters`] at one time.
    NetworkSnapshot {
        /// Nanoseconds spent in rounds that moved its frames.
        busy_nanos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_what_was_added() {
        let counters = PortCounters::default();
        counters.rx_frames.add(3);
        counters.rx_frames.add(4);
        counters.tx_bytes.add(1500);
        counters.drop(DropReason::Runt, 2);
        counters.drop(DropReason::DeviceError, 1);
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.rx_frames, snapshot.tx_bytes, snapshot.rx_bytes), (7, 1500, 0));
        assert_eq!(snapshot.dropped(DropReason::Runt), 2);
        assert_eq!(snapshot.dropped(DropReason::Hairpin), 0);
        assert_eq!(snapshot.dropped_total(), 3);
    }

    #[test]
    fn no_two_structures_share_a_cache_line() {
        assert_eq!(align_of::<PortCounters>(), 128);
        assert_eq!(size_of::<PortCounters>() % 128, 0);
        assert_eq!(size_of::<WorkerCounters>() % 128, 0);
    }

    #[test]
    fn one_writer_and_many_readers_agree_in_the_end() {
        let counters = WorkerCounters::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..10_000).for_each(|_| counters.bursts.add(1)));
            scope.spawn(|| {
                let mut last = 0;
                for _ in 0..10_000 {
                    let now = counters.bursts.get();
                    assert!(now >= last, "a counter went back");
                    last = now;
                }
            });
        });
        assert_eq!(counters.snapshot().bursts, 10_000);
    }
}

//! Device side of a split virtqueue, in bursts.
//!
//! [`DeviceRing`] is what both directions share: the ring's indices, the cached available index
//! (loaded again only when it runs out), the cached region of the last address, and the
//! notification protocol. [`TxQueue`] reads frames into a [`TxBurst`], [`RxQueue`] writes frames. A
//! ring whose driver broke its rules stays broken until it is set up again.

mod burst;
mod chain;
mod head;
mod rx;
mod tx;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

pub use burst::TxBurst;
pub use head::{Head, NewStart};
pub use rx::RxQueue;
pub use tx::TxQueue;
pub use writes::{Logged, Unlogged, Writes};

use crate::copy::{prefetch, prefetch_write};
use crate::error::RingError;
use crate::memory::{GuestMemory, Window};
use crate::ring::{
    DESC_PER_LINE, Index, NO_NOTIFICATION, RawRing, RingSetup, USED_ELEMENT, USED_HEAD,
    USED_PER_LINE, passed,
};

/// State common to both directions.
struct DeviceRing<W> {
    /// Only the driver side calls `RawRing::write_desc`.
    // spec: virtio table-not-written
    raw: RawRing,
    /// Available index to take next.
    next: Index,
    /// `avail.idx` when last read.
    seen: Index,
    /// Used index to write next; visible to the driver at the next publish.
    used: Index,
    /// Used index visible to the driver.
    published: Index,
    /// The driver has had its first notification decision. What an earlier device did is unknown,
    /// so the first decision under EVENT_IDX is always a call.
    decided: bool,
    /// Whether kicks are wanted.
    armed: bool,
    broken: Option<RingError>,
    /// The region of the last guest address.
    window: Window,
    setup: RingSetup,
    /// What becomes of the writes to guest memory.
    writes: W,
}

// SAFETY: the pointers are into memory that `setup.memory` keeps mapped, whose access is by atomics
// and copies; a ring has one owner at a time.
unsafe impl<W: Send> Send for DeviceRing<W> {}

impl<W: Writes> DeviceRing<W> {
    fn new(setup: RingSetup) -> Result<DeviceRing<W>, RingError> {
        let start = Index::new(setup.next);
        Ok(DeviceRing {
            raw: RawRing::resolve(&setup)?,
            next: start,
            seen: start,
            used: start,
            published: start,
            decided: false,
            armed: true,
            broken: None,
            window: Window::EMPTY,
            writes: W::of(&setup)?,
            setup,
        })
    }

    /// Continues from the used index in memory. What the driver was told meanwhile is unknown.
    fn catch_up(&mut self) {
        let at = Index::new(self.raw.used_idx());
        (self.next, self.seen, self.used, self.published) = (at, at, at, at);
        (self.decided, self.armed) = (false, true);
        self.writes.mark_used_ring(&self.setup);
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingError> {
        let setup = RingSetup { memory, ..self.setup.clone() };
        let raw = RawRing::resolve(&setup)?;
        self.writes.check(&setup.memory)?;
        self.raw = raw;
        self.setup = setup;
        self.window = Window::EMPTY;
        Ok(())
    }

    /// Returns the number of waiting chains, by the index last read.
    #[inline(always)]
    fn waiting(&self) -> u16 {
        self.seen.since(self.next)
    }

    /// Reads the available index; returns the number of waiting chains.
    #[inline(always)]
    fn refresh_avail(&mut self) -> Result<u16, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let seen = Index::new(self.raw.avail_idx());
        let waiting = seen.since(self.next);
        // Checked after the load, which itself may have hit the lost memory.
        if self.setup.memory.is_lost() {
            return Err(self.mark_broken(RingError::MemoryLost));
        }
        if self.writes.is_lost() {
            return Err(self.mark_broken(RingError::LogLost));
        }
        if waiting > self.raw.size() {
            return Err(self.mark_broken(RingError::AvailJump));
        }
        self.seen = seen;
        Ok(waiting)
    }

    /// Marks the ring broken for good. Where memory is lost, other errors read from it do not
    /// count.
    #[cold]
    fn mark_broken(&mut self, error: RingError) -> RingError {
        let lost = self.setup.memory.is_lost();
        let error = if lost { RingError::MemoryLost } else { error };
        self.broken = Some(error);
        // Nothing waits on a broken ring; the next look for more finds the error.
        self.seen = self.next;
        error
    }

    /// Prefetches the lines of the next `count` used elements for writing.
    #[inline(always)]
    fn prefetch_used(&self, count: u16) {
        let used = self.used.get();
        for line in (0..count).step_by(USED_PER_LINE) {
            prefetch_write(self.raw.used_at(used.wrapping_add(line)));
        }
    }

    /// Prefetches the descriptors of the next `count` waiting chains. Drivers mostly use adjacent
    /// descriptors in turn, so one in each line is enough. No other decision depends on these
    /// reads.
    #[inline(always)]
    fn prefetch_descriptors(&self, count: u16) {
        let next = self.next.get();
        for line in (0..count.min(self.waiting())).step_by(DESC_PER_LINE) {
            prefetch(self.raw.desc_at(self.raw.read_head(next.wrapping_add(line))));
        }
    }

    /// Returns the checked head at available index `index`.
    #[inline(always)]
    fn head(&mut self, index: u16) -> Result<u16, RingError> {
        let head = self.raw.read_head(index);
        if head >= self.raw.size() {
            return Err(self.mark_broken(RingError::HeadOutOfRange));
        }
        Ok(head)
    }

    /// Returns the pointer to a guest buffer that lies in one region.
    #[inline(always)]
    fn translate(&mut self, address: u64, len: u32) -> Option<*mut u8> {
        self.window.range(address, len).or_else(|| self.translate_in_new_window(address, len))
    }

    /// Does the same as `translate` for an address outside the last region.
    #[cold]
    fn translate_in_new_window(&mut self, address: u64, len: u32) -> Option<*mut u8> {
        self.window = self.setup.memory.guest_window(address)?;
        self.window.range(address, len)
    }

    /// Makes completions visible and returns whether the driver wants a call.
    fn publish(&mut self) -> bool {
        if self.used == self.published {
            return false;
        }
        self.writes.mark_data();
        // spec: virtio len-before-idx data-before-idx
        self.raw.set_used_idx(self.used.get());
        if W::MARKS {
            self.mark_used(self.published, self.used.since(self.published));
        }
        let old = std::mem::replace(&mut self.published, self.used);
        // The driver stores its event index and then reads the used index; the device does the
        // reverse. The fence ensures that one of the two sees the other's store.
        fence(Ordering::SeqCst);
        if self.setup.features.event_idx {
            // spec: virtio event-flag-ignored event-call event-no-call
            let first = !std::mem::replace(&mut self.decided, true);
            first || passed(self.raw.used_event(), self.used.get(), old.get())
        } else {
            // spec: virtio flag-event-ignored flag-no-call flag-call
            self.raw.avail_flags() & NO_NOTIFICATION == 0
        }
    }

    /// Declares that no kicks are wanted.
    fn disarm(&mut self) {
        if !std::mem::replace(&mut self.armed, false) {
            return;
        }
        // spec: virtio kick-flag-values kick-flag-zero
        if self.setup.features.event_idx {
            // An index that was passed already is passed again only after 65536 more chains.
            self.raw.set_avail_event(self.next.get().wrapping_sub(1));
            self.raw.set_used_flags(0);
        } else {
            self.raw.set_used_flags(NO_NOTIFICATION);
        }
        self.mark_notification();
    }

    /// Marks the fields by which kicks are requested.
    #[inline(always)]
    fn mark_notification(&self) {
        self.writes.mark_used(0, USED_HEAD);
        if self.setup.features.event_idx {
            self.writes.mark_used(self.raw.used_end(), size_of::<u16>());
        }
    }

    /// Marks the used index, and `count` used elements from `first` on.
    fn mark_used(&self, first: Index, count: u16) {
        let size = self.raw.size();
        let start = first.get() & (size - 1);
        let to_end = count.min(size - start);
        self.writes.mark_used(0, USED_HEAD);
        for (start, count) in [(start, to_end), (0, (count - to_end).min(start))] {
            if count > 0 {
                let at = USED_HEAD + USED_ELEMENT * usize::from(start);
                self.writes.mark_used(at, USED_ELEMENT * usize::from(count));
            }
        }
    }

    /// Requests a kick for the next chain. Returns `true` if that chain is there already, or if the
    /// ring is broken, which the next fetch reports.
    fn arm(&mut self) -> bool {
        self.armed = true;
        if self.setup.features.event_idx {
            self.raw.set_avail_event(self.next.get());
        }
        self.raw.set_used_flags(0);
        self.mark_notification();
        // As in `publish`: the store comes before the load.
        fence(Ordering::SeqCst);
        !matches!(self.refresh_avail(), Ok(0))
    }
}

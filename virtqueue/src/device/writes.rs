//! What a ring's device does about its writes to guest memory: nothing, or mark them in a log.
//!
//! Each queue is compiled for both. Without a log all of this is empty.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::dirty_log::{DirtyLog, Pages};
use crate::error::RingError;
use crate::memory::GuestMemory;
use crate::ring::{RingSetup, part_sizes};

/// What becomes of the device's writes: [`Unlogged`] or [`Logged`].
pub trait Writes: sealed::Writes {}

impl<T: sealed::Writes> Writes for T {}

pub(super) mod sealed {
    use super::{GuestMemory, RingError, RingSetup};

    /// What a queue tells of its writes.
    pub trait Writes: Sized + Send {
        /// Whether writes are marked at all.
        const MARKS: bool;

        /// Makes one for a ring.
        fn of(setup: &RingSetup) -> Result<Self, RingError>;

        /// Checks that a new memory map has its bits too.
        fn check(&self, memory: &GuestMemory) -> Result<(), RingError>;

        /// Notes that `len` bytes at `at`, in one region of the memory, were written.
        fn data(&mut self, memory: &GuestMemory, at: *const u8, len: usize);

        /// Marks all data noted. To be called before it is published.
        fn mark_data(&mut self);

        /// Marks a part of the used ring that was just written.
        fn mark_used(&self, offset: usize, len: usize);

        /// Marks the whole used ring: another process, or one without a log, may have left parts
        /// unmarked.
        fn mark_used_ring(&self, setup: &RingSetup);

        /// Returns whether the marks reach no frontend any more.
        fn is_lost(&self) -> bool;
    }
}

/// Writes are not logged.
pub struct Unlogged;

impl sealed::Writes for Unlogged {
    const MARKS: bool = false;

    fn of(_: &RingSetup) -> Result<Unlogged, RingError> {
        Ok(Unlogged)
    }

    fn check(&self, _: &GuestMemory) -> Result<(), RingError> {
        Ok(())
    }

    #[inline(always)]
    fn data(&mut self, _: &GuestMemory, _: *const u8, _: usize) {}

    #[inline(always)]
    fn mark_data(&mut self) {}

    #[inline(always)]
    fn mark_used(&self, _: usize, _: usize) {}

    #[inline(always)]
    fn mark_used_ring(&self, _: &RingSetup) {}

    #[inline(always)]
    fn is_lost(&self) -> bool {
        false
    }
}

/// Ranges of pages noted before they are marked; more are marked at once. A burst of small frames
/// in buffers of their own fills no more than this.
const NOTED: usize = 128;

/// Writes are marked in the log of the ring's set-up, in the order that `dirty_log.rs` explains.
pub struct Logged {
    log: Arc<DirtyLog>,
    /// The used ring's address in the log.
    used: u64,
    /// Pages of data that are not marked yet.
    noted: Vec<Pages>,
}

impl sealed::Writes for Logged {
    const MARKS: bool = true;

    fn of(setup: &RingSetup) -> Result<Logged, RingError> {
        let at = setup.log.as_ref().ok_or(RingError::NoLog)?;
        let [_, _, used_len] = part_sizes(setup.size, setup.features.event_idx);
        let used = match at.used {
            Some(address) => address,
            // A frontend that does not ask for marks of the used ring needs them all the same:
            // without the index its guest would take up the ring at an old one.
            None => setup
                .memory
                .user_range(setup.used, used_len)
                .and_then(|at| setup.memory.guest_address(at))
                .ok_or(RingError::RingAddress(setup.used))?,
        };
        if !at.log.covers(used, used_len.into()) {
            return Err(RingError::LogAddress(used));
        }
        let logged = Logged { log: at.log.clone(), used, noted: Vec::with_capacity(NOTED) };
        logged.check(&setup.memory)?;
        logged.mark_used_ring(setup);
        Ok(logged)
    }

    fn check(&self, memory: &GuestMemory) -> Result<(), RingError> {
        self.log.check(memory).map_err(|_| RingError::LogTooSmall)
    }

    #[inline]
    fn data(&mut self, memory: &GuestMemory, at: *const u8, len: usize) {
        if len == 0 {
            return;
        }
        // Always `Some`: the device writes to its memory only.
        let Some(address) = memory.guest_address(at) else { return };
        let pages = Pages::of(address, len as u64);
        if self.noted.last_mut().is_some_and(|last| last.extend(pages)) {
            return;
        }
        if self.noted.len() == NOTED {
            self.mark_data();
        }
        self.noted.push(pages);
    }

    fn mark_data(&mut self) {
        if self.noted.is_empty() {
            return;
        }
        // The data is visible to the frontend before the loads of its marks.
        fence(Ordering::SeqCst);
        self.noted.drain(..).for_each(|pages| self.log.mark_fenced(pages));
    }

    fn mark_used(&self, offset: usize, len: usize) {
        self.log.mark(Pages::of(self.used + offset as u64, len as u64));
    }

    fn mark_used_ring(&self, setup: &RingSetup) {
        let [_, _, len] = part_sizes(setup.size, setup.features.event_idx);
        self.mark_used(0, len as usize);
    }

    #[inline]
    fn is_lost(&self) -> bool {
        self.log.is_lost()
    }
}

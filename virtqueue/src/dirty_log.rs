//! The dirty log of a live migration: a bit for each page of guest memory that the device wrote.
//!
//! A frontend that migrates its guest copies the memory while the guest runs, and copies again what
//! was written meanwhile. It sees the guest's own writes, but not the device's. So it shares a log
//! (vhost-user SET_LOG_BASE), in which page `n` of 4096 bytes is bit `n % 8` of byte `n / 8`. The
//! device sets bits; the frontend *harvests*: it exchanges a word of the log for zero, then copies
//! the pages whose bits were set. After the rings have stopped it harvests once more.
//!
//! # Order
//!
//! A page must be harvested after its last write. The device runs at the same time, so the order of
//! its accesses decides. For the frames of a burst it is:
//!
//! ```text
//!  1  data      headers and frames, into receive buffers
//!  2  fence     sequentially consistent
//!  3  marks     of those pages: load the byte; fetch_or only if the bit is clear
//!  4  index     used.idx, which publishes the buffers
//!  5  marks     of the used ring's pages: fetch_or
//! ```
//!
//! - 1 before 3: a bit that is set first can be harvested, and the page copied, before the data is
//!   there. No later bit tells of the data.
//! - 2 between 1 and 3: most pages are marked already, and their bits are only loaded. Processors
//!   execute a load before an earlier store is visible to others (on x86 the store waits in its
//!   buffer). Without the fence the load may find the bit of an earlier frame, then the frontend
//!   harvests it and copies the old page, and the data becomes visible last. With the fence, data
//!   that is not in the copy was not visible when the page was copied, so the load came after the
//!   harvest and finds the bit clear; the page is marked again.
//! - 3 before 4: a process that is killed in between has published no buffer without its marks. The
//!   driver does not look at buffers that are not published, and the next process fills them.
//! - 4 before 5, and `fetch_or` without the load: an atomic read-modify-write with release order
//!   keeps earlier stores before it, so each harvest that takes the bit sees the index. It costs
//!   one of them for each page of used elements a burst, where a second fence would cost as much.
//!   A process killed between 4 and 5 leaves an index without its mark; therefore a ring marks its
//!   whole used ring when it starts with a log, which is also when logging begins.
//!
//! `used.flags` and `avail_event` are written outside of bursts and marked as in 5.
//!
//! The frontend may take its log away, as it may its memory ([`crate::sigbus`]). Bits are then set
//! in zero pages that no frontend harvests, the ring breaks with [`RingError::LogLost`] at its next
//! look, and the connection ends: a frontend that loses its backend does not finish its migration
//! with pages missing, as it reads what was marked and starts a new log when it reconnects.
//!
//! [`RingError::LogLost`]: crate::RingError::LogLost

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::account::MemoryAccount;
use crate::error::{LogError, MemoryError};
use crate::mapping::{Mapping, RegionSpec};
use crate::memory::GuestMemory;
use crate::room::PAGE;
use crate::sigbus;

/// Bytes of memory that one byte of the log stands for.
const PER_BYTE: u64 = 8 * PAGE;

/// A frontend's log, mapped. All rings of the frontend mark the same one.
#[derive(Debug)]
pub struct DirtyLog {
    mapping: Arc<Mapping>,
    /// Bytes of the log.
    size: u64,
}

// SAFETY: the mapping is only accessed as atomic bytes.
unsafe impl Send for DirtyLog {}
// SAFETY: as for Send.
unsafe impl Sync for DirtyLog {}

impl DirtyLog {
    /// Maps the `size` bytes at `offset` of a shared file. The account pays for pages that this
    /// process touches first.
    ///
    /// # Errors
    /// They do not lie within the file, or it is not one in memory, or it cannot be mapped.
    pub fn map(
        account: &Arc<MemoryAccount>,
        file: File,
        offset: u64,
        size: u64,
    ) -> Result<Arc<DirtyLog>, LogError> {
        let too_large = offset.checked_add(size).is_none_or(|end| end > i64::MAX as u64);
        if size == 0 || too_large {
            return Err(LogError::Range { offset, size });
        }
        let spec = RegionSpec {
            guest_phys: 0,
            user_addr: 0,
            size,
            file_offset: offset,
            file: Arc::new(file),
        };
        let mapping = Mapping::find_or_map(&spec, std::iter::empty(), Some(account));
        let mapping = mapping.map_err(|error| match error {
            MemoryError::FileTooShort { needed, actual, .. } => {
                LogError::FileTooShort { needed, actual }
            }
            MemoryError::NotSharedMemory { .. } => LogError::NotSharedMemory,
            MemoryError::System { call, error, .. } => LogError::System { call, error },
            _ => LogError::NoRoom { limit: sigbus::SLOTS },
        })?;
        Ok(Arc::new(DirtyLog { mapping, size }))
    }

    /// Checks that there is a bit for each page of the memory.
    ///
    /// # Errors
    /// The log is too small.
    pub fn check(&self, memory: &GuestMemory) -> Result<(), LogError> {
        let needed = memory.end().div_ceil(PER_BYTE);
        match self.size {
            size if size < needed => Err(LogError::TooSmall { size, needed }),
            _ => Ok(()),
        }
    }

    /// Returns whether the log has a bit for each of `len` bytes at `address`.
    pub(crate) fn covers(&self, address: u64, len: u64) -> bool {
        address.checked_add(len).is_some_and(|end| end.div_ceil(PER_BYTE) <= self.size)
    }

    /// Returns whether the frontend has taken the log away.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        sigbus::any_lost() && self.mapping.is_lost()
    }

    /// Marks pages whose bytes were written before the last sequentially consistent fence.
    pub(crate) fn mark_fenced(&self, pages: Pages) {
        for page in pages.first..=pages.last {
            let Some((byte, bit)) = self.bit(page) else { return };
            if byte.load(Ordering::Relaxed) & bit == 0 {
                byte.fetch_or(bit, Ordering::Release);
            }
        }
    }

    /// Marks pages whose bytes were written just now.
    pub(crate) fn mark(&self, pages: Pages) {
        for page in pages.first..=pages.last {
            let Some((byte, bit)) = self.bit(page) else { return };
            byte.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Returns the byte and the bit of a page. Every page of a ring's memory has one, which was
    /// checked; `None` is for others.
    #[inline(always)]
    fn bit(&self, page: u64) -> Option<(&AtomicU8, u8)> {
        let at = page / 8;
        // SAFETY: `size` bytes are mapped for as long as the log lives, and are accessed as atomics
        // only.
        (at < self.size).then(|| unsafe {
            (AtomicU8::from_ptr(self.mapping.region().add(at as usize)), 1 << (page % 8))
        })
    }
}

/// A range of pages, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pages {
    first: u64,
    last: u64,
}

impl Pages {
    /// Returns the pages of `len` bytes, at least one, at `address`. They do not wrap.
    #[inline(always)]
    pub(crate) fn of(address: u64, len: u64) -> Pages {
        Pages { first: address / PAGE, last: (address + (len - 1)) / PAGE }
    }

    /// Adds the pages of `next` if they are among these or follow them. Returns whether they are.
    #[inline(always)]
    pub(crate) fn extend(&mut self, next: Pages) -> bool {
        let joins = (self.first..=self.last + 1).contains(&next.first);
        if joins {
            self.last = self.last.max(next.last);
        }
        joins
    }
}

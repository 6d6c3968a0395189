//! What a frontend's memory costs the host, and the most that it may cost.
//!
//! Two figures count: the bytes that are mapped, and the pages that this process was the first to
//! touch, which the system charges to it. [`crate::sigbus`] takes each such page from the account
//! of its mapping and from the memory that the whole process has left ([`crate::room`]). Everything
//! that it calls is atomic, since it runs in a signal handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::MemoryError;
use crate::room;

pub(crate) const PAGE: u64 = 4096;

/// Without a limit of its own, a frontend may have this much populated by frames that it *sends*
/// from memory that it never wrote. Honest drivers write what they send; what they receive into is
/// often memory that they never touched.
const UNWRITTEN: u64 = 64 << 20;

/// All frontends together may have this many times the host's memory mapped.
const OVERCOMMIT: u64 = 4;

const NO_LIMIT: u64 = u64::MAX;

/// Bytes mapped for all accounts.
static MAPPED: AtomicU64 = AtomicU64::new(0);
/// Pages populated for the accounts that have memory mapped, and the number of those accounts.
static POPULATED: AtomicU64 = AtomicU64::new(0);
static ACCOUNTS: AtomicU64 = AtomicU64::new(0);

/// The most that one frontend's memory may cost, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryLimits {
    /// Memory that it may have mapped; `None` for as much as the host has.
    pub max: Option<u64>,
    /// Memory that this process may populate for it; `None` for as much as the process has left.
    pub populate: Option<u64>,
}

/// The account of one frontend.
#[derive(Debug)]
pub struct MemoryAccount {
    /// Limits in bytes; [`NO_LIMIT`] for `None`.
    max: AtomicU64,
    populate: AtomicU64,
    /// Bytes.
    mapped: AtomicU64,
    /// Pages, and those of them that were missing when they were read.
    populated: AtomicU64,
    unwritten: AtomicU64,
    /// Whether a page was refused.
    is_spent: AtomicBool,
}

/// How a missing page was touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    Read,
    /// Written, or the processor does not say.
    Write,
}

impl MemoryAccount {
    /// Makes an account without any memory.
    pub fn new(limits: MemoryLimits) -> Arc<MemoryAccount> {
        let account = MemoryAccount {
            max: AtomicU64::new(NO_LIMIT),
            populate: AtomicU64::new(NO_LIMIT),
            mapped: AtomicU64::new(0),
            populated: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            is_spent: AtomicBool::new(false),
        };
        account.set_limits(limits);
        Arc::new(account)
    }

    /// Changes the limits. Memory that is mapped stays mapped.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.max.store(limits.max.unwrap_or(NO_LIMIT), Ordering::Relaxed);
        self.populate.store(limits.populate.unwrap_or(NO_LIMIT), Ordering::Relaxed);
    }

    /// Returns the bytes that are mapped.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Returns the bytes that this process was the first to touch.
    pub fn populated(&self) -> u64 {
        self.populated.load(Ordering::Relaxed) * PAGE
    }

    /// Returns whether a page was refused; the frontend's memory is then lost.
    pub fn is_spent(&self) -> bool {
        self.is_spent.load(Ordering::Relaxed)
    }

    /// Forgets the memory of a frontend that is gone.
    pub fn clear(&self) {
        self.enter(0);
        self.unwritten.store(0, Ordering::Relaxed);
        self.is_spent.store(false, Ordering::Relaxed);
    }

    /// Enters the bytes of a memory table that replaces the last one.
    pub(crate) fn reserve(&self, total: u64) -> Result<(), MemoryError> {
        let host = room::host_memory();
        let stated = self.max.load(Ordering::Relaxed);
        let limit = if stated == NO_LIMIT { host } else { stated };
        if total > limit {
            return Err(MemoryError::OverMax { total, limit, is_default: stated == NO_LIMIT });
        }
        let others = MAPPED.load(Ordering::Relaxed).saturating_sub(self.mapped());
        let limit = host.saturating_mul(OVERCOMMIT);
        if others.saturating_add(total) > limit {
            return Err(MemoryError::OverAll { total, others, limit });
        }
        self.enter(total);
        Ok(())
    }

    /// Only the thread of the session changes what is mapped. Sessions that do so at the same time
    /// may pass the limit of all together by what they add.
    fn enter(&self, total: u64) {
        let before = self.mapped.swap(total, Ordering::Relaxed);
        MAPPED.fetch_add(total.wrapping_sub(before), Ordering::Relaxed);
        if before == 0 && total != 0 {
            ACCOUNTS.fetch_add(1, Ordering::Relaxed);
        } else if before != 0 && total == 0 {
            ACCOUNTS.fetch_sub(1, Ordering::Relaxed);
            POPULATED.fetch_sub(self.populated.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Takes a page that is about to be populated; returns `false` if it may not be.
    pub(crate) fn take(&self, touch: Touch) -> bool {
        let all = POPULATED.fetch_add(1, Ordering::Relaxed) + 1;
        let own = self.populated.fetch_add(1, Ordering::Relaxed) + 1;
        let limit = self.populate.load(Ordering::Relaxed);
        let is_within = match touch {
            Touch::Read if limit == NO_LIMIT => {
                (self.unwritten.fetch_add(1, Ordering::Relaxed) + 1) * PAGE <= UNWRITTEN
            }
            _ => own * PAGE <= limit,
        };
        let accounts = ACCOUNTS.load(Ordering::Relaxed).max(1);
        let is_above_mean = own.saturating_mul(accounts) > all;
        let is_taken = is_within && room::take(is_above_mean);
        if !is_taken {
            self.give_back();
            self.refuse();
        }
        is_taken
    }

    /// Returns a page that was not needed.
    pub(crate) fn give_back(&self) {
        self.populated.fetch_sub(1, Ordering::Relaxed);
        POPULATED.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records that a page was refused.
    pub(crate) fn refuse(&self) {
        self.is_spent.store(true, Ordering::Relaxed);
    }
}

impl Drop for MemoryAccount {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn account(max: Option<u64>, populate: Option<u64>) -> Arc<MemoryAccount> {
        MemoryAccount::new(MemoryLimits { max, populate })
    }

    /// Takes pages until one is refused, at most a GiB; returns the bytes taken.
    fn take_all(account: &MemoryAccount, touch: Touch) -> u64 {
        (0..(1 << 30) / PAGE).take_while(|_| account.take(touch)).count() as u64 * PAGE
    }

    #[test]
    fn populated_memory_is_limited() {
        let limited = account(None, Some(3 * MIB));
        assert_eq!(take_all(&limited, Touch::Write), 3 * MIB);
        assert_eq!((limited.populated(), limited.is_spent()), (3 * MIB, true));
        limited.set_limits(MemoryLimits { max: None, populate: Some(4 * MIB) });
        assert_eq!(take_all(&limited, Touch::Read), MIB);
        assert_eq!(take_all(&account(None, Some(0)), Touch::Write), 0);
    }

    #[test]
    fn only_reads_are_limited_by_default() {
        let open = account(None, None);
        open.reserve(MIB).unwrap();
        assert_eq!(take_all(&open, Touch::Read), UNWRITTEN);
        assert!((0..UNWRITTEN / PAGE).all(|_| open.take(Touch::Write)));
        open.clear();
        assert_eq!((open.populated(), open.is_spent()), (0, false));
        // A stated limit holds for reads, too, and may be larger.
        let stated = account(None, Some(2 * UNWRITTEN));
        assert_eq!(take_all(&stated, Touch::Read), 2 * UNWRITTEN);
    }

    #[test]
    fn mapped_memory_is_limited_and_the_message_names_the_key() {
        let small = account(Some(64 * MIB), None);
        small.reserve(64 * MIB).unwrap();
        let refused = small.reserve(65 * MIB).unwrap_err().to_string();
        assert!(refused.contains("65 MiB") && refused.contains("64 MiB"), "{refused}");
        assert!(refused.contains("memory-max"), "{refused}");
        let host = room::host_memory();
        let refused = account(None, None).reserve(host + PAGE).unwrap_err().to_string();
        assert!(refused.contains("the host") && refused.contains("memory-max"), "{refused}");
        let large: Vec<_> = (0..5).map(|_| account(Some(8 * host), None)).collect();
        let results: Vec<_> = large.iter().map(|account| account.reserve(host)).collect();
        let refused = results[4].as_ref().unwrap_err().to_string();
        assert!(refused.contains("4 times the host's memory"), "{refused}");
        large[0].clear();
        large[4].reserve(host / 2).unwrap();
    }
}

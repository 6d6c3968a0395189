//! What a frontend's memory costs the host, and the most that it may cost.
//!
//! Two figures count: the bytes that are mapped, and the pages that this process was the first to
//! touch, which the system charges to it. [`crate::sigbus`] takes each such page from the account
//! of its mapping and from the memory that the whole process has left ([`crate::room`]). Everything
//! that it calls is atomic, since it runs in a signal handler.
//!
//! Pages outlive the connection if someone else keeps the file. So those of past connections count
//! when a frontend is compared with the mean, until the process has ample memory left again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::MemoryError;
use crate::room::{self, PAGE};

/// Without a limit of its own, a frontend may have this much populated, and more for each frame
/// that it has received. Honest drivers write what they send, but receive into memory that they
/// never touched.
const UNWRITTEN: u64 = 64 << 20;
/// Pages for each frame received: one of 64 KiB in buffers of 1500 bytes, each on a page of its
/// own.
const PAGES_A_FRAME: u64 = 44;

/// All frontends together may have this many times the host's memory mapped.
const OVERCOMMIT: u64 = 4;

const NO_LIMIT: u64 = u64::MAX;

/// Bytes mapped for all accounts.
static MAPPED: AtomicU64 = AtomicU64::new(0);
/// Pages populated for the accounts that have memory mapped, and the number of those accounts.
static POPULATED: AtomicU64 = AtomicU64::new(0);
static ACCOUNTS: AtomicU64 = AtomicU64::new(0);
/// The same for the connections that have ended in this epoch.
static PAST: AtomicU64 = AtomicU64::new(0);
static PAST_ACCOUNTS: AtomicU64 = AtomicU64::new(0);
static PAST_EPOCH: AtomicU64 = AtomicU64::new(0);

/// Forgets what was in another epoch than this one.
fn forget_past(epoch: u64) {
    if PAST_EPOCH.swap(epoch, Ordering::Relaxed) != epoch {
        PAST.store(0, Ordering::Relaxed);
        PAST_ACCOUNTS.store(0, Ordering::Relaxed);
    }
}

/// The most that one frontend's memory may cost, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryLimits {
    /// Memory that it may have mapped; `None` for as much as the host has.
    pub max: Option<u64>,
    /// Memory that this process may populate for it; `None` for what the frames that it receives
    /// can need.
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
    /// Pages.
    populated: AtomicU64,
    /// The frames that the driver receives, and how many there were when it connected.
    received: Option<Arc<dyn CountFrames>>,
    received_before: AtomicU64,
    /// Pages of its connections that have ended in `epoch`.
    past: AtomicU64,
    epoch: AtomicU64,
    /// Whether a page was refused.
    is_spent: AtomicBool,
}

/// Counts the frames that a frontend's driver has received.
pub trait CountFrames: std::fmt::Debug + Send + Sync {
    /// Returns the frames so far. A signal handler calls it: it must not lock or allocate.
    fn frames(&self) -> u64;
}

impl MemoryAccount {
    /// Makes an account without any memory. If frames are not counted, only stated limits hold for
    /// populated memory, and that of the process.
    pub fn new(limits: MemoryLimits, received: Option<Arc<dyn CountFrames>>) -> Arc<MemoryAccount> {
        let account = MemoryAccount {
            max: AtomicU64::new(NO_LIMIT),
            populate: AtomicU64::new(NO_LIMIT),
            mapped: AtomicU64::new(0),
            populated: AtomicU64::new(0),
            received,
            received_before: AtomicU64::new(0),
            past: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            is_spent: AtomicBool::new(false),
        };
        account.set_limits(limits);
        account.clear();
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
        let pages = self.populated.swap(0, Ordering::Relaxed);
        POPULATED.fetch_sub(pages, Ordering::Relaxed);
        self.end(pages);
        self.received_before.store(self.received().unwrap_or(0), Ordering::Relaxed);
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
        }
    }

    /// Counts the pages of a connection that has ended.
    fn end(&self, pages: u64) {
        if pages == 0 {
            return;
        }
        let epoch = room::epoch();
        forget_past(epoch);
        if self.epoch.swap(epoch, Ordering::Relaxed) != epoch {
            self.past.store(0, Ordering::Relaxed);
            PAST_ACCOUNTS.fetch_add(1, Ordering::Relaxed);
        }
        self.past.fetch_add(pages, Ordering::Relaxed);
        PAST.fetch_add(pages, Ordering::Relaxed);
    }

    /// Returns whether the frontend, with its past connections, has had more pages than the mean.
    fn is_above_mean(&self) -> bool {
        self.is_above_mean_in(room::epoch())
    }

    fn is_above_mean_in(&self, epoch: u64) -> bool {
        forget_past(epoch);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let is_now = count(&self.epoch) == epoch;
        let own = count(&self.populated) + if is_now { count(&self.past) } else { 0 };
        let accounts = (count(&ACCOUNTS) + count(&PAST_ACCOUNTS)).max(1);
        own.saturating_mul(accounts) > count(&POPULATED) + count(&PAST)
    }

    fn received(&self) -> Option<u64> {
        self.received.as_ref().map(|received| received.frames())
    }

    /// Returns how many pages may be populated.
    fn pages(&self) -> u64 {
        let stated = self.populate.load(Ordering::Relaxed);
        match self.received() {
            Some(frames) if stated == NO_LIMIT => {
                let frames = frames.saturating_sub(self.received_before.load(Ordering::Relaxed));
                UNWRITTEN / PAGE + frames.saturating_mul(PAGES_A_FRAME)
            }
            _ => stated / PAGE,
        }
    }

    /// Takes a page that is about to be populated; returns `false` if it may not be.
    pub(crate) fn take(&self) -> bool {
        POPULATED.fetch_add(1, Ordering::Relaxed);
        let own = self.populated.fetch_add(1, Ordering::Relaxed) + 1;
        let is_within = own <= self.pages();
        let is_taken = is_within && room::take(|| self.is_above_mean());
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

    impl CountFrames for AtomicU64 {
        fn frames(&self) -> u64 {
            self.load(Ordering::Relaxed)
        }
    }

    fn account(max: Option<u64>, populate: Option<u64>) -> Arc<MemoryAccount> {
        MemoryAccount::new(MemoryLimits { max, populate }, None)
    }

    /// Takes pages until one is refused, at most a GiB; returns the bytes taken.
    fn take_all(account: &MemoryAccount) -> u64 {
        (0..(1 << 30) / PAGE).take_while(|_| account.take()).count() as u64 * PAGE
    }

    #[test]
    fn populated_memory_is_limited() {
        let limited = account(None, Some(3 * MIB));
        assert_eq!(take_all(&limited), 3 * MIB);
        assert_eq!((limited.populated(), limited.is_spent()), (3 * MIB, true));
        limited.set_limits(MemoryLimits { max: None, populate: Some(4 * MIB) });
        assert_eq!(take_all(&limited), MIB);
        assert_eq!(take_all(&account(None, Some(0))), 0);
    }

    #[test]
    fn without_a_limit_the_frames_received_count() {
        let frames = Arc::new(AtomicU64::new(7));
        let open = MemoryAccount::new(MemoryLimits::default(), Some(frames.clone()));
        open.reserve(MIB).unwrap();
        assert_eq!(take_all(&open), UNWRITTEN, "frames of the past do not count");
        frames.fetch_add(100, Ordering::Relaxed);
        assert_eq!(take_all(&open), 100 * PAGES_A_FRAME * PAGE);
        open.clear();
        assert_eq!((open.populated(), open.is_spent()), (0, false));
        // A stated limit may be larger.
        open.set_limits(MemoryLimits { max: None, populate: Some(2 * UNWRITTEN) });
        assert_eq!(take_all(&open), 2 * UNWRITTEN);
        assert_eq!(take_all(&account(None, None)), 1 << 30, "nothing counts frames");
    }

    #[test]
    fn past_connections_count_until_there_is_ample_memory() {
        let (hostile, honest, new) =
            (account(None, None), account(None, None), account(None, None));
        for account in [&hostile, &honest, &new] {
            account.reserve(MIB).unwrap();
        }
        let take = |account: &MemoryAccount, pages: u64| {
            (0..pages).for_each(|_| assert!(account.take()));
        };
        take(&hostile, 900);
        take(&honest, 100);
        take(&new, 1);
        let above = |epoch| [&hostile, &honest, &new].map(|a| a.is_above_mean_in(epoch));
        let epoch = room::epoch();
        assert_eq!(above(epoch), [true, false, false]);
        // It keeps the file, and connects again.
        hostile.clear();
        hostile.reserve(MIB).unwrap();
        assert_eq!((hostile.populated(), above(epoch)), (0, [true, false, false]));
        assert_eq!(above(epoch + 1), [false, true, false]);
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

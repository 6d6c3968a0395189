//! Survives a frontend that truncates the file behind its memory, or leaves it without pages.
//!
//! Touching a mapped page past the end of its file raises SIGBUS, and a frontend can shrink its
//! file at any time: without a guard one guest could kill the switch. So does touching a page that
//! the file does not have yet ([`crate::userfault`]). Every guest mapping is entered in a static
//! table, where the handler looks up the faulting address. If the file lacks the page, it takes a
//! page from the account of the mapping's frontend and adds it to the file. Otherwise it marks the
//! entry lost, maps zero pages over the whole mapping, and returns; the access that faulted runs
//! again and reads zeros. The zero pages are those of a sparse memfd. Private pages would all count
//! at once against the process's memory limits (strict overcommit, RLIMIT_DATA), and replacing
//! pages one by one would cost a burst thousands of faults. Faults at other addresses are
//! crashes ([`crate::crash`]).
//!
//! A signal handler may neither lock nor allocate, so the table is a fixed array of atomics. The
//! claimant of an entry writes a new `generation`, then `start`, then `end`; it clears `end` first.
//! The handler reads generation and end, start, end and generation again: a non-zero end within one
//! generation means that it saw one whole entry.

use std::ffi::CStr;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::account::MemoryAccount;
use crate::crash;
use crate::handler;
use crate::room::PAGE;
use crate::userfault::{self, Populated};

/// Most mappings guarded at once in this process. By default Linux gives a process 65,530.
pub(crate) const SLOTS: usize = 32768;

/// Name of the zero pages in `/proc/self/maps`.
const NAME: &CStr = c"lost-guest-memory";

struct Slot {
    claimed: AtomicBool,
    lost: AtomicBool,
    /// Number of mappings ever entered here.
    generation: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// The account of missing pages; null if they are not caught.
    account: AtomicPtr<MemoryAccount>,
}

/// An entry as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    start: usize,
    end: usize,
    account: *const MemoryAccount,
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            claimed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            generation: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            account: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Enters a mapping. Only the claimant of the slot may call it.
    fn enter(&self, entry: Entry) {
        self.lost.store(false, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
        self.account.store(entry.account.cast_mut(), Ordering::Release);
        self.start.store(entry.start, Ordering::Release);
        self.end.store(entry.end, Ordering::Release);
    }

    /// Removes the mapping.
    fn clear(&self) {
        self.end.store(0, Ordering::Release);
        self.start.store(0, Ordering::Release);
    }

    /// Returns the mapping if there is one and it did not change during the read. `between` is
    /// called after each load; tests change the entry there.
    #[inline(always)]
    fn read(&self, mut between: impl FnMut()) -> Option<Entry> {
        let mut load = |field: &AtomicUsize| {
            let value = field.load(Ordering::Acquire);
            between();
            value
        };
        let (generation, end) = (load(&self.generation), load(&self.end));
        let start = load(&self.start);
        let account = self.account.load(Ordering::Acquire).cast_const();
        let stayed = load(&self.end) == end && load(&self.generation) == generation;
        (end != 0 && stayed).then_some(Entry { start, end, account })
    }

    /// Returns whether the mapping may hold `address`; `false` is certain for the thread that uses
    /// the mapping.
    #[inline(always)]
    fn may_hold(&self, address: usize) -> bool {
        let (start, end) = (self.start.load(Ordering::Acquire), self.end.load(Ordering::Acquire));
        (start..end).contains(&address)
    }
}

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// Slots from here on were never claimed. Free slots are claimed from the front, so it stays small.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Mappings lost since the process began. While it is zero, no reader needs the table.
static LOSSES: AtomicU64 = AtomicU64::new(0);

/// The previous SIGBUS handler, or the errno of a failed installation.
static PREVIOUS: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

/// Installs the handler that survives a frontend truncating its memory. Idempotent; mapping memory
/// does it too.
///
/// # Errors
/// The system refuses the handler (sigaction(2)).
pub fn install_sigbus_guard() -> io::Result<()> {
    match PREVIOUS.get_or_init(install) {
        Ok(_) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(*errno)),
    }
}

fn install() -> Result<libc::sigaction, i32> {
    let installed = handler::install(libc::SIGBUS, handle);
    installed.map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))
}

/// An entry of the table; guards one mapping until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    slot: usize,
}

impl Guard {
    /// Guards `len` bytes at `start`, a whole mapping; `None` if the table is full. Missing pages
    /// are those of the account, which must outlive the guard.
    pub(crate) fn new(start: usize, len: usize, account: Option<&MemoryAccount>) -> Option<Guard> {
        let slot = TABLE.iter().position(|slot| {
            !slot.claimed.load(Ordering::Relaxed) && !slot.claimed.swap(true, Ordering::AcqRel)
        })?;
        USED.fetch_max(slot + 1, Ordering::AcqRel);
        let account = account.map_or(ptr::null(), ptr::from_ref);
        TABLE[slot].enter(Entry { start, end: start + len, account });
        Some(Guard { slot })
    }

    /// Returns how many more mappings can be guarded.
    pub(crate) fn free() -> usize {
        SLOTS - TABLE.iter().filter(|slot| slot.claimed.load(Ordering::Relaxed)).count()
    }

    /// Returns whether the mapping was replaced by zero pages.
    pub(crate) fn is_lost(&self) -> bool {
        TABLE[self.slot].lost.load(Ordering::Relaxed)
    }
}

/// Returns whether any mapping of this process was ever lost.
#[inline]
pub(crate) fn any_lost() -> bool {
    LOSSES.load(Ordering::Relaxed) != 0
}

impl Drop for Guard {
    fn drop(&mut self) {
        let slot = &TABLE[self.slot];
        slot.clear();
        slot.claimed.store(false, Ordering::Release);
    }
}

/// Returns the slot and mapping that hold `address`.
fn find(address: usize) -> Option<(&'static Slot, Entry)> {
    TABLE[..USED.load(Ordering::Acquire)].iter().find_map(|slot| {
        let entry = if slot.may_hold(address) { slot.read(|| {})? } else { return None };
        (entry.start..entry.end).contains(&address).then_some((slot, entry))
    })
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo. The fault address is valid only if the kernel
    // raised the signal (positive si_code), which is checked first.
    let address = unsafe { if (*info).si_code > 0 { (*info).si_addr() as usize } else { 0 } };
    if address != 0
        && let Some((slot, entry)) = find(address)
    {
        // SAFETY: it is the errno of this thread. The interrupted code gets it back.
        let errno = unsafe { *libc::__errno_location() };
        let is_well = add_page(address, entry) || {
            // Set before the pages change, so that a reader of the zeros also sees the loss.
            slot.lost.store(true, Ordering::SeqCst);
            LOSSES.fetch_add(1, Ordering::SeqCst);
            replace(entry.start, entry.end - entry.start)
        };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        if is_well {
            return;
        }
    }
    let previous = PREVIOUS.get().and_then(|previous| previous.as_ref().ok());
    crash::end(signal, info, context, previous);
}

/// Adds the missing page at `address` to the file, on account of the mapping's frontend.
fn add_page(address: usize, entry: Entry) -> bool {
    // SAFETY: the account outlives the mapping, and the thread that faulted in the mapping is
    // inside its use.
    let Some(account) = (unsafe { entry.account.as_ref() }) else { return false };
    if !account.take() {
        return false;
    }
    match userfault::populate(address & !(PAGE as usize - 1), PAGE as usize) {
        Populated::New => true,
        Populated::Present => {
            account.give_back();
            true
        }
        Populated::NoMemory => {
            account.give_back();
            account.refuse();
            false
        }
        Populated::NoPage => {
            account.give_back();
            false
        }
    }
}

/// Maps zero pages over a guarded mapping.
fn replace(start: usize, len: usize) -> bool {
    // SAFETY: start and len are those of a mapping that its owner keeps while its entry stands, and
    // the thread that faulted in it is inside its use. Replacing its pages in place leaves every
    // pointer valid. All calls are plain system calls, which a handler may make.
    unsafe {
        let fd = libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC);
        // Out of descriptors: fall back to private pages.
        let kind = if fd >= 0 && libc::ftruncate(fd, len as libc::off_t) == 0 {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS
        };
        let at = libc::mmap(
            start as *mut libc::c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            kind | libc::MAP_FIXED | libc::MAP_NORESERVE,
            fd,
            0,
        );
        if fd >= 0 {
            libc::close(fd);
        }
        at != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Removes a mapping and enters another at any two moments while the entry is read: the result
    /// is one of the two, or `None`.
    #[test]
    fn no_entry_is_made_of_two() {
        let entry = |start, account: usize| Entry { start, end: 0x8000, account: account as _ };
        let (old, new) = (entry(0x2000, 0x10), entry(0x6000, 0x20));
        for (gone, come) in (0..4).flat_map(|gone| (gone..5).map(move |come| (gone, come))) {
            let slot = Slot::new();
            slot.enter(old);
            let mut moment = 0;
            let read = slot.read(|| {
                if moment == gone {
                    slot.clear();
                }
                if moment == come {
                    slot.enter(new);
                }
                moment += 1;
            });
            let right = read.is_none_or(|entry| entry == old || entry == new);
            assert!(right, "{gone} {come}: {read:?}");
        }
    }
}

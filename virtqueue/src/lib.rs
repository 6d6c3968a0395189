#![doc = include_str!("../README.md")]
//!
//! # Soundness
//!
//! Three rules make the exported functions safe:
//! - No Rust reference is ever formed over guest memory: ring fields are read and written through
//!   raw pointers as atomics or volatile words, payload is copied by pointer.
//! - A field that the other side can change is read once into a local, checked, then used.
//! - Every pointer comes from [`GuestMemory`] together with the length that was checked for it, and
//!   the value that keeps the pointer also keeps the map alive.
#![expect(unsafe_code, reason = "the home of guest memory and rings; see Soundness above")]

mod account;
mod copy;
mod crash;
mod device;
mod dirty_log;
mod driver;
mod error;
mod handler;
mod huge_pages;
mod lasting;
mod mapping;
mod memory;
mod ring;
mod room;
mod segment;
mod sigbus;
mod table;
mod userfault;

pub use account::{CountFrames, MemoryAccount, MemoryLimits};
pub use copy::prefetch;
pub use crash::CrashMark;
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use crash::crash_for_a_test;
pub use device::{Head, Logged, NewStart, RxQueue, TxBurst, TxQueue, Unlogged, Writes};
pub use dirty_log::DirtyLog;
pub use driver::{
    ChainShape, DriverError, DriverMemory, DriverOptions, DriverRx, DriverTx, InPlace, Queued,
    Received, RingAddresses, locate,
};
pub use error::{LogError, MemoryError, PushError, RingError};
pub use lasting::{Counter, Lasting, LastingMemory, Words};
pub use mapping::RegionSpec;
pub use memory::{GuestMemory, Region};
pub use ring::{HEADER_LEN, LogAt, MAX_BURST, RingFds, RingFeatures, RingSetup};
pub use segment::Segment;
pub use sigbus::install_sigbus_guard;
pub use table::{TABLE_AT, Table, in_memfd};

/// Prepares for the memory of frontends that need not be honest: opens what tells how much memory
/// the process has left, and catches pages that their files lack. Idempotent, and to be called
/// again when a frontend's memory is mapped.
///
/// # Errors
/// The kernel does not catch missing pages (userfaultfd(2)); the rest works.
pub fn prepare_accounts() -> std::io::Result<()> {
    room::open();
    userfault::open()
}

/// Has a crash of this process marked there, for the process that follows. The place of the first
/// call counts.
///
/// # Errors
/// The system refuses a signal handler (sigaction(2)).
pub fn mark_crashes(mark: Lasting<CrashMark>) -> std::io::Result<()> {
    install_sigbus_guard()?;
    // The process's handlers use it as long as it lives.
    crash::mark_at(Box::leak(Box::new(mark)))
}

//! Captures: copies of frames, streamed to clients as pcapng.
//!
//! ```text
//!  api/capture.rs ─▶ wanted.rs      names and filter → what to watch
//!                    session.rs     a thread for each capture
//!                      ▲              ports.rs: which ports there are, and their watches
//!                      ├─ ring.rs     the frames of the last seconds, with a thread of its own
//!                      ▲  queues of state/watches.rs, one a network, bounded
//!  worker ─────────────┘
//!                      └─ pcapng ─▶ a bounded channel ─▶ the body of the answer
//! ```
//!
//! The worker never waits for a capture. A client that reads slowly stops its capture's thread at
//! the channel; then the queues fill up, and what finds no room is counted as missed.

mod ports;
mod registry;
mod ring;
mod session;
#[cfg(test)]
mod tests;
mod wanted;

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::mpsc::Receiver;

pub(crate) use registry::{Captures, Slot, Totals};
pub(crate) use ring::Ring;
pub use ring::start as start_ring;
pub(crate) use wanted::{Targets, Wanted, WatchedPort};

use crate::ctl::Failure;
use crate::state::Daemon;

/// Starts a capture; returns its number and the pcapng file as it grows.
///
/// # Errors
/// There are too many, or nothing that is wanted runs.
pub(crate) fn start(
    daemon: &Arc<Daemon>,
    wanted: Wanted,
    user: Option<u32>,
) -> Result<(u64, Receiver<Bytes>), Failure> {
    let slot = daemon.captures.begin(wanted.what.clone(), user)?;
    session::start(Arc::clone(daemon), wanted, slot)
}

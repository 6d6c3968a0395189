//! The client's side of the control API: transactions, captures, and interfaces made here and
//! handed over.
//!
//! `tramactl` and the plug-ins of container engines share it. A request takes a connection of its
//! own, and blocks the caller until the answer is there or the time is over.
#![forbid(unsafe_code)]

mod approve;
mod capture;
mod exchange;
mod explain;
mod failed;
mod interface;
mod observe;
mod top;
mod transact;
mod web;

use std::path::PathBuf;
use std::time::Duration;

pub use failed::Failed;
pub use interface::{Interface, Joined};
pub use observe::Observed;

/// A daemon, as its clients find it.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Possible paths of its control socket; the first that answers is used.
    pub sockets: Vec<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// The paths of sockets for a message.
fn shown(sockets: &[PathBuf]) -> String {
    let sockets: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
    sockets.join(" or ")
}

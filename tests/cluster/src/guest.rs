//! Guests, and what does not hold for one.

use std::fmt;

use trama_cluster::Name;
use trama_cluster::key::StationKey;

/// A guest, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) port: Name,
    pub(crate) network: Name,
    pub(crate) station: StationKey,
    pub(crate) host: usize,
    /// When it came there.
    pub(crate) moved: u64,
    /// Since when its port moves frames there.
    pub(crate) runs: Option<u64>,
    /// When the store must have had its row; `None` until then.
    pub(crate) published: Option<u64>,
}

/// What does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When it was seen, in milliseconds.
    pub at: u64,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "at {}.{:03} s: {}", self.at / 1000, self.at % 1000, self.what)
    }
}

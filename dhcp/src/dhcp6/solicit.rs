//! A SOLICIT kept until its answer is known.

use std::net::Ipv6Addr;

/// A SOLICIT that waits for the end of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Solicit {
    pub(super) source: (Ipv6Addr, u16),
    pub(super) payload: Vec<u8>,
}

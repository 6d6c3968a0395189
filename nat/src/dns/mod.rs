//! DNS over TCP at the gateway (RFC 7766).

pub mod framing;
pub mod shares;

/// The port of DNS servers.
pub const PORT: u16 = 53;

//! DNS over TCP at the gateway (RFC 7766).

pub mod framing;

/// The port of DNS servers.
pub const PORT: u16 = 53;

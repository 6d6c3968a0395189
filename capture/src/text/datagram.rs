//! What IP carries, for the protocols above it.

use std::net::IpAddr;

/// The packet above IP.
pub(super) struct Datagram<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Its captured part.
    pub bytes: &'a [u8],
    /// Its length, by IP's header.
    pub len: usize,
    /// Whether it is a later fragment.
    pub is_rest: bool,
}

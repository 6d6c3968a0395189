//! The far end of a flow: the host's socket that continues it, or the gateway's DNS.

use std::io;
use std::time::Duration;

use super::connection::Connection;
use super::dns_end::DnsEnd;
use super::host_end::HostEnd;
use super::turn::{Limits, Moved};

/// The far end of a flow.
pub(super) enum Far {
    Host(HostEnd),
    Dns(DnsEnd),
}

impl Far {
    /// The host's socket.
    pub(super) fn host(&mut self) -> Option<&mut HostEnd> {
        match self {
            Far::Host(host) => Some(host),
            Far::Dns(_) => None,
        }
    }

    /// Takes bytes of a segment at once. Returns how many.
    ///
    /// # Errors
    ///
    /// The socket failed, and the flow cannot go on.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Far::Host(host) => host.write(bytes),
            // It takes queries in turns.
            Far::Dns(_) => Ok(0),
        }
    }

    /// The guest has sent data.
    pub(super) fn guest_sent(&mut self) {
        if let Far::Host(host) = self {
            host.guest_sent();
        }
    }

    /// Moves bytes either way between the connection and the far end, as much as one turn may.
    pub(super) fn exchange(
        &mut self,
        now: Duration,
        connection: &mut Connection,
        limits: &Limits,
        read_buffer: &mut Vec<u8>,
    ) -> Moved {
        match self {
            Far::Host(host) => host.exchange(now, connection, limits, read_buffer),
            Far::Dns(dns) => dns.exchange(now, connection, limits),
        }
    }

    /// Bytes that are kept besides those of the connection.
    pub(super) fn buffered(&self) -> usize {
        match self {
            Far::Host(_) => 0,
            Far::Dns(dns) => dns.buffered(),
        }
    }

    /// When it needs a turn without an event.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Far::Host(host) => host.paused_until(),
            Far::Dns(dns) => dns.deadline(),
        }
    }

    /// Closes it in order.
    pub(super) fn close(&mut self) {
        match self {
            Far::Host(host) => host.stream = None,
            Far::Dns(dns) => dns.close(),
        }
    }

    /// Closes the host's socket with a reset.
    pub(super) fn reset(&mut self) {
        if let Far::Host(host) = self {
            host.reset();
        }
    }
}

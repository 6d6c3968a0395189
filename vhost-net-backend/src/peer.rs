//! The process at the other end of a connection.

use std::fmt;
use std::os::fd::AsFd;

/// The process at the other end of a connection, as it was when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its process id.
    pub pid: i32,
    /// Its effective user id.
    pub uid: u32,
}

impl Peer {
    /// The process at the other end; `None` if the system does not say.
    pub fn of(stream: &impl AsFd) -> Option<Peer> {
        let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
        Some(Peer { pid: peer.pid.as_raw_nonzero().get(), uid: peer.uid.as_raw() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} uid {}", self.pid, self.uid)
    }
}

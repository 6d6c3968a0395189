//! Sockets that carry Ethernet frames: byte streams and datagrams.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use trama_vhost_net_backend::Role;

/// A byte stream in which each frame follows its length.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Where it listens or connects to.
    pub place: Place,
    /// Which end listens.
    pub role: Role,
    /// How many connections there may be at a time.
    pub connections: u16,
}

/// Where a stream's listening socket is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A Unix socket; a relative or empty path is below the daemon's run folder.
    Path(PathBuf),
    /// A TCP socket.
    Address(SocketAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) => path.display().fmt(f),
            Place::Address(address) => address.fmt(f),
        }
    }
}

/// Datagrams with a frame each.
#[derive(Clone, Debug, PartialEq)]
pub enum Dgram {
    /// Over a Unix socket.
    Unix {
        /// Its path; a relative or empty one is below the daemon's run folder.
        path: PathBuf,
        /// The path of the other end's socket; `None` = the one that sent last.
        peer: Option<PathBuf>,
    },
    /// Over UDP.
    Udp {
        /// The address of this end.
        local: SocketAddr,
        /// The address of the other end.
        remote: SocketAddr,
    },
}

impl fmt::Display for Dgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dgram::Unix { path, .. } => path.display().fmt(f),
            Dgram::Udp { local, .. } => local.fmt(f),
        }
    }
}

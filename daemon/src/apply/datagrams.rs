//! What lives as long as a datagram port.

use std::sync::Arc;

use trama_helper::Entry;
use trama_vhost_net_backend::SocketFile;

/// What keeps the socket of a datagram port.
pub(crate) struct Datagrams {
    /// Where it is.
    pub(super) location: String,
    /// The file of a Unix socket.
    pub(super) file: Option<Arc<dyn SocketFile>>,
    /// The keeper's entry of any other.
    pub(super) _entry: Option<Entry>,
    /// The other end of a socket that was handed over, in words.
    pub(super) connected_to: Option<String>,
}

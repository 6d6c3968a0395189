//! What is reported of the socket of a stream or datagram port.

/// The state of a stream or datagram port's socket.
#[derive(Clone, Debug)]
pub struct SocketStatus {
    /// Its path or address.
    pub location: String,
    /// `listening`, `connecting` or `connected`.
    pub state: &'static str,
    /// The other end: `pid 4711 uid 1000`, an address or a path.
    pub peer: Option<String>,
    /// Connections so far; `None` for datagrams.
    pub connects: Option<u64>,
    /// What ended the last connection, or why there is none; for datagrams, why one was not sent.
    pub last_error: Option<String>,
}

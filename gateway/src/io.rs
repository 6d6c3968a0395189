//! What the services want done.

use std::net::SocketAddr;

use trama_nat::Client;

/// What the services want done. It accumulates over any number of calls.
#[derive(Default, Debug)]
pub struct Output {
    /// Frames for the switch.
    pub frames: Vec<Vec<u8>>,
    /// Requests to the sockets to DNS servers, in order.
    pub upstream: Vec<Upstream>,
    /// Answers for DNS streams; `None` closes the stream.
    pub streams: Vec<(u64, Option<Vec<u8>>)>,
    /// Records for the lease store.
    pub records: Vec<u8>,
    /// Frames to send once the records are durable; if that fails, they are dropped.
    pub confirmed: Vec<Vec<u8>>,
}

/// A request of the DNS forwarder to its sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// Send a message to a server from the slot's socket, or from a new one if there is none.
    Ask {
        /// The slot.
        slot: usize,
        /// The server.
        server: SocketAddr,
        /// The message.
        message: Vec<u8>,
        /// Whether to query over TCP, which does not truncate the answer.
        over_tcp: bool,
    },
    /// Close the slot's socket.
    Close {
        /// The slot.
        slot: usize,
    },
}

/// Payloads for clients.
pub(crate) type Replies = Vec<(Client, Vec<u8>)>;

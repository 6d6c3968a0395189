//! What goes in and out of the engines.

use std::net::{IpAddr, SocketAddr};

use trama_frame::MacAddr;

/// The mark of the switch port that a frame came from. Limits are counted by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMark(pub u64);

/// Source of unpredictable numbers; a simulation supplies its own.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// Both ends of a UDP exchange or DNS stream, and the port that it is charged to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client {
    pub port: PortMark,
    pub mac: MacAddr,
    /// The client's address and port.
    pub remote: (IpAddr, u16),
    /// The gateway's address and port.
    pub local: (IpAddr, u16),
    /// Longest payload in one packet, or in one message of the stream.
    pub room: usize,
    /// The stream of a DNS query over TCP; `None` for datagrams.
    pub stream: Option<u32>,
}

/// What the engine wants done. It accumulates over any number of calls.
#[derive(Default, Debug)]
pub struct Output {
    /// Frames for the switch.
    pub frames: Vec<Vec<u8>>,
    /// Requests to the sockets to DNS servers, in order.
    pub upstream: Vec<Upstream>,
    /// Answers for DNS streams; `None` closes the stream.
    pub streams: Vec<(u32, Option<Vec<u8>>)>,
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

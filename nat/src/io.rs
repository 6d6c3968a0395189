//! What goes in and out of the engines.

use std::net::{IpAddr, SocketAddr};

use trama_frame::MacAddr;

/// Who sent a frame, for limits: the mark of the switch port that it came by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMark(pub u64);

/// Where numbers come from that nobody may guess; a simulation gives its own.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// The two ends of a UDP exchange, and whom it is charged to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client {
    pub port: PortMark,
    pub mac: MacAddr,
    /// The client's address and UDP port.
    pub remote: (IpAddr, u16),
    /// Ours.
    pub local: (IpAddr, u16),
    /// The longest payload that fits into one packet, or into a message of the stream.
    pub room: usize,
    /// The stream by which it asks; `None`: datagrams.
    pub stream: Option<u32>,
}

/// What the engine wants done; collects over as many calls as the caller likes.
#[derive(Default, Debug)]
pub struct Output {
    /// Frames for the switch.
    pub frames: Vec<Vec<u8>>,
    /// What is wanted of the sockets to DNS servers, in this order.
    pub upstream: Vec<Upstream>,
    /// Answers for the streams by which questions came; `None`: the stream is to be closed.
    pub streams: Vec<(u32, Option<Vec<u8>>)>,
    /// Records for the lease store.
    pub records: Vec<u8>,
    /// Frames that may go once the records are durable; if that fails, they are dropped.
    pub confirmed: Vec<Vec<u8>>,
}

/// What a forwarder wants from its sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Upstream {
    /// Send a message to a server, from the slot's socket. If it has none, from a new one.
    Ask {
        /// The slot.
        slot: usize,
        /// The server.
        server: SocketAddr,
        /// The message.
        message: Vec<u8>,
        /// Whether to ask over TCP, so that the answer is whole.
        by_stream: bool,
    },
    /// Close the slot's socket.
    Close {
        /// The slot.
        slot: usize,
    },
}

/// What goes back to clients.
pub(crate) type Replies = Vec<(Client, Vec<u8>)>;

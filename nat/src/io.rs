//! What goes in and out of the NAT and of the gateway's services.

use std::net::IpAddr;

use trama_frame::MacAddr;

/// The mark of the switch port that a frame came from. Limits are counted by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortMark(pub u64);

/// Source of unpredictable numbers; a simulation supplies its own.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// Both ends of a UDP exchange or DNS stream, and the port that it is charged to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// The switch port of the client.
    pub port: PortMark,
    /// The client's MAC address.
    pub mac: MacAddr,
    /// The client's address and port.
    pub remote: (IpAddr, u16),
    /// The gateway's address and port.
    pub local: (IpAddr, u16),
    /// Longest payload in one packet, or in one message of the stream.
    pub room: usize,
    /// The stream of a DNS query over TCP; `None` for datagrams.
    pub stream: Option<u64>,
}

//! DHCPv4 on the wire (RFC 2131, RFC 2132): a checked view of any message ([`Packet`]), what a
//! client asks ([`Request`]), and a writer for answers ([`Writer`]).
//!
//! Reading is strict about the fixed fields and forgiving about options, as other servers are:
//! embedded clients leave out End, or send options that are shorter than RFC 2132 allows. Such an
//! option counts as absent; one that runs past its field ends the reading of that field. Nothing
//! is copied until a [`Request`] is made of the view. Writing starts from zeroes, so no byte of an
//! answer is left from anywhere else.

pub mod options;
pub mod packet;
pub mod request;
#[cfg(test)]
mod tests;
pub mod writer;

pub use options::Options;
pub use packet::Packet;
pub use request::Request;
pub use writer::{Header, Writer};

use trama_frame::MacAddr;

/// UDP port of servers and relay agents.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;

/// `op` of a message from a client.
pub const BOOT_REQUEST: u8 = 1;
/// `op` of a message from a server.
pub const BOOT_REPLY: u8 = 2;
/// `htype` of Ethernet.
pub const ETHERNET: u8 = 1;
/// `htype` of IEEE 802 networks, which some clients give for Ethernet.
const IEEE_802: u8 = 6;
/// The bit of `flags` that asks for broadcast answers.
pub const FLAG_BROADCAST: u16 = 0x8000;
/// What begins the options field.
pub const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];

/// The fixed fields and the cookie.
pub const FIXED_LEN: usize = 240;
/// Offset and length of the `sname` field.
pub const SNAME: (usize, usize) = (44, 64);
/// Offset and length of the `file` field.
pub const FILE: (usize, usize) = (108, 128);
/// Shortest message that is sent: old relays and clients drop anything below BOOTP's size
/// (RFC 951; RFC 1542, 2.1).
pub const MIN_LEN: usize = 300;
/// Longest message that is read. A jumbo frame's worth is more than any client sends.
pub const MAX_READ: usize = 9000;
/// IPv4 and UDP headers, which the maximum message size (option 57) includes.
pub const IP_UDP: usize = 28;
/// Smallest maximum message size, and what holds when a client names none (RFC 2132, 9.10).
pub const MIN_DATAGRAM: u16 = 576;
/// Largest datagram that is sent, whatever a client offers: it must not need fragments.
pub const MAX_DATAGRAM: u16 = 1500;

/// What a client says of its hardware address, echoed as it came (RFC 2131, table 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hardware {
    /// `htype`.
    pub kind: u8,
    /// `hlen` in octets, at most 16.
    pub length: u8,
    /// `chaddr`.
    pub octets: [u8; 16],
}

impl Hardware {
    /// That of an Ethernet station.
    pub fn ethernet(mac: MacAddr) -> Hardware {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&mac.0);
        Hardware { kind: ETHERNET, length: 6, octets }
    }

    /// The Ethernet station; `None` if it names none, such as with `hlen` 0. Octets after the
    /// sixth are ignored: some clients give the length of the field instead of the address's.
    pub fn station(&self) -> Option<MacAddr> {
        let [a, b, c, d, e, f, ..] = self.octets;
        let mac = MacAddr([a, b, c, d, e, f]);
        let is_ethernet = matches!(self.kind, ETHERNET | IEEE_802) && self.length >= 6;
        (is_ethernet && !mac.is_multicast() && !mac.is_zero()).then_some(mac)
    }

    /// Whether it names a station as Ethernet's clients should.
    fn is_plain(&self) -> bool {
        self.length == 6 && self.station().is_some()
    }
}

/// DHCP message types (RFC 2132, 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum MessageType {
    /// Client looks for servers.
    Discover = 1,
    /// Server offers an address.
    Offer = 2,
    /// Client takes an offer, confirms or extends a lease.
    Request = 3,
    /// Client found the address in use.
    Decline = 4,
    /// Server commits a lease.
    Ack = 5,
    /// Server refuses a request.
    Nak = 6,
    /// Client gives its lease up.
    Release = 7,
    /// Client has an address and asks for the other parameters.
    Inform = 8,
}

impl MessageType {
    /// The type with this number, if there is one.
    pub fn from_number(number: u8) -> Option<MessageType> {
        use MessageType::*;
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    /// Whether clients send it.
    pub fn from_client(self) -> bool {
        use MessageType::*;
        matches!(self, Discover | Request | Decline | Release | Inform)
    }
}

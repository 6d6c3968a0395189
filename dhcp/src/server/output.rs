//! The server's input and output.

use std::net::Ipv4Addr;

use trama_frame::MacAddr;

use crate::name::HostName;
use crate::wire::MessageType;
use crate::{DropCounters, PortId, Time};

/// A datagram to the server's port and where it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// The ingress port.
    pub port: PortId,
    /// The station that sent the frame, the client or a relay agent; `None` if it is not known.
    pub station: Option<MacAddr>,
    /// Source address of the IP packet.
    pub source: Ipv4Addr,
    /// Whether it was sent to the server's own address rather than to all.
    pub unicast: bool,
    /// Payload of the datagram.
    pub payload: &'a [u8],
}

/// Destination of an answer (RFC 2131, 4.1). Answers are sent from the server's UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Destination {
    /// A relay agent: this address, the server's port.
    Relay(Ipv4Addr),
    /// `255.255.255.255`, the client's port, every station of the link.
    Broadcast,
    /// A client on the link: this address, the client's port, this station. Do not resolve the
    /// address by ARP: the client does not answer for it yet.
    Client(Ipv4Addr, MacAddr),
    /// A client on another link: this address, the client's port, sent as routing decides.
    Routed(Ipv4Addr),
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination.
    pub to: Destination,
    /// The port that the request came from.
    pub port: PortId,
    /// Its message type.
    pub kind: MessageType,
    /// Payload of the datagram.
    pub payload: Vec<u8>,
}

/// How a lease ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// It expired.
    Expired,
    /// The client released it.
    Released,
    /// The client found another user of the address.
    Declined,
}

/// An event for the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Probe the address on the server's link (ARP, RFC 5227) and report an answer with
    /// [`super::Server::in_use`] before the deadline.
    Probe {
        /// The address.
        address: Ipv4Addr,
        /// Without an answer until then, the address is free.
        until: Time,
    },
    /// A lease began or was extended. It is in force once its record is durable.
    Leased {
        /// The address.
        address: Ipv4Addr,
        /// The client's hardware address.
        mac: MacAddr,
        /// The client's port.
        port: PortId,
        /// The client's name.
        name: Option<HostName>,
        /// When the lease ends.
        until: Time,
        /// Whether the client had the lease before.
        renewed: bool,
    },
    /// A lease ended.
    Ended {
        /// The address.
        address: Ipv4Addr,
        /// The client's hardware address.
        mac: MacAddr,
        /// The client's port.
        port: PortId,
        /// How.
        how: End,
    },
    /// A client asked for an address and was told that it cannot have it.
    Refused {
        /// The address.
        address: Ipv4Addr,
        /// The client's hardware address.
        mac: MacAddr,
        /// The client's port.
        port: PortId,
        /// Why, as the client was told.
        why: &'static str,
    },
    /// A host without a lease uses an address of the pool; the address goes into quarantine.
    Conflict {
        /// The address.
        address: Ipv4Addr,
        /// The hardware address of that host.
        user: MacAddr,
        /// The port of that host.
        port: PortId,
    },
}

/// Work for the caller after one or more calls; the documentation of the module has the order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Answers to send at once.
    pub replies: Vec<Reply>,
    /// Records for the lease store ([`crate::store`]), encoded.
    pub records: Vec<u8>,
    /// Answers to send once `records` are durable.
    pub confirmed: Vec<Reply>,
    /// Events for the host.
    pub events: Vec<Event>,
}

impl Outcome {
    /// Clears it for reuse and keeps its memory.
    pub fn clear(&mut self) {
        self.replies.clear();
        self.records.clear();
        self.confirmed.clear();
        self.events.clear();
    }
}

/// Message types are numbered from 1 to 8.
const KINDS: usize = 9;

/// Counts of messages received, sent and dropped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    received: [u64; KINDS],
    sent: [u64; KINDS],
    /// Requests that were not answered, by reason.
    pub drops: DropCounters,
}

impl Counters {
    /// Well-formed requests of this type.
    pub fn received(&self, kind: MessageType) -> u64 {
        self.received[kind as usize]
    }

    /// Answers of this type.
    pub fn sent(&self, kind: MessageType) -> u64 {
        self.sent[kind as usize]
    }

    pub(super) fn count_received(&mut self, kind: MessageType) {
        self.received[kind as usize] += 1;
    }

    pub(super) fn count_sent(&mut self, kind: MessageType) {
        self.sent[kind as usize] += 1;
    }
}

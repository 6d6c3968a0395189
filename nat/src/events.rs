//! Events of flows: opened, closed, failed, refused.
//!
//! They wait here until the caller takes them. Nothing is noted unless it is wanted, and no more
//! than there is room for: a guest decides how many flows it opens.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use smoltcp::wire::IpProtocol;
use trama_frame::MacAddr;

use crate::drop_reason::DropReason;
use crate::io::PortMark;
use crate::packet::inbound::Inbound;
use crate::rate_limiter::RateLimiter;

/// Most events that wait.
const WAITING: usize = 1024;
/// Events of one guest's port at once, and the time in which one more is allowed: to make and send
/// an event takes as long as some datagrams, for which all other guests would wait.
const BURST: u32 = 512;
const BURST_REFILL: Duration = Duration::from_micros(500);
/// Refused destinations that are remembered; at one more, all are forgotten.
const REFUSED: usize = 1024;
/// Time between two events of one guest's port and one refused destination.
const PAUSE: Duration = Duration::from_secs(1);

/// The protocol of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo.
    Icmp,
}

impl Protocol {
    /// Its word, as in [`FlowRow::protocol`](crate::FlowRow::protocol).
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
    }
}

/// Something that happened to a flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowEvent {
    /// The mark of the guest's port.
    pub port: u64,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The protocol.
    pub protocol: Protocol,
    /// Who began it. For ICMP, the port is the echo identifier.
    pub from: SocketAddr,
    /// The other end; of a UDP flow, which may have several, the first one. Port 0 means none.
    pub to: SocketAddr,
    /// What happened.
    pub change: FlowChange,
}

/// What happened to a flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowChange {
    /// It has opened: the host has connected, or has a socket for it.
    Opened,
    /// It has ended.
    Closed {
        /// Bytes of payload from the guest.
        up: u64,
        /// Bytes of payload to the guest.
        down: u64,
        /// How long it was open, in milliseconds.
        millis: u64,
    },
    /// The host could not connect, for this reason.
    Failed(String),
    /// Guests may not reach the destination.
    Refused {
        /// The label of the reason.
        reason: String,
        /// Packets that were refused since the last event of this destination.
        count: u64,
    },
}

/// Events of flows that wait.
pub struct FlowEvents {
    are_wanted: bool,
    waiting: Vec<FlowEvent>,
    /// Events that found no room, or of which their port had too many.
    lost: u64,
    shares: RateLimiter,
    refused: HashMap<(PortMark, Protocol, SocketAddr), Refused, RandomState>,
}

impl Default for FlowEvents {
    fn default() -> FlowEvents {
        FlowEvents {
            are_wanted: false,
            waiting: Vec::new(),
            lost: 0,
            shares: RateLimiter::new(BURST, BURST_REFILL),
            refused: HashMap::default(),
        }
    }
}

/// Packets to a destination that guests may not reach.
struct Refused {
    told: Duration,
    /// Packets since then.
    count: u64,
}

impl FlowEvents {
    /// Sets whether events are wanted.
    pub fn want(&mut self, are_wanted: bool) {
        if !are_wanted {
            *self = FlowEvents::default();
        }
        self.are_wanted = are_wanted;
    }

    /// Takes the events that wait, and the number of those that are lost.
    pub fn take(&mut self) -> (Vec<FlowEvent>, u64) {
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.lost))
    }

    /// Whether there is something to take.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lost == 0
    }

    /// Notes an event of a guest's port, if events are wanted.
    pub(crate) fn note(
        &mut self,
        now: Duration,
        port: PortMark,
        event: impl FnOnce() -> FlowEvent,
    ) {
        if !self.are_wanted {
            return;
        }
        match self.waiting.len() < WAITING && self.shares.try_take(now, port) {
            true => self.waiting.push(event()),
            false => self.lost += 1,
        }
    }

    /// Notes a packet that was dropped, if policy is the reason; at most one event a second for a
    /// destination.
    pub(crate) fn note_refusal(&mut self, now: Duration, packet: &Inbound<'_>, reason: DropReason) {
        if !self.are_wanted || !reason.is_policy() {
            return;
        }
        let (protocol, from, to) = ends(packet);
        let key = (packet.port, protocol, to);
        if self.refused.len() >= REFUSED && !self.refused.contains_key(&key) {
            self.refused.clear();
        }
        let is_new = !self.refused.contains_key(&key);
        let refused = self.refused.entry(key).or_insert(Refused { told: now, count: 0 });
        refused.count += 1;
        if !is_new && now.saturating_sub(refused.told) < PAUSE {
            return;
        }
        let count = std::mem::take(&mut refused.count);
        refused.told = now;
        let change = FlowChange::Refused { reason: reason.name().to_owned(), count };
        let (port, mac) = (packet.port, packet.mac);
        self.note(now, port, || flow_event((port, mac), protocol, (from, to), change));
    }
}

/// An event of a guest's flow.
pub(crate) fn flow_event(
    (port, mac): (PortMark, MacAddr),
    protocol: Protocol,
    (from, to): (SocketAddr, SocketAddr),
    change: FlowChange,
) -> FlowEvent {
    FlowEvent { port: port.0, mac: mac.0, protocol, from, to, change }
}

/// The end of a flow that opened at a time and carried these bytes.
pub(crate) fn closed(now: Duration, opened: Duration, (up, down): (u64, u64)) -> FlowChange {
    let millis = now.saturating_sub(opened).as_millis() as u64;
    FlowChange::Closed { up, down, millis }
}

/// The ends of a packet, as far as it has L4 ports.
fn ends(packet: &Inbound<'_>) -> (Protocol, SocketAddr, SocketAddr) {
    let protocol = match packet.protocol {
        IpProtocol::Tcp => Protocol::Tcp,
        IpProtocol::Udp => Protocol::Udp,
        _ => Protocol::Icmp,
    };
    let (from, to) = match (protocol, packet.payload.first_chunk()) {
        (Protocol::Tcp | Protocol::Udp, Some([a, b, c, d])) => {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => (0, 0),
    };
    let end = |address, port| SocketAddr::new(address, port);
    (protocol, end(packet.source, from), end(packet.destination, to))
}

#[cfg(test)]
mod tests;

//! What a gateway tells of as it happens: flows, leases, answers of its DNS.
//!
//! Events wait until the process sends them. A guest decides how many there are, so no more wait
//! than there is room for, and the daemon is told how many found none.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
pub use trama_nat::{FlowChange, FlowEvent, Protocol};

/// Most events that wait, and that are sent at once. Each has less than a kilobyte.
pub const WAITING: usize = 2048;

/// Something that has happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// To a flow.
    Flow {
        /// The flow.
        flow: FlowEvent,
        /// The name by which the guest knows the destination.
        name: Option<String>,
    },
    /// To a lease.
    Lease(LeaseEvent),
    /// The gateway's DNS has answered.
    Answer(DnsEvent),
}

/// What has become of a lease, or of the wish for one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseEvent {
    /// The mark of the client's port.
    pub port: u64,
    /// The client's hardware address.
    pub mac: [u8; 6],
    /// The address, if there is one.
    pub address: Option<IpAddr>,
    /// The client's name.
    pub name: Option<String>,
    /// What happened.
    pub change: LeaseChange,
}

/// What happened to a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseChange {
    /// It began.
    Leased,
    /// The client gave it up.
    Released,
    /// It ended by time.
    Expired,
    /// The client found another user of the address.
    Declined,
    /// A host without a lease uses the address.
    Conflict,
    /// The client gets no address, for this reason.
    Refused(String),
}

/// An answer of the gateway's DNS.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DnsEvent {
    /// The mark of the client's port.
    pub port: u64,
    /// The client's MAC address.
    pub mac: [u8; 6],
    /// The client's address.
    pub client: IpAddr,
    /// The type of the records, by its number.
    pub kind: u16,
    /// The name.
    pub name: String,
    /// The response code.
    pub code: u16,
    /// The first address in the answer.
    pub address: Option<IpAddr>,
}

/// Events that wait.
#[derive(Default)]
pub(crate) struct Events {
    waiting: Vec<Event>,
    lost: u64,
}

impl Events {
    /// Adds an event, if there is room.
    pub(crate) fn push(&mut self, event: Event) {
        match self.waiting.len() < WAITING {
            true => self.waiting.push(event),
            false => self.lost += 1,
        }
    }

    /// Counts events that found no room elsewhere.
    pub(crate) fn count_lost(&mut self, events: u64) {
        self.lost += events;
    }

    /// Whether there is something to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lost == 0
    }

    /// Takes the events, and the number of those that found no room.
    pub(crate) fn take(&mut self) -> (Vec<Event>, u64) {
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut events = Events::default();
        let lease = LeaseEvent {
            port: 1,
            mac: [2; 6],
            address: None,
            name: None,
            change: LeaseChange::Refused("pool_full".to_owned()),
        };
        (0..WAITING + 3).for_each(|_| events.push(Event::Lease(lease.clone())));
        events.count_lost(4);
        let (taken, lost) = events.take();
        assert_eq!((taken.len(), lost), (WAITING, 7));
        assert!(events.is_empty());
    }
}

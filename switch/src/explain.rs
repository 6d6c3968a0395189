//! What the switch would do with a frame: the forwarding code itself, asked with one frame.
//!
//! Nothing is learned, counted or sent: addresses are looked up in the table as it stands, and
//! limits are tried on copies. Two things are not foreseen: a full table that would forget the
//! frame's destination to learn its source, and whether the device of an egress port has room.

use std::time::Duration;

use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_frame::{MacAddr, VlanId, VlanTag};
use trama_virtqueue::{RingError, Segment};

use crate::addresses::Addresses;
use crate::drop_reason::DropReason;
use crate::forward::Source;
use crate::mac_table::{Address, Learned, MacTable, PortIndex};
use crate::sources::Sources;
use crate::time::Time;
use crate::types::PortId;

/// What would happen to a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The VLAN that it belongs to, if its port carries it.
    pub vlan: Option<VlanId>,
    /// Why it would be dropped where it enters, if it would.
    pub dropped: Option<DropReason>,
    /// What is known of its destination; `None` if it is not looked up.
    pub route: Option<Route>,
    /// The ports that it would leave by.
    pub exits: Vec<Exit>,
    /// Other ports that carry its VLAN, which do not receive unknown unicast frames that may not be
    /// for them.
    pub withheld: Vec<PortId>,
    /// The mirrors that would copy it, by their places in the network's list.
    pub mirrors: Vec<usize>,
}

/// What is known of a frame's destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// It is a group address.
    Group,
    /// No port is known for it.
    Unknown,
    /// It is known on this port.
    Port {
        /// The port.
        port: PortId,
        /// Time since it was last seen there; `None` if the address is static, or the frame's own
        /// source.
        age: Option<Duration>,
    },
}

/// A port that a frame would leave by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// The port.
    pub port: PortId,
    /// The outermost tag with which it would leave.
    pub tag: Option<VlanTag>,
    /// Why it would be dropped there, if it would.
    pub dropped: Option<DropReason>,
}

impl Explanation {
    /// Returns that of a frame that is dropped before anything of it is looked at.
    pub(crate) fn dropped(reason: Option<DropReason>) -> Explanation {
        let (exits, withheld, mirrors) = (Vec::new(), Vec::new(), Vec::new());
        Explanation { vlan: None, dropped: reason, route: None, exits, withheld, mirrors }
    }
}

/// A burst of one frame without offloads.
pub(crate) struct OneFrame<'a>(pub &'a [u8]);

impl Source for OneFrame<'_> {
    fn len(&self) -> usize {
        1
    }

    fn header(&self, _: usize) -> [u8; HEADER] {
        [0; HEADER]
    }

    fn head(&self, _: usize) -> &[u8] {
        &self.0[..self.0.len().min(PRIVATE_HEAD)]
    }

    fn frame_len(&self, _: usize) -> usize {
        self.0.len()
    }

    fn with_frame<R>(&self, i: usize, f: impl FnOnce(&[u8], &[Segment<'_>]) -> R) -> R {
        let head = self.head(i);
        let rest = &self.0[head.len()..];
        f(head, &[Segment::from(rest)][usize::from(rest.is_empty())..])
    }

    fn error(&self, _: usize) -> Option<RingError> {
        None
    }
}

/// A MAC table that is only looked at.
pub(crate) struct Peek<'a> {
    table: &'a MacTable,
    /// What would have been learned.
    learned: Option<(Address, PortIndex)>,
}

impl<'a> Peek<'a> {
    pub(crate) fn new(table: &'a MacTable) -> Peek<'a> {
        Peek { table, learned: None }
    }
}

impl Addresses for Peek<'_> {
    fn address(&self, vlan: VlanId, mac: MacAddr) -> Address {
        self.table.address(vlan, mac)
    }

    fn is_large(&self) -> bool {
        false
    }

    fn prefetch_second(&self, _: Address) {}

    fn learn_at(&mut self, address: Address, port: PortIndex, _: Time) -> Learned {
        let result = self.table.would_learn(address, port);
        if !matches!(result, Learned::Ignored | Learned::Foreign) {
            self.learned = Some((address, port));
        }
        result
    }

    fn lookup_at(&self, address: Address, now: Time) -> Option<PortIndex> {
        match self.learned {
            Some((known, port)) if known.is_same(address) => Some(port),
            _ => self.table.lookup_at(address, now),
        }
    }

    fn record(&self, _: &mut Sources, _: MacAddr, _: Time) {}
}

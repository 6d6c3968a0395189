//! What goes into the agent and what comes out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::key::{Scope, StationKey};
use crate::row::{Host, Member};
use crate::store::{Answer, Entry, Page, Request, Revision};
use crate::{Name, Refusal, Time};

/// What the agent is told of its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The host.
    pub host: Name,
    /// Its addresses on the underlay; of two hosts that claim one station with the same sequence
    /// number, the one whose first address is lower has it.
    pub vtep: Vec<IpAddr>,
    /// UDP port of its tunnels.
    pub port: u16,
    /// Identifies the boot of the machine ([`Host::boot`]).
    pub boot: String,
    /// How long the host waits before it writes its rows to a store that it reaches again. It
    /// should differ between hosts: all of them may reach the store at one moment.
    pub spread: Duration,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The store is reached, by a connection with a new lease.
    Connected,
    /// The connection is lost: nothing of it arrives any more.
    Lost,
    /// A part of a range that was asked for.
    Page(Scope, Page),
    /// Rows of a watched range changed, in this order; up to the revision there are no others.
    Changed(Scope, Vec<Entry>, Revision),
    /// The revisions that a range or a watch asked for are no longer kept; the watch has ended.
    Compacted(Scope),
    /// What became of the transaction with this number.
    Answered(u64, Answer),
    /// A port is plugged in.
    PortUp {
        /// The port.
        port: Name,
        /// Its network.
        network: Name,
        /// Its stations that are known without a frame: the configured ones. They are sticky.
        stations: Vec<StationKey>,
    },
    /// A port is unplugged.
    PortDown(Name),
    /// A station sent a frame on a port where the switch did not know it.
    Learned {
        /// The port.
        port: Name,
        /// The station.
        station: StationKey,
    },
    /// The switch forgot a station of a port.
    Aged {
        /// The port.
        port: Name,
        /// The station.
        station: StationKey,
    },
    /// So many addresses of the host's blocks are leased or reserved.
    Used {
        /// The network.
        network: Name,
        /// Number of addresses.
        addresses: u32,
    },
    /// Time passed ([`Outcome::next`]).
    Tick,
}

/// A change of the data plane or of the server of addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A host is a member with these addresses now, or no member. Its own membership is not told.
    Peer {
        /// The network.
        network: Name,
        /// The host.
        host: Name,
        /// How it is reached; `None` ends the tunnel.
        member: Option<Member>,
    },
    /// A station is at another host now, or at none that is known; what the switch learned from a
    /// port of its own no longer holds.
    Station {
        /// The network.
        network: Name,
        /// The station.
        station: StationKey,
        /// The host.
        host: Option<Name>,
    },
    /// A port may move frames now, or another host has a port of its name, and it must not.
    Port {
        /// The port.
        port: Name,
        /// The host with a port of this name.
        elsewhere: Option<Name>,
    },
    /// Whether this host leases the addresses of a block ([`crate::row::Block::LEN`]).
    Block {
        /// The network.
        network: Name,
        /// The first address.
        first: Ipv4Addr,
        /// Whether the block is this host's.
        is_own: bool,
    },
    /// Whether tunnels carry frames. They do not while the host may have missed that its rows were
    /// removed for it.
    Tunnels {
        /// Whether they carry frames.
        are_open: bool,
    },
    /// Another machine of this host's name is connected to the store, and writes its rows.
    NameTaken(Host),
}

/// What follows from inputs; it may collect over several.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Outcome {
    /// For the store, in order.
    pub requests: Vec<Request>,
    /// For the data plane, in order.
    pub steps: Vec<Step>,
    /// Keys of rows without effect, and why.
    pub refused: Vec<(Arc<str>, Refusal)>,
    /// When to come back with [`Input::Tick`], if nothing happens before.
    pub next: Option<Time>,
}

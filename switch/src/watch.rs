//! Watches: copies of the frames that pass a port, for captures.
//!
//! A watch sees ports of one network. Control adds it between two bursts. The worker then copies
//! the selected frames into a bounded [queue](queue()) and never waits: a frame that finds no room
//! is counted as missed. A frame that enters is copied once its fate is known, a frame that leaves
//! as its receiver gets it.
//!
//! A watched port leaves the straight path of a frame by branches that stand there for closed
//! ports and for the gateway's. So without a watch no frame takes an instruction more, and with one
//! only those of watched ports do.

mod list;
mod queue;
mod sink;

use crate::drop_reason::DropReason;
use crate::types::PortId;
pub(crate) use list::{Sighting, View, Watches};
pub use queue::{Reader, Record, Writer, queue};
pub(crate) use sink::CopyingSink;

/// Most watches of one network.
pub const MAX_WATCHES: usize = 8;

/// Identifies a watch within its network; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WatchId(pub(crate) u64);

/// The way of a frame through a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the machine into the switch.
    Received,
    /// From the switch to the machine.
    Sent,
}

/// A set of drop reasons.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReasonSet(u64);

const _: () = assert!(DropReason::COUNT <= u64::BITS as usize);

impl ReasonSet {
    /// No reason.
    pub const NONE: ReasonSet = ReasonSet(0);
    /// Every reason.
    pub const ALL: ReasonSet = ReasonSet(u64::MAX >> (u64::BITS as usize - DropReason::COUNT));

    /// Returns whether the reason is one of them.
    pub fn contains(self, reason: DropReason) -> bool {
        self.0 & 1 << reason as u8 != 0
    }
}

impl FromIterator<DropReason> for ReasonSet {
    fn from_iter<I: IntoIterator<Item = DropReason>>(reasons: I) -> ReasonSet {
        ReasonSet(reasons.into_iter().fold(0, |set, reason| set | 1 << reason as u8))
    }
}

/// What a filter sees of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse<'a> {
    /// Its first bytes, private: at least 64 (the whole frame, if it is shorter), at most 128.
    pub head: &'a [u8],
    /// Length of the whole frame, in bytes.
    pub len: usize,
    /// Why it was dropped, if it was.
    pub drop: Option<DropReason>,
}

/// Decides by a frame's beginning whether it is copied. Called on the worker.
pub type Filter = Box<dyn Fn(&Glimpse<'_>) -> bool + Send>;

/// What to copy of the frames at some ports of a network.
pub struct Watch {
    /// The ports; those that are not on the network are left out.
    pub ports: Vec<PortId>,
    /// Whether frames from the machine are copied.
    pub received: bool,
    /// Whether frames to the machine are copied.
    pub sent: bool,
    /// Whether frames that pass are copied.
    pub frames: bool,
    /// Reasons for which dropped frames are copied, at the port where they are counted.
    pub drops: ReasonSet,
    /// Most bytes copied of a frame.
    pub snaplen: usize,
    /// Which of all these are copied; all if `None`.
    pub filter: Option<Filter>,
    /// Where they are copied to.
    pub queue: Writer,
}

/// What a watch did at one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchCount {
    /// The port.
    pub port: PortId,
    /// Frames copied into the queue.
    pub captured: u64,
    /// Frames that found no room in it.
    pub missed: u64,
}

/// The watches that see one port, as bits: one for each place in [`Watches`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Seers {
    pub received: u8,
    pub sent: u8,
}

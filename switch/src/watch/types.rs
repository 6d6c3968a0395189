//! What control asks of a watch, and what the pieces of it tell each other.

use std::num::NonZeroU32;

use crate::drop_reason::DropReason;
use crate::mac_table::PortIndex;
use crate::time::Time;
use crate::types::PortId;

/// Most watches of one network: those of eight captures and of their ring, and two that sample for
/// an export.
pub const MAX_WATCHES: usize = 11;

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

/// Where a frame that entered leaves, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Egress {
    /// Not known: only sampled frames say it.
    #[default]
    Unknown,
    /// By one port.
    Port(PortId),
    /// By every other port that may receive it.
    Several,
}

/// Chooses one frame in `rate` on average.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampling {
    /// The mean distance of two frames that are chosen; 1 = all of them.
    pub rate: NonZeroU32,
    /// Where the random distances begin.
    pub seed: u64,
}

/// Ways of frames through a port.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ways {
    /// From the machine.
    pub received: bool,
    /// To the machine.
    pub sent: bool,
}

impl Ways {
    /// Either way.
    pub const BOTH: Ways = Ways { received: true, sent: true };

    /// Returns whether this way is one of them.
    pub fn include(self, way: Way) -> bool {
        match way {
            Way::Received => self.received,
            Way::Sent => self.sent,
        }
    }
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
    pub received: u16,
    pub sent: u16,
}

/// Where frames were seen, and by which watches.
#[derive(Clone, Copy)]
pub(crate) struct Sighting {
    pub port: PortId,
    pub index: PortIndex,
    pub way: Way,
    pub seers: u16,
}

/// A burst while it is switched.
#[derive(Clone, Copy)]
pub(crate) struct Burst {
    /// The ID of its first frame; the others follow.
    pub first_id: u64,
    pub time: Time,
    /// The queue pair that it was received from.
    pub queue: Option<u16>,
    /// Where the only one that is shown leaves.
    pub egress: Egress,
}

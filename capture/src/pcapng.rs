//! The file of a capture, and the body of the daemon's answer: pcapng
//! (draft-ietf-opsawg-pcapng), of which this is the subset that a switch has something to say in.
//!
//! ```text
//! Section Header          shb_userappl
//! Interface Description   one a port: if_name, if_description, if_tsresol (nanoseconds)
//! Enhanced Packet         one a frame: epb_flags (direction), epb_packetid, epb_queue,
//!                         epb_dropcount, opt_comment (why it was dropped)
//! Interface Statistics    one a port, at the end: isb_ifrecv, isb_ifdrop, opt_comment
//! ```
//!
//! Blocks and options are written and read here: the crates that know the format either lack
//! options (`pcap-file`: `epb_packetid`, `epb_queue`) or only read it. `pcap-file` and Wireshark
//! are the oracles of the tests.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::borrow::Cow;
use std::time::Duration;

pub use reader::{Reader, Unreadable};
pub use writer::Writer;

/// Largest part of a frame that is captured, in bytes; no frame of a switch is longer.
pub const MAX_SNAPLEN: u32 = 262_144;

/// The types of blocks.
mod kind {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const STATISTICS: u32 = 5;
    pub(super) const FRAME: u32 = 6;
}

/// The codes of options, by block.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const COMMENT: u16 = 1;
    pub(super) const SHB_USERAPPL: u16 = 4;
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_DESCRIPTION: u16 = 3;
    pub(super) const IF_TSRESOL: u16 = 9;
    pub(super) const EPB_FLAGS: u16 = 2;
    pub(super) const EPB_DROPCOUNT: u16 = 4;
    pub(super) const EPB_PACKETID: u16 = 5;
    pub(super) const EPB_QUEUE: u16 = 6;
    pub(super) const ISB_IFRECV: u16 = 4;
    pub(super) const ISB_IFDROP: u16 = 5;
}

/// By its order in a file, a reader knows that of all numbers. These are little-endian.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// The link type of Ethernet.
const ETHERNET: u16 = 1;
/// Of `if_tsresol`: 10⁻⁹ s.
const NANOSECONDS: u8 = 9;
/// Of `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const DIRECTION: u32 = 3;

/// Which way a frame went at its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the machine behind the port, into the switch.
    In,
    /// Out of the switch, to the machine.
    Out,
}

/// A port of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface<'a> {
    /// The port's name.
    pub name: Cow<'a, str>,
    /// Its network and VLANs, in words.
    pub description: Cow<'a, str>,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The port, by its place among the interfaces of the section.
    pub interface: u32,
    /// When it passed, since the Unix epoch.
    pub time: Duration,
    /// Its way.
    pub way: Way,
    /// The same for a frame at its entry and at each of its exits.
    pub id: u64,
    /// The queue of the port.
    pub queue: u32,
    /// Frames of this port that were missed since the one before.
    pub missed: u64,
    /// Why it was dropped; `None` if it was not.
    pub comment: Option<Cow<'a, str>>,
    /// Its length in bytes.
    pub len: u32,
    /// The captured part.
    pub bytes: Cow<'a, [u8]>,
}

/// What a capture has seen of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics<'a> {
    /// The port, by its place among the interfaces of the section.
    pub interface: u32,
    /// When the capture of it ended, since the Unix epoch.
    pub time: Duration,
    /// Frames in the file.
    pub captured: u64,
    /// Frames that found no room in the queue.
    pub missed: u64,
    /// Why it ended, unless that was asked for.
    pub comment: Option<Cow<'a, str>>,
}

/// A block of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// The head of a section: the names of interfaces begin again.
    Section,
    /// A port.
    Interface(Interface<'a>),
    /// A frame.
    Frame(Frame<'a>),
    /// The end of a port.
    Statistics(Statistics<'a>),
}

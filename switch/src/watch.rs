//! Watches: copies of the frames that pass a port, for captures.
//!
//! A watch sees ports of one network. Control adds it between two bursts. The worker then copies
//! the selected frames into a bounded [queue](queue()) and never waits: a frame that finds no room
//! is counted as missed. A frame that enters is copied once its fate is known, a frame that leaves
//! as its receiver gets it.
//!
//! A watch may sample: of the frames of each of its ports, it sees one in N, at random. A burst
//! without one costs it a comparison, and nothing of its frames is read.
//!
//! A watched port leaves the straight path of a frame by branches that stand there for closed
//! ports and for the gateway's. So without a watch no frame takes an instruction more, and with one
//! only those of watched ports do.

mod list;
mod queue;
mod sampler;
mod sink;
pub(crate) mod types;

pub use list::{Filter, Watch};
pub(crate) use list::{Sight, Watches};
pub use queue::{Reader, Record, Writer, queue};
pub(crate) use sink::NotingSink;
pub(crate) use types::{Burst, Sighting};
pub use types::{
    Egress, Glimpse, MAX_WATCHES, ReasonSet, Sampling, WatchCount, WatchId, Way, Ways,
};

//! A traffic generator and sink for vhost-user switches, on the driver side of trama's rings.
//!
//! A [`Group`] connects to the vhost-user sockets of any switch as the network cards of virtual
//! machines do, and [`Group::run`] puts a [`Load`] on it. A single thread sends and receives, so it
//! needs one core and one clock. Each frame has a sequence number, which reveals loss, duplicates
//! and reordering, and the time at which it was *scheduled* to be sent. Latency counts from there:
//! a stalled switch delays the frames that cannot be sent, and their delay is measured (no
//! coordinated omission).
//!
//! [`search()`] finds the highest rates that keep a loss ratio (MLRsearch, RFC 9971).
//! [`NullDevice`] is a backend that only copies: its rate is the ceiling of the generator's
//! figures, its latency their floor.

mod clock;
mod cpu;
mod error;
mod frame;
mod group;
mod load;
mod null_device;
mod port;
mod schedule;
mod search;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod waiter;

pub use cpu::pin_to;
pub use error::{Error, Result};
pub use group::Group;
pub use load::{Direction, Load, Outcome};
pub use null_device::{Forwarding, NullDevice, NullDeviceOptions, Serving};
pub use port::Options;
pub use search::{Goal, GoalResult, Limits, search};
pub use stream::{TcpEnd, TcpStream, Transfer};

//! A traffic generator and sink for vhost-user switches, on the driver side of our own rings.
//!
//! A [`Group`] plugs into the vhost-user sockets of any switch as the network cards of virtual
//! machines would, and [`Group::run`] puts a [`Load`] on it. One thread sends and receives, so that
//! one core is all it takes and one clock is all it knows. Each frame carries a sequence number, by
//! which loss, duplicates and reordering are found, and the time at which it was *scheduled* to be
//! sent. Latency counts from there: a switch that stalls delays frames that then cannot be sent,
//! and they count for what they are (no coordinated omission).
//!
//! [`search()`] looks for the highest rates that keep a loss ratio (MLRsearch, RFC 9971).
//! [`NullDevice`] is a backend that only copies: what the generator reaches with it is the ceiling
//! of any figure that was measured by it, and its latency there is the floor.

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
pub use null_device::{Crossing, NullDevice};
pub use port::Options;
pub use search::{Goal, GoalResult, Limits, search};
pub use stream::{TcpEnd, TcpStream};

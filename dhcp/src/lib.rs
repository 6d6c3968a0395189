//! DHCPv4 and DHCPv6 servers and router advertisements as pure state machines: packet and time in;
//! answers, events and the next deadline out. Nothing here does I/O or reads a clock.
#![forbid(unsafe_code)]

pub mod config;
pub mod dhcp6;
mod drop_reason;
mod leases;
pub mod name;
pub mod prefix;
pub mod ra;
pub mod server;
pub mod store;
#[cfg(test)]
mod testing;
mod time;
pub mod wire;

pub use drop_reason::{DropCounters, DropReason};
pub use leases::{Address, Binding, ClientKey, State};
pub use server::PortId;
pub use time::Time;

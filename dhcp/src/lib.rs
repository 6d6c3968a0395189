#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod client_key;
pub mod config;
pub mod dhcp6;
mod drop_reason;
mod leases;
pub mod name;
mod port;
pub mod prefix;
pub mod ra;
pub mod server;
pub mod store;
#[cfg(test)]
mod testing;
mod time;
pub mod wire;

pub use client_key::ClientKey;
pub use drop_reason::{DropCounters, DropReason};
pub use leases::{Address, Binding, State};
pub use port::PortId;
pub use time::Time;

//! The gateway of a network: an engine that answers on the gateway's addresses, and the process
//! that runs it.
//!
//! The gateway is a station on its network like any other. [`Gateway`] is its engine: a frame and
//! the time go in, frames and questions to the host's servers come out; it has no thread, clock or
//! socket, so an embedder or a simulation can drive it as well. [`process`] puts it at the driver
//! side of a ring pair ([`link`]) in a process of its own, which a daemon commands over a
//! [`control`] channel.
#![forbid(unsafe_code)]

mod answers;
mod cable;
mod clock;
mod config;
pub mod control;
mod dhcp;

mod arp_ndp;
mod dns;
mod drop_reason;
mod gateway;
mod io;
mod ip;
mod leases;
pub mod link;
mod packet;
mod privileges;
pub mod process;
pub mod question;
pub mod report;
mod router;

#[cfg(test)]
mod testing;
mod tftp;

pub use config::{
    Config, Dhcp, Discovery, Forward, LoopbackMap, NatConfig, Service, Subnet4, Subnet6, Transport,
};
pub use drop_reason::{Counters, DropReason};
pub use gateway::Gateway;
pub use io::{Output, PortMark, Random, Upstream};

//! The gateway of a network: an engine that answers at the gateway's addresses, and the process
//! that runs it.
//!
//! The gateway is a station on its network like any other. [`Gateway`] is the engine of its
//! services: frames and the time go in, frames and requests come out. It has no thread, clock or
//! socket, so an embedder or a simulation can drive it as well. [`process`] runs it with the NAT of
//! [`trama_nat`] at the driver side of a ring pair ([`link`]) in a process of its own, which a
//! daemon commands over a [`control`] channel.
#![forbid(unsafe_code)]

mod answers;
mod arp_ndp;
mod clock;
mod config;
pub mod control;
mod dhcp;
mod dns;
mod drop_reason;
mod gateway;
mod io;
mod ip;
mod lease_store;
pub mod link;
mod privileges;
pub mod process;
pub mod question;
pub mod report;
mod shared;
#[cfg(test)]
mod testing;
mod tftp;

pub use config::{Config, Dhcp};
pub use drop_reason::{Counters, DropReason, NatDrop, ServiceDrop};
pub use gateway::Gateway;
pub use io::{Output, Upstream};
// What the settings and the engine take from the NAT.
pub use trama_nat::{
    Discovery, Forward, LoopbackMap, PortMark, Random, Rules, Service, Station, Subnet4, Subnet6,
    Transport,
};

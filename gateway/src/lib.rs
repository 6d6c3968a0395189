#![doc = include_str!("../README.md")]
//!
//! [`process`] runs the engine with the NAT at the driver side of a ring pair ([`link`]) in a
//! process of its own, which a daemon commands over a [`control`] channel. The process outlives
//! that daemon, by its [`lifeline`], and another one goes on with it.
#![forbid(unsafe_code)]

mod answers;
mod arp_ndp;
mod clock;
mod config;
mod confinement;
pub mod control;
mod daemon;
mod dhcp;
mod dns;
mod drop_reason;
pub mod event;
mod gateway;
mod io;
mod ip;
mod lease_store;
pub mod lifeline;
pub mod link;
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
pub use trama_nat::explain;
pub use trama_nat::{
    Discovery, Forward, LoopbackMap, PortMark, Random, Rules, Service, Station, Transport,
};

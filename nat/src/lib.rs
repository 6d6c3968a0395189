#![doc = include_str!("../README.md")]
//!
//! # Reading
//!
//! `nat` dispatches what `classify` has classified to the flows of each protocol (`tcp`, `udp`,
//! `icmp`, `reflect`); `policy` decides which destinations are allowed.
#![forbid(unsafe_code)]

mod cable;
mod classify;
mod context;
pub mod dns;
mod drop_reason;
mod events;
pub mod explain;
mod flow_table;
mod forward;
#[cfg(test)]
mod fuzz_tests;
mod host_socket;
mod host_stream;
mod icmp;
mod io;
mod local_address;
mod nat;
mod neighbour_cache;
mod new_flows;
mod outbound;
pub mod packet;
mod policy;
mod rate_limiter;
mod ready_queue;
mod reassembly;
mod reflect;
mod report;
mod rules;
mod station;
mod tcp;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod testing;
mod udp;

pub use cable::Cable;
pub use context::{Context, FIRST_TOKEN};
pub use drop_reason::{Counters, DropReason, PortDrops};
pub use events::{FlowChange, FlowEvent, FlowEvents, Protocol};
pub use io::{Client, PortMark, Random};
pub use nat::{Handled, Nat};
pub use report::{FlowRow, ForwardStatus, NatStatus};
pub use rules::{Config, Discovery, Forward, LoopbackMap, Rules, Transport};
pub use station::{Service, Station, is_broadcast, is_host4, is_host6};

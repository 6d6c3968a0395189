//! `tramad`: configuration, planning, control API, metrics.
//!
//! Every change (start-up, `reload`, `SIGHUP`, `tramactl`) goes the same way: a
//! [`config::model::Config`] is edited or read, [`config::validate`] checks it as a whole,
//! [`plan::plan`] computes the smallest list of steps from the running one, and [`apply`] executes
//! them on the workers. [`state::Daemon`] joins these parts.
#![forbid(unsafe_code)]

mod added_forwards;
pub mod api;
pub mod apply;
mod attached;
mod balance;
pub mod captures;
mod changes;
pub mod config;
pub mod confinement;
mod convert;
pub mod crashes;
pub mod ctl;
pub mod describe;
pub mod descriptors;
mod devices;
mod drop_kinds;
pub mod events;
mod explain;
pub mod export;
mod fault;
mod floods;
mod forwards;
pub mod gateway;
#[cfg(test)]
mod growth;
mod handed;
pub mod host;
mod kept;
mod last_drops;
mod links;
pub mod listeners;
mod loops;
pub mod metrics;
mod moves;
mod namespaces;
pub mod notify;
pub mod panics;
pub mod plan;
mod port_numbers;
pub mod process_name;
mod routes;
pub mod socket;
mod socket_status;
mod spread;
pub mod state;
pub mod status;
mod storms;
mod streams;
pub mod succession;
pub mod take_over;
pub mod upgrade;
mod value_type;
pub mod watchdog;
mod web;

pub use fault::Fault;
pub use moves::MoveError;

//! `tramad`: configuration, planning, control API, metrics.
//!
//! The way of a change, whoever asks for it (start-up, `reload`, `SIGHUP`, `tramactl`):
//! a [`config::model::Config`] is edited or read, [`config::validate`] looks at it as a whole,
//! [`plan::plan`] turns (running, wanted) into the smallest list of steps, [`apply`] executes
//! them on the workers. [`state::Daemon`] is the one place where these meet.
#![forbid(unsafe_code)]

pub mod api;
pub mod apply;
mod balance;
pub mod config;
mod convert;
pub mod ctl;
pub mod gateway;
pub mod host;
pub mod metrics;
mod moves;
mod namespaces;
pub mod notify;
pub mod plan;
mod routes;
pub mod socket;
pub mod state;
pub mod status;

//! `tramad`: configuration, planning, control API, metrics.
#![forbid(unsafe_code)]

pub mod config;

//! Fuzz targets: each takes any bytes, and panics where trama breaks a promise.
//!
//! ```text
//!  seeds (code) ──▶ corpus ──▶ Mutator ──▶ run ──▶ target ──▶ the parser or engine under test
//!                     (libFuzzer in their place: fuzz/)  │
//!                                                        └▶ it panics: shrink, write a file
//! ```
//!
//! A [`Target`] is a function and its seeds: valid inputs, built by code from what the project
//! itself encodes, so that they follow its formats. Each run of a target is independent of those
//! before it, and the inputs follow from one number; so a run prints that number, and it fails
//! again. `tests/targets.rs` runs each target for a bounded number of inputs in `make test`, the
//! program `trama-fuzz` as long as one likes, and `fuzz/` has the same functions for cargo-fuzz.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a target tells that a promise is broken"
)]

mod input;
mod mutator;
mod run;
mod shrink;
mod targets;

pub use mutator::Mutator;
pub use run::{Failure, Limit, run};
pub use shrink::shrink;
pub use targets::{TARGETS, Target, find, isolated};

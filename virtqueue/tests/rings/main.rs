//! Tests of the rings against independent models, in one program to be linked once.
//!
//! - `image`: a guest's memory built by hand, for the rings and for the oracle;
//! - `budget`: chains that are legal one by one and too long together;
//! - `differential`: random rings, valid and malformed, compared with the crate `virtio-queue`;
//! - `exhaustive`: every chain of a small ring, every split of the header;
//! - `round_trip`: driver side and device side against each other;
//! - `reuse`: frames sent again from their buffers, and received in place;
//! - `kicks`: two threads that sleep and must never miss a notification;
//! - `log`: the dirty log while a frontend harvests it, as in a live migration;
//! - `log_model`: the order of its marks, over all interleavings with store buffers;
//! - `race`: a driver that rewrites everything while it is read.
#![cfg(test)]

mod budget;
mod differential;
mod exhaustive;
mod image;
mod kicks;
mod log;
mod log_model;
mod race;
mod random;
mod ready;
mod reuse;
mod round_trip;

//! The keeper: the process that outlives the switch.
//!
//! A switch that dies, or is replaced, must not disturb guests: their connections, the host's TAP
//! devices and the gateways live as long as somebody holds their descriptors. The *keeper* holds
//! them. It parses nothing that a guest has written, needs no privileges and opens nothing.
//!
//! ```text
//!  switch ── put, get: key → bytes, descriptors ──▶ keeper: store
//!  (Keeper)  attach, go                           ─▶         arbiter: which switch is the switch
//! ```
//!
//! - The **store** is a cache of opened things: a switch asks it before it opens something, and puts
//!   what it has opened. The keeper does not interpret values.
//! - The **arbiter** lets one switch serve at a time, and a successor prepare beside it.
//!
//! [`Keeper`] is the switch's side; [`run`] is the process.

mod arbiter;
mod client;
mod process;
mod request;
mod server;
mod store;
pub mod wire;

pub use client::{AttachError, Attached, Keeper, Kept, Resumed, listen_at};
pub use process::{confine, run, serve};
pub use request::{Claim, LONGEST_KEY, LONGEST_VALUE};
pub use store::{MOST_BYTES, MOST_ENTRIES};

//! A cluster in one thread: real agents, a store in memory, a clock that jumps from event to
//! event, and faults by seed.
//!
//! ```text
//!   faults ──▶ World ──Input──▶ Agent ──Step──▶ Plane ◀──looks── oracle
//!                │  ▲             │
//!                ▼  └── Memory ◀──┘ Request, late, lost or answered never
//! ```
//!
//! The oracle knows where each guest is. It demands that the planes of all hosts know it too,
//! once they have had the time to hear of it, and that they do not forget it when they hear no
//! more. A run is a function of its [`Setup`]: the same seed gives the same faults.

#![allow(clippy::expect_used, reason = "a simulation, which stops at what should not be")]

mod faults;
mod guest;
mod host;
mod oracle;
mod rng;
mod world;

pub use guest::Fault;
pub use world::{Break, Figures, Setup, World};

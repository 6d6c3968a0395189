//! The keeper: the process that outlives the switch.
//!
//! A switch that dies, or is replaced, must not disturb guests: their connections, the host's TAP
//! devices and the gateways live as long as a process holds their descriptors. The *keeper* holds
//! them. It parses nothing that a guest has written, needs no privileges and opens nothing.
//!
//! ```text
//!             attach, go     ┌────────────── keeper ──────────────┐
//!  switch ──────────────────▶│ arbiter   which switch serves      │
//!  (Keeper)  put, get        │                                    │
//!         ──────────────────▶│ store     key → bytes, descriptors │
//!            relay, resume   │                                    │
//!         ──────────────────▶│ relays    one for each connection: │
//!  session ◀─── stream ──────┤   log     its past, compacted      ├─── socket ──── frontend (VMM)
//!            messages,       │   the message that is outstanding  │
//!            replies         └────────────────────────────────────┘
//! ```
//!
//! - The **store** is a cache of opened things: a switch asks it before it opens something, and
//!   puts what it has opened. The keeper does not interpret values.
//! - A **relay** stands between a frontend and the session that serves it. It knows vhost-user so
//!   far that it can tell messages apart and remember those that make the state. When a switch
//!   dies, the frontend's socket stays open; the next switch is sent the remembered messages, and
//!   the one that was outstanding.
//! - The **arbiter** lets one switch serve at a time, and a successor prepare meanwhile.
//!
//! A switch talks to the keeper in datagrams, each one change (`request`): what the keeper has is
//! the state before it or after it. When a switch closes its channel, it is gone.
//!
//! A keeper that is killed takes the connections of frontends with it, and nothing else: the switch
//! has copies of its entries, and gives them to a new keeper (`renewal`).
//!
//! Read `request`, then `store`, `arbiter` and `log`, which do no I/O, then `relay` and `server`.
//! [`Keeper`] is the switch's side; [`run`] is the process.

mod arbiter;
mod channel;
mod client;
mod copies;
mod framing;
mod log;
mod process;
mod relay;
mod relays;
mod renewal;
mod request;
mod server;
mod start;
mod store;
pub mod wire;

pub use channel::{AttachError, Attached};
pub use client::{Keeper, Kept, Resumed};
pub use log::MOST_MESSAGES;
pub use process::{confine, run, serve};
pub use request::{Claim, LONGEST_KEY, LONGEST_VALUE};
pub use start::{connect_to, listen_at, spawn};
pub use store::{MOST_BYTES, MOST_ENTRIES};

//! DHCPv6 (RFC 8415): addresses, and parameters for hosts that have addresses already.
//!
//! The server is a state machine like the one of DHCPv4 ([`crate::server`]): a message and the time
//! go in ([`Server6::handle`], [`Server6::poll`]), an [`Outcome6`] comes out. Answers that grant a
//! lease wait in `confirmed` until its record is durable. Leases are chosen, charged to ports and
//! limited by the same code, and stored in the same journal.
//!
//! **One address per client.** The first IA_NA of a message gets it. By default a client is
//! identified by the station that sends its frames, not by its DUID: firmware and operating system
//! of one machine have different ones (see [`crate::config::Identity`]). Further associations are
//! answered with a status that there is no address or prefix.
//!
//! A server with empty ranges is stateless: it answers every association with NoAddrsAvail, so that
//! clients stop asking, and it answers INFORMATION-REQUEST.

mod config;
mod exchange;
mod message;
mod reply;
mod server;
mod solicit;
#[cfg(test)]
mod tests;

pub use config::{Config6, ConfigError6, Settings6};
pub use message::{KINDS, kind_name};
pub use server::{Conflict6, Event6, Outcome6, Received6, Reply6, Server6};
pub use solicit::Solicit;

/// UDP port of servers.
pub const SERVER_PORT: u16 = 547;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 546;

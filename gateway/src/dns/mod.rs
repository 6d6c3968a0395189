//! DNS for guests: a forwarder to the host's resolvers, and the names of the network itself.
//!
//! [`forwarder`] decides; [`pending_query`] queries the servers; [`message`], [`edns`] and [`wire`]
//! parse messages; [`answered`] remembers what guests were told; [`names`] answers for the
//! network's own names; [`shares`] limits each switch port; [`resolvers`] follows the host's
//! `resolv.conf`, parsed by [`resolv_conf`], in [`resolver_files`]; [`sockets`] holds the sockets
//! to servers, [`streams`] those of guests over TCP with the [`framing`] of both. Nothing is
//! cached, so there is nothing to poison.

pub(crate) mod answered;
mod edns;
pub(crate) mod forwarder;
pub(crate) mod message;
mod names;
mod pending_query;
mod resolv_conf;
pub(crate) mod resolver_files;
pub(crate) mod resolvers;
mod shares;
pub(crate) mod sockets;
mod wire;

pub(crate) use trama_nat::dns::PORT;

//! DNS for guests: a forwarder to the host's resolvers, and the names of the network itself.
//!
//! [`forwarder`] decides, [`waiting`] asks the servers of a question, [`message`] and [`edns`] read
//! what they must of a message, [`names`] answers what the network knows itself, [`shares`] says
//! how much each switch port may have, [`resolvers`] follows the host's `resolv.conf`
//! ([`resolv_conf`] reads its text), [`sockets`] speaks with its servers, [`streams`] with guests
//! that ask over TCP. Nothing is cached, so there is nothing to poison: an answer goes to the one
//! who asked and is forgotten.

mod edns;
pub(crate) mod forwarder;
mod message;
mod names;
mod resolv_conf;
pub(crate) mod resolvers;
mod shares;
pub(crate) mod sockets;
mod stream;
pub(crate) mod streams;
mod waiting;
mod wire;

/// Where DNS servers listen.
pub(crate) const PORT: u16 = 53;

//! IPFIX (RFC 7011, information elements of RFC 7012 and IANA's registry): a cache of the flows of
//! sampled frames, and messages with a record for each flow.
//!
//! Octets and packets are estimates of all of the flow: what was sampled, times the distance of two
//! samples. So no sampling interval is stated, by which a collector would multiply again.

mod cache;
mod flow;
mod message;
mod template;

pub use cache::{Cache, Limits};
pub use flow::{Addresses, EndReason, Flow, Key};
pub use message::Exporter;

//! HTTP for clients that may be slow, silent or many: what one of them can occupy.
//!
//! - [`serve`] answers the connections of a listener with a router, within [`Limits`]
//! - [`Stay`] lets a connection go on beyond them: a capture, a stream of events
//! - [`Chunks`] is the body of an answer that grows
#![forbid(unsafe_code)]

mod body;
mod connections;

pub use body::Chunks;
pub use connections::{Accepted, Limits, Listen, Stay, serve};

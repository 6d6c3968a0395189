//! TOML in and out: a text becomes a [`Config`](super::model::Config) or a list of
//! [`Diagnostic`]s, and changes of a configuration are written back into the text.

mod address;
mod boot;
mod daemon;
mod dhcp;
mod diagnostic;
mod document;
mod edit;
mod export;
mod field;
mod file;
mod mirror;
mod network;
mod port;
mod reader;
mod record;
mod rule;
mod socket;
mod tunnel;
pub mod units;
mod wire;

pub use address::{AddressError, parse_address, parse_plain};
pub use diagnostic::Diagnostic;
pub use document::{parse, parse_at, parse_on, ports_of};
pub use edit::edit;
pub use file::Saved;
pub use rule::parse as parse_rule;
pub use units::{format_bytes, parse_size};

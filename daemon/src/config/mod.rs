//! The configuration: its values, how it is read, checked and written back.
//!
//! Four folders, each of which imports only those below it:
//!
//! ```text
//! text/      TOML in and out: keys, units, diagnostics, edits of the file
//! rules/     what must hold: every problem of a configuration, with a remedy
//! derived/   what follows from the values: defaults by mode, addresses, what gateways are sent
//! model/     the values, as plain types
//! ```
//!
//! A new key is added from the top down, in four places. For example the key `tftp` of a network:
//!
//! 1. `text/network.rs` has its name (`KEYS`), reads it (`read`) and writes it (`fields`);
//! 2. `rules/network.rs` refuses it without a gateway, and a path that is not absolute (`tftp`);
//! 3. `derived/gateway.rs` passes it on to the gateway (`gateway`);
//! 4. `model/network.rs` holds it (`Network::tftp`) with its default (`Network::new`).
//!
//! A key of `[network.dhcp]` has its value in [`trama_dhcp::config::Service`]: the model holds it,
//! and the gateway is sent it. Its name is in `text/dhcp.rs`. `derived/dhcp.rs` fills in defaults
//! that depend on the network. The DHCP servers check the values; `rules/dhcp.rs` maps their errors
//! to keys.
//!
//! [`parse`] turns text into a [`model::Config`] or into one [`Diagnostic`] for each mistake;
//! [`validate`] applies the same rules to values that come from elsewhere.

pub mod derived;
pub mod model;
mod rules;
#[cfg(test)]
pub(crate) mod tests;
pub mod text;

pub(crate) use rules::openvswitch;
pub(crate) use rules::port::too_long_prefix;
pub(crate) use rules::records::columns_of;
pub(crate) use rules::subnet::unusable_length;
pub use rules::{Place, Problem, validate};
pub use text::{Diagnostic, Saved, edit, parse, parse_at, parse_on, ports_of};

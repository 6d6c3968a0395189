//! What follows from the values of a configuration: defaults that depend on the mode, well-known
//! addresses, what runs, and what each gateway is sent.

pub mod addresses;
pub mod connections;
pub mod dhcp;
pub mod forward;
pub mod free_addresses;
pub mod gateway;
pub mod network;
pub mod ports;
pub mod running;
pub(crate) mod sockets;
pub mod subnet;
mod vlan;

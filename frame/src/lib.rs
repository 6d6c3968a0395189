//! Ethernet frames as values and byte rewrites: MAC addresses, VLAN tags, the virtio-net
//! header, checksums and software segmentation.
//!
//! This is a leaf crate: it does no I/O, allocates nothing, and knows neither ports nor queues.

pub mod checksum;
mod drop_reason;
pub mod ethernet;
pub mod gso;
mod layout;
pub mod mac;
pub mod offload;
pub mod retag;
#[cfg(test)]
mod testing;
pub mod vlan;
pub mod vnet;

pub use mac::MacAddr;
pub use offload::Offloads;
pub use vlan::{VlanId, VlanTag};
pub use vnet::{HeaderError, VnetHeader};

#![doc = include_str!("../README.md")]

pub mod checksum;
mod drop_reason;
pub mod ethernet;
pub mod gro;
pub mod gso;
mod layout;
pub mod mac;
pub mod offload;
pub mod retag;
#[cfg(test)]
mod testing;
pub mod vlan;
pub mod vnet;
pub mod vxlan;

pub use mac::MacAddr;
pub use offload::Offloads;
pub use vlan::{VlanId, VlanTag};
pub use vnet::{HeaderError, VnetHeader};

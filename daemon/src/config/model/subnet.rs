//! Subnets as they are written in the key `subnet`.

use std::net::IpAddr;

/// The address of the subnet itself, and its prefix length.
pub type Subnet = (IpAddr, u8);

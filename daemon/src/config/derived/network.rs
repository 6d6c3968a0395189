//! What follows from a network's mode: its subnets, its gateway, its NAT.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::model::{Mode, Network};

/// The subnet of a host-only network that states none; VirtualBox's choice.
const DEFAULT_HOST_ONLY: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 56, 0), 24));
/// The subnet of a network with NAT that states none; VirtualBox's choice.
const DEFAULT_NAT: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 0), 24));

impl Network {
    /// The subnets in force: host-only networks and those with NAT have a default.
    pub fn subnets(&self) -> Vec<IpNet> {
        match self.mode {
            Mode::HostOnly if self.subnet.is_empty() => vec![DEFAULT_HOST_ONLY],
            Mode::Nat | Mode::NatNetwork => self.nat_subnets(),
            _ => self.subnet.clone(),
        }
    }

    /// The subnets in force of a network with NAT.
    fn nat_subnets(&self) -> Vec<IpNet> {
        let mut subnets = self.subnet.clone();
        if subnets.is_empty() {
            subnets.push(DEFAULT_NAT);
        }
        if let [IpNet::V4(subnet)] = subnets[..] {
            subnets.push(unique_local(subnet.addr()).into());
        }
        subnets
    }

    /// Whether a gateway process serves the network.
    pub fn has_gateway(&self) -> bool {
        match self.mode {
            Mode::Internal => !self.subnet.is_empty(),
            Mode::HostOnly => self.has_dhcp(),
            Mode::Bridged => false,
            Mode::Nat | Mode::NatNetwork => true,
        }
    }

    /// Whether its guests reach other networks through sockets of the host.
    pub fn has_nat(&self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::NatNetwork)
    }
}

/// The IPv6 subnet that comes with an IPv4 one, as in VirtualBox: its prefix of unique local
/// addresses (RFC 4193), then the second and third byte of the IPv4 subnet.
fn unique_local(address: Ipv4Addr) -> Ipv6Net {
    let [_, b, c, _] = address.octets();
    let network = Ipv6Addr::new(0xfd17, 0x625c, 0xf037, u16::from_be_bytes([b, c]), 0, 0, 0, 0);
    Ipv6Net::new_assert(network, 64)
}

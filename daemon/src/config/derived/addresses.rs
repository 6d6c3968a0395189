//! Well-known addresses within a network's subnets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::subnet;
use crate::config::model::{Mode, Network};

/// Host numbers on a network of mode `nat`, as in VirtualBox.
const GATEWAY: u8 = 2;
const DNS: u8 = 3;
const TFTP: u8 = 4;
/// The host number of the guest on a network of mode `nat`.
pub const GUEST: u8 = 15;

/// Well-known addresses within a subnet.
pub struct WellKnown {
    /// The gateway's address.
    pub gateway: IpAddr,
    /// Address of its DNS server.
    pub dns: IpAddr,
    /// Address of its TFTP server.
    pub tftp: IpAddr,
    /// The guest's address; `None` unless the mode is `nat` and the subnet IPv4.
    pub guest: Option<IpAddr>,
}

impl Network {
    /// Well-known addresses within one of its subnets.
    pub fn well_known(&self, subnet: IpNet) -> WellKnown {
        let host = |number| subnet::host(subnet, number);
        let gateway = match (self.mode, subnet.prefix_len()) {
            (Mode::Nat, _) => host(GATEWAY),
            // The first is the host's. 100 is VirtualBox's choice; a small subnet has no host 100.
            (Mode::HostOnly, 25..=32) => host(2),
            (Mode::HostOnly, _) => host(100),
            _ => host(1),
        };
        if self.mode != Mode::Nat {
            return WellKnown { gateway, dns: gateway, tftp: gateway, guest: None };
        }
        // Guests choose their own IPv6 addresses.
        let guest = subnet.addr().is_ipv4().then(|| host(GUEST));
        WellKnown { gateway, dns: host(DNS), tftp: host(TFTP), guest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::derived::subnet::parsed;

    #[test]
    fn the_gateway_leaves_the_first_address_to_the_host() {
        let at = |mode, subnet: &str| {
            let subnet = parsed(subnet);
            Network { mode, ..Network::new("n") }.well_known(subnet).gateway.to_string()
        };
        assert_eq!(at(Mode::HostOnly, "192.168.56.0/24"), "192.168.56.100");
        assert_eq!(at(Mode::HostOnly, "192.168.56.16/28"), "192.168.56.18");
        assert_eq!(at(Mode::HostOnly, "fd00:56::/64"), "fd00:56::64");
        assert_eq!(at(Mode::Internal, "10.1.0.0/24"), "10.1.0.1");
    }

    #[test]
    fn subnets_move_with_their_hosts() {
        let network = |mode, subnet: &[&str]| Network {
            mode,
            subnet: subnet.iter().map(|it| parsed(it)).collect(),
            ..Network::new("n")
        };
        let gateways = |network: &Network| -> Vec<String> {
            let subnets = network.subnets();
            subnets.iter().map(|it| network.well_known(*it).gateway.to_string()).collect()
        };
        let own = network(Mode::Nat, &["10.0.3.0/24"]);
        assert_eq!(gateways(&own), ["10.0.3.2", "fd17:625c:f037:3::2"]);
        assert_eq!(own.well_known(own.subnets()[0]).guest, Some([10, 0, 3, 15].into()));
        let shared = network(Mode::NatNetwork, &[]);
        assert_eq!(gateways(&shared), ["10.0.2.1", "fd17:625c:f037:2::1"]);
        let both = network(Mode::NatNetwork, &["192.168.7.0/24", "fd00:7::/64"]);
        assert_eq!(gateways(&both), ["192.168.7.1", "fd00:7::1"]);
        assert_eq!(gateways(&network(Mode::Nat, &["fd00:7::/64"])), ["fd00:7::2"]);
    }
}

//! The gateway as a station on its network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use trama_frame::MacAddr;

/// The gateway as a station: its addresses, and its network's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Station {
    /// The gateway's MAC address.
    pub mac: [u8; 6],
    /// The network's MTU in bytes.
    pub mtu: u16,
    /// The gateway's IPv4 address with the prefix of its subnet.
    pub ipv4: Option<Ipv4Net>,
    /// The gateway's IPv6 address with the prefix of its subnet. Its link-local address follows
    /// from the MAC address.
    pub ipv6: Option<Ipv6Net>,
    /// Further addresses in its subnets, each for one service. A service with such addresses is
    /// only offered there, the others at the gateway's own addresses.
    pub service_addresses: Vec<(IpAddr, Service)>,
}

/// A service of the gateway with a port of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Domain name service.
    Dns,
    /// Boot files.
    Tftp,
}

impl Station {
    /// The MAC address.
    pub fn mac(&self) -> MacAddr {
        MacAddr(self.mac)
    }

    /// The link-local address, formed from the MAC address (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
    }

    /// Whether the gateway has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.is_main(address) || self.is_service_address(address)
    }

    /// The gateway's own address of the IP version of `peer`.
    pub fn address_for(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.ipv4.map(|subnet| subnet.addr().into()),
            IpAddr::V6(_) => self.ipv6.map(|subnet| subnet.addr().into()),
        }
    }

    /// Whether this address is for a single service.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.service_addresses.iter().any(|(one, _)| *one == address)
    }

    /// Whether a service is offered at an address of the gateway.
    pub fn offers(&self, service: Service, address: IpAddr) -> bool {
        let mut addresses =
            self.service_addresses.iter().filter(|(_, of)| *of == service).peekable();
        match addresses.peek() {
            Some(_) => addresses.any(|(one, _)| *one == address),
            None => self.is_main(address),
        }
    }

    /// Whether an address is in one of the subnets, broadcast included.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|subnet| subnet.contains(&address)),
            IpAddr::V6(address) => self.ipv6.is_some_and(|subnet| subnet.contains(&address)),
        }
    }

    /// Whether `address` can be a guest's.
    pub fn is_guest(&self, address: IpAddr) -> bool {
        let is_host = match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|subnet| is_host4(subnet, address)),
            IpAddr::V6(address) => self.ipv6.is_some_and(|subnet| is_host6(subnet, address)),
        };
        is_host && !self.has(address)
    }

    /// The address of DNS over IPv6, if it is not the gateway's own.
    pub fn dns6(&self) -> Option<Ipv6Addr> {
        self.service_addresses.iter().find_map(|entry| match entry {
            (IpAddr::V6(address), Service::Dns) => Some(*address),
            _ => None,
        })
    }

    fn is_main(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|subnet| subnet.addr() == address),
            IpAddr::V6(address) => {
                self.ipv6.is_some_and(|subnet| subnet.addr() == address)
                    || address == self.link_local()
            }
        }
    }
}

/// Whether `address` is the broadcast address of `subnet`; /31 and /32 have none (RFC 3021).
pub fn is_broadcast(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.prefix_len() < 31 && address == subnet.broadcast()
}

/// Whether `address` can be a host's: it is in the subnet, and neither the network nor the
/// broadcast address.
pub fn is_host4(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    let is_network = subnet.prefix_len() < 31 && address == subnet.network();
    let is_special = address.is_multicast() || address.is_loopback();
    subnet.contains(&address) && !is_network && !is_broadcast(subnet, address) && !is_special
}

/// Whether `address` is a unicast address of the subnet.
pub fn is_host6(subnet: Ipv6Net, address: Ipv6Addr) -> bool {
    let special = address.is_multicast() || address.is_loopback() || address.is_unspecified();
    !special && subnet.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_a_subnet_are_those_inside_without_its_edges() {
        let net = |prefix| Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 2, 1), prefix);
        let subnet = net(24);
        let host = |last| is_host4(subnet, Ipv4Addr::new(10, 0, 2, last));
        assert!(host(2) && host(254));
        assert!(!host(0) && !host(255));
        assert!(is_broadcast(subnet, Ipv4Addr::new(10, 0, 2, 255)));
        assert!(!is_broadcast(subnet, Ipv4Addr::new(10, 0, 3, 255)));
        assert!(!is_host4(subnet, Ipv4Addr::new(10, 0, 3, 2)));
        let pair = net(31);
        assert!(is_host4(pair, Ipv4Addr::new(10, 0, 2, 0)), "RFC 3021");
        let all = net(0);
        assert!(is_host4(all, Ipv4Addr::new(1, 2, 3, 4)));
        assert!(!is_host4(all, Ipv4Addr::new(224, 0, 0, 1)) && !is_host4(all, Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn the_link_local_address_is_made_of_the_hardware_address() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let service_addresses = Vec::new();
        let station = Station { mac, mtu: 1500, ipv4: None, ipv6: None, service_addresses };
        assert_eq!(station.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }
}

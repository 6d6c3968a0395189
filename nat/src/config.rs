//! A gateway's settings.

mod dhcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trama_frame::MacAddr;

pub use dhcp::Dhcp;

/// The settings of a gateway; all can change while it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The gateway's MAC address.
    pub mac: [u8; 6],
    /// The network's MTU in bytes.
    pub mtu: u16,
    /// The gateway's IPv4 address and subnet.
    pub ipv4: Option<Subnet4>,
    /// The gateway's IPv6 address and subnet. Its link-local address follows from the MAC address.
    pub ipv6: Option<Subnet6>,
    /// Further addresses in its subnets, each for one service. A service with such addresses is
    /// only offered there, the others at the gateway's own addresses.
    pub service_addresses: Vec<(IpAddr, Service)>,
    /// Names that DNS answers in addition to the host's resolvers, and their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// The folder below which TFTP serves files; `None`: no TFTP.
    pub tftp: Option<PathBuf>,
    /// Address configuration of guests; `None`: none.
    pub dhcp: Option<Dhcp>,
    /// NAT to other networks; `None`: none.
    pub nat: Option<NatConfig>,
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

/// What guests can reach outside, and what can reach them.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NatConfig {
    /// Ports of the host that lead to guests.
    pub forwards: Vec<Forward>,
    /// Ports of the host's loopback that guests can reach.
    pub loopback: Vec<LoopbackMap>,
    /// Service discovery on the host's links.
    pub reflect: Vec<Discovery>,
}

/// A protocol of service discovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// Multicast DNS (RFC 6762).
    Mdns,
    /// The Simple Service Discovery Protocol (UPnP Device Architecture 2.0).
    Ssdp,
}

impl Discovery {
    /// All protocols.
    pub const ALL: [Discovery; 2] = [Discovery::Mdns, Discovery::Ssdp];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Discovery::Mdns => "mdns",
            Discovery::Ssdp => "ssdp",
        }
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A range of the host's ports that leads to a guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forward {
    /// The name, unique in the network.
    pub name: String,
    /// The transport protocol.
    pub transport: Transport,
    /// The address where the host listens. `None`: at all addresses of both IP versions, as far as
    /// the host has them; `0.0.0.0` and `::` are all addresses of their version.
    pub host: Option<IpAddr>,
    /// The first port of the host.
    pub host_port: u16,
    /// The guest's address and first port.
    pub guest: SocketAddr,
    /// Ports in the range, at least 1.
    pub count: u16,
    /// Whether the guest sees the gateway's address instead of the client's.
    pub hides_client: bool,
}

/// A port of the host's loopback that is mapped to an address of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoopbackMap {
    /// The transport protocol.
    pub transport: Transport,
    /// The gateway's address and port, which guests connect to.
    pub guest: SocketAddr,
    /// The host's address and port.
    pub host: SocketAddr,
}

impl Config {
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
            IpAddr::V4(_) => self.ipv4.map(|subnet| subnet.address.into()),
            IpAddr::V6(_) => self.ipv6.map(|subnet| subnet.address.into()),
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

    /// Whether the link to the switch has large-frame offloads, which NAT needs for bulk data.
    pub(crate) fn has_large_frames(&self) -> bool {
        self.nat.is_some()
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
            IpAddr::V4(address) => self.ipv4.is_some_and(|subnet| subnet.address == address),
            IpAddr::V6(address) => {
                self.ipv6.is_some_and(|subnet| subnet.address == address)
                    || address == self.link_local()
            }
        }
    }
}

/// An IPv4 address with its subnet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet4 {
    /// The gateway's address.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, 0 to 32.
    pub prefix: u8,
}

impl Subnet4 {
    /// Whether `address` is the subnet's broadcast address.
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        self.prefix < 31 && address.to_bits() == self.address.to_bits() | host
    }

    /// Whether `address` can be a host's: it is in the subnet, and neither the network nor the
    /// broadcast address.
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        let host = address.to_bits() & !self.mask();
        let edge = self.prefix < 31 && (host == 0 || host == !self.mask());
        self.contains(address) && !edge && !address.is_multicast() && !address.is_loopback()
    }

    /// Whether `address` is inside, its edges included.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ address.to_bits()) & self.mask() == 0
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
}

/// An IPv6 address with its subnet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet6 {
    /// The gateway's own address.
    pub address: Ipv6Addr,
    /// Length of the subnet's prefix, 0 to 128.
    pub prefix: u8,
}

impl Subnet6 {
    /// Whether `address` is a unicast address of the subnet.
    pub fn is_host(&self, address: Ipv6Addr) -> bool {
        let special = address.is_multicast() || address.is_loopback() || address.is_unspecified();
        !special && self.contains(address)
    }

    /// Whether `address` is inside.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        (self.address.to_bits() ^ address.to_bits()) & mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_a_subnet_are_those_inside_without_its_edges() {
        let subnet = Subnet4 { address: Ipv4Addr::new(10, 0, 2, 1), prefix: 24 };
        let host = |last| subnet.is_host(Ipv4Addr::new(10, 0, 2, last));
        assert!(host(2) && host(254));
        assert!(!host(0) && !host(255));
        assert!(subnet.is_broadcast(Ipv4Addr::new(10, 0, 2, 255)));
        assert!(!subnet.is_broadcast(Ipv4Addr::new(10, 0, 3, 255)));
        assert!(!subnet.is_host(Ipv4Addr::new(10, 0, 3, 2)));
        let pair = Subnet4 { prefix: 31, ..subnet };
        assert!(pair.is_host(Ipv4Addr::new(10, 0, 2, 0)), "RFC 3021");
        let all = Subnet4 { prefix: 0, ..subnet };
        assert!(all.is_host(Ipv4Addr::new(1, 2, 3, 4)));
        assert!(!all.is_host(Ipv4Addr::new(224, 0, 0, 1)) && !all.is_host(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn the_link_local_address_is_made_of_the_hardware_address() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let config = Config {
            mac,
            mtu: 1500,
            ipv4: None,
            ipv6: None,
            service_addresses: Vec::new(),
            hosts: Vec::new(),
            tftp: None,
            dhcp: None,
            nat: None,
        };
        assert_eq!(config.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }
}

//! What a gateway is told.

mod dhcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trama_frame::MacAddr;

pub use dhcp::Dhcp;

/// A gateway's settings; all of them can change while it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The network's largest layer-3 packet in bytes.
    pub mtu: u16,
    /// Its IPv4 address and subnet.
    pub ipv4: Option<Subnet4>,
    /// Its IPv6 address and subnet. A link-local address comes of itself.
    pub ipv6: Option<Subnet6>,
    /// Further addresses of its subnets, each for one service. A service that has some is offered
    /// at them alone, the others at the gateway's own addresses.
    pub apart: Vec<(IpAddr, Service)>,
    /// Names that DNS knows beside those of the host's resolvers, and their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// The folder below which TFTP serves files; none: no TFTP.
    pub tftp: Option<PathBuf>,
    /// How guests are told their addresses; none: they are not.
    pub dhcp: Option<Dhcp>,
    /// The way to other networks, through sockets of the host; none: there is none.
    pub nat: Option<NatConfig>,
}

/// What a gateway offers to those who ask for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Names to addresses.
    Dns,
    /// Boot files.
    Tftp,
}

/// How a network's guests reach others, and who reaches them.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NatConfig {
    /// Ports of the host that lead to guests of the network.
    pub forwards: Vec<Forward>,
    /// What of the host's loopback its guests reach; nothing else of it.
    pub loopback: Vec<LoopbackMap>,
    /// By which protocols its guests find what is on the host's links.
    pub reflect: Vec<Discovery>,
}

/// A protocol by which guests find others on their link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// Multicast DNS (RFC 6762).
    Mdns,
    /// The simple service discovery protocol (UPnP Device Architecture 2.0).
    Ssdp,
}

impl Discovery {
    /// All of them.
    pub const ALL: [Discovery; 2] = [Discovery::Mdns, Discovery::Ssdp];

    /// As it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            Discovery::Mdns => "mdns",
            Discovery::Ssdp => "ssdp",
        }
    }
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// As it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A range of the host's ports that leads to a guest of the network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forward {
    /// Its name, unique in the network.
    pub name: String,
    /// Of which protocol.
    pub transport: Transport,
    /// Where the host listens. `None`: at all its addresses, of both versions of IP as far as it
    /// has them; `0.0.0.0` and `::` are all addresses of their version alone.
    pub host: Option<IpAddr>,
    /// The first of the host's ports.
    pub host_port: u16,
    /// Where it leads; the port is the first of the range.
    pub guest: SocketAddr,
    /// Ports in the range, at least 1.
    pub count: u16,
    /// Whether the guest sees the gateway's address in place of the client's own.
    pub hides_client: bool,
}

/// An address and port of the network behind which a service of the host's loopback is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoopbackMap {
    /// Of which protocol.
    pub transport: Transport,
    /// What guests connect to, an address of the gateway.
    pub guest: SocketAddr,
    /// Where it leads.
    pub host: SocketAddr,
}

impl Config {
    /// The hardware address.
    pub fn mac(&self) -> MacAddr {
        MacAddr(self.mac)
    }

    /// The link-local address that follows from the hardware address (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
    }

    /// Whether the gateway has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.is_main(address) || self.is_service_address(address)
    }

    /// The gateway's main address of the version that `peer` has.
    pub fn address_for(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.ipv4.map(|subnet| subnet.address.into()),
            IpAddr::V6(_) => self.ipv6.map(|subnet| subnet.address.into()),
        }
    }

    /// Whether the gateway has this address for one service.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.apart.iter().any(|(own, _)| *own == address)
    }

    /// Whether a service is offered at an address of the gateway.
    pub fn offers(&self, service: Service, address: IpAddr) -> bool {
        let mut apart = self.apart.iter().filter(|(_, of)| *of == service).peekable();
        match apart.peek() {
            Some(_) => apart.any(|(own, _)| *own == address),
            None => self.is_main(address),
        }
    }

    /// Whether the cable to the switch takes large frames; a way to other networks moves much.
    pub(crate) fn has_large_frames(&self) -> bool {
        self.nat.is_some()
    }

    /// Where DNS answers over IPv6, if it is not the gateway's own address.
    pub fn dns6(&self) -> Option<Ipv6Addr> {
        self.apart.iter().find_map(|entry| match entry {
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
    /// The gateway's own address.
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

    /// Whether `address` may be a host of the subnet: inside, and neither its first address nor
    /// its broadcast address.
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
            apart: Vec::new(),
            hosts: Vec::new(),
            tftp: None,
            dhcp: None,
            nat: None,
        };
        assert_eq!(config.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }
}

//! Routes, and addresses that others cannot have.

use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Link;
use crate::netlink::{attribute, request};

const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// By which gateway; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its metric; `None`: the kernel's default.
    pub priority: Option<u32>,
}

impl Route {
    /// The default route by a gateway.
    pub fn default_by(gateway: IpAddr) -> Route {
        let destination = match gateway {
            IpAddr::V4(_) => Ipv4Net::default().into(),
            IpAddr::V6(_) => Ipv6Net::default().into(),
        };
        Route { destination, gateway: Some(gateway), priority: None }
    }
}

/// Adds a route of the current namespace through an interface.
pub(crate) fn add_route(route: &Route, ifname: &str) -> io::Result<()> {
    let length = route.destination.prefix_len();
    let scope = if route.gateway.is_some() { 0 } else { RT_SCOPE_LINK };
    // struct rtmsg: family, prefix lengths of destination and source, type of service, table,
    // protocol, scope, type, flags.
    let (family, table, protocol) = (family(route.destination.addr()), RT_TABLE_MAIN, RTPROT_BOOT);
    let mut body = vec![family, length, 0, 0, table, protocol, scope, RTN_UNICAST, 0, 0, 0, 0];
    body.extend(attribute(RTA_DST, &octets(route.destination.network())));
    if let Some(gateway) = route.gateway {
        body.extend(attribute(RTA_GATEWAY, &octets(gateway)));
    }
    if let Some(priority) = route.priority {
        body.extend(attribute(RTA_PRIORITY, &priority.to_ne_bytes()));
    }
    body.extend(attribute(RTA_OIF, &Link::query(ifname)?.index.to_ne_bytes()));
    // A router advertisement may have brought an IPv6 route to the same destination already.
    let exclusive = if route.destination.addr().is_ipv4() { NLM_F_EXCL } else { 0 };
    request(RTM_NEWROUTE, NLM_F_CREATE | exclusive, &body)
}

/// Adds an address to an interface of the current namespace. It is usable at once: the kernel does
/// not look for others that have it (duplicate address detection, RFC 4862).
pub(crate) fn add_address(address: IpAddr, length: u8, ifname: &str) -> io::Result<()> {
    let subnet = IpNet::new(address, length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // struct ifaddrmsg: family, prefix length, flags, scope, number of the interface.
    let mut body = vec![family(address), length, IFA_F_NODAD, 0];
    body.extend(Link::query(ifname)?.index.to_ne_bytes());
    body.extend(attribute(IFA_LOCAL, &octets(address)));
    body.extend(attribute(IFA_ADDRESS, &octets(address)));
    if address.is_ipv4() && length < 31 {
        body.extend(attribute(IFA_BROADCAST, &octets(subnet.broadcast())));
    }
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

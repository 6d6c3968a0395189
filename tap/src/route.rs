//! Default routes.

use std::io;
use std::net::IpAddr;

use crate::Link;
use crate::netlink::{attribute, request};

/// `RTM_NEWROUTE`, with `NLM_F_CREATE` and `NLM_F_EXCL`.
const RTM_NEWROUTE: u16 = 24;
const NEW: u16 = 0x400 | 0x200;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// Adds a default route of the current namespace by a gateway.
pub(crate) fn add_default_route(gateway: IpAddr, ifname: &str) -> io::Result<()> {
    let (family, address) = match gateway {
        IpAddr::V4(gateway) => (libc::AF_INET, gateway.octets().to_vec()),
        IpAddr::V6(gateway) => (libc::AF_INET6, gateway.octets().to_vec()),
    };
    // struct rtmsg: family, prefix lengths of destination and source, type of service, table,
    // protocol, scope, type, flags.
    let (table, protocol) = (RT_TABLE_MAIN, RTPROT_BOOT);
    let mut body = vec![family as u8, 0, 0, 0, table, protocol, 0, RTN_UNICAST, 0, 0, 0, 0];
    body.extend(attribute(RTA_GATEWAY, &address));
    body.extend(attribute(RTA_OIF, &Link::query(ifname)?.index.to_ne_bytes()));
    request(RTM_NEWROUTE, NEW, &body)
}

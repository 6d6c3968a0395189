//! The host's links with service discovery: interfaces that are up and support multicast, without
//! loopback and point-to-point links.

use std::collections::BTreeMap;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// Most links in use.
const MAX_LINKS: usize = 16;

/// A link of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// Whether it has an address of this IP version.
    pub has_v4: bool,
    pub has_v6: bool,
}

/// The links that exist now; empty if the host does not list them.
pub(super) fn scan() -> Vec<Link> {
    let mut links = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
        let others = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_POINTOPOINT;
        let Some(address) = entry.address else { continue };
        if !entry.flags.contains(wanted) || entry.flags.intersects(others) {
            continue;
        }
        let Ok(index) = if_nametoindex(&entry.interface_name[..]) else { continue };
        let name = entry.interface_name;
        let link = links.entry(index);
        let link = link.or_insert(Link { index, name, has_v4: false, has_v6: false });
        link.has_v4 |= address.as_sockaddr_in().is_some();
        link.has_v6 |= address.as_sockaddr_in6().is_some();
    }
    links.into_values().filter(|link| link.has_v4 || link.has_v6).take(MAX_LINKS).collect()
}

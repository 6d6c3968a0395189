//! The multicast groups of service discovery, and which of them the settings reflect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::packet::inbound::Inbound;
use crate::rules::{Config, Discovery};

pub(super) const MDNS4: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);
pub(super) const MDNS6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)), 5353);
/// Over IPv6, devices announce link-local addresses, which guests cannot reach.
pub(super) const SSDP4: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
const GROUPS: [(Discovery, SocketAddr); 3] =
    [(Discovery::Mdns, MDNS4), (Discovery::Mdns, MDNS6), (Discovery::Ssdp, SSDP4)];

/// Whether anything is reflected.
pub(crate) fn is_on(config: Config<'_>) -> bool {
    config.rules.is_some_and(|nat| !nat.reflect.is_empty())
}

pub(crate) fn group_of(
    config: Config<'_>,
    packet: &Inbound<'_>,
) -> Option<(Discovery, SocketAddr)> {
    let [_, _, high, low] = *packet.payload.first_chunk()?;
    let to = SocketAddr::new(packet.destination, u16::from_be_bytes([high, low]));
    wanted(config).find(|(_, group)| *group == to)
}

/// The groups that are reflected.
pub(super) fn wanted(config: Config<'_>) -> impl Iterator<Item = (Discovery, SocketAddr)> + '_ {
    let services = config.rules.map_or(&[][..], |nat| &nat.reflect);
    GROUPS.into_iter().filter(move |(service, group)| {
        let has_version = if group.is_ipv4() {
            config.station.ipv4.is_some()
        } else {
            config.station.ipv6.is_some()
        };
        services.contains(service) && has_version
    })
}

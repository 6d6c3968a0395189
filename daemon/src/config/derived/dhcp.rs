//! The DHCP settings that a network's gateway is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use trama_dhcp::config::{self, Boot, BootFile, Identity, LeaseTimes, Limits, MAX_POOL};
use trama_dhcp::dhcp6::{Boot6, Reservation6};

use super::addresses::{GUEST, WellKnown};
use super::subnet;
use crate::config::model::dhcp::{BOOT_CLIENTS, Dhcp, Reservation};
use crate::config::model::subnet::Subnet;
use crate::config::model::{Mode, Network};

/// The default range of an IPv4 subnet: from the 101st address on, as in VirtualBox; in a subnet
/// smaller than /24, all after the gateway's. With NAT it begins at the address of the guest of
/// mode `nat`, which is the only one in that mode.
fn default_range(network: &Network, subnet: &Subnet) -> Option<RangeInclusive<Ipv4Addr>> {
    let known = network.well_known(subnet);
    let (IpAddr::V4(first), IpAddr::V4(gateway)) = (subnet::host(subnet, 0), known.gateway) else {
        return None;
    };
    let (subnet, hosts) = (first.to_bits(), u32::MAX >> subnet.1);
    let first = match (network.mode, hosts) {
        (Mode::Nat | Mode::NatNetwork, 31..) => subnet + u32::from(GUEST),
        (_, 255..) => subnet + 101,
        _ => gateway.to_bits() + 1,
    };
    let most = if network.mode == Mode::Nat { 1 } else { MAX_POOL as u32 };
    let last = (subnet + hosts - 1).min(first.saturating_add(most - 1));
    // A /30 has no address left.
    (first <= last).then(|| Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last))
}

/// The default range of an IPv6 subnet: 4096 addresses above those that people assign by hand, and
/// far below those that guests choose themselves.
fn default_range6(subnet: &Subnet) -> Option<RangeInclusive<Ipv6Addr>> {
    let IpAddr::V6(first) = subnet::host(subnet, 0) else { return None };
    let at = |number| Ipv6Addr::from_bits(first.to_bits() | number);
    Some(at(0x1000)..=at(0x1fff))
}

/// The DHCP settings of the network's gateway. `folder` holds the leases; `seed` seeds the server.
pub fn for_gateway(
    network: &Network,
    dhcp: &Dhcp,
    folder: &Path,
    seed: u64,
) -> trama_gateway::Dhcp {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let subnet = network.subnets().into_iter().find(|(address, _)| address.is_ipv4());
    let known = subnet.map(|subnet| network.well_known(&subnet));
    let address = |choose: fn(&WellKnown) -> IpAddr| match known.as_ref().map(choose) {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    let ranges = match dhcp.range.as_slice() {
        [] => subnet.and_then(|subnet| default_range(network, &subnet)).into_iter().collect(),
        some => some.to_vec(),
    };
    let limits = Limits::default();
    let subnet6 = network.subnets().into_iter().find(|(address, _)| address.is_ipv6());
    let ranges6 = match dhcp.range6.as_slice() {
        _ if !dhcp.ipv6_leases => Vec::new(),
        [] => subnet6.as_ref().and_then(default_range6).into_iter().collect(),
        some => some.to_vec(),
    };
    let tftp6 = subnet6.map(|subnet| network.well_known(&subnet).tftp);
    let has_domains = dhcp.domain.is_some() || !dhcp.search.is_empty();
    trama_gateway::Dhcp {
        folder: folder.to_owned(),
        seed,
        identity: if network.mode == Mode::Nat { Identity::Alone } else { dhcp.identity },
        ranges,
        lease: LeaseTimes {
            default: seconds(dhcp.lease),
            min: seconds(dhcp.lease_min),
            max: seconds(dhcp.lease_max),
        },
        reservations: reservations(dhcp),
        router: dhcp.router.or_else(|| address(|it| it.gateway).filter(|_| network.has_nat())),
        dns: dhcp.dns.clone().unwrap_or_else(|| address(|it| it.dns).into_iter().collect()),
        domain: dhcp.domain.clone(),
        search: dhcp.search.clone(),
        follows_host: dhcp.host_search && network.has_nat() && !has_domains,
        ntp: dhcp.ntp.clone(),
        routes: dhcp.routes.clone(),
        boot: boot(dhcp, address(|it| it.tftp)),
        limits: Limits {
            addresses: dhcp.leases_per_port,
            offers: limits.offers.max(dhcp.leases_per_port / 4).min(dhcp.leases_per_port),
        },
        ipv6: dhcp.ipv6,
        ranges6,
        reservations6: reservations6(dhcp),
        boot6: boot6(dhcp, tftp6),
    }
}

fn reservations(dhcp: &Dhcp) -> Vec<config::Reservation> {
    let one = |it: &Reservation| {
        let (client, name) = (it.client.clone(), it.name.clone());
        Some(config::Reservation { client, address: it.address?, name })
    };
    dhcp.reservations.iter().filter_map(one).collect()
}

fn reservations6(dhcp: &Dhcp) -> Vec<Reservation6> {
    let one = |it: &Reservation| {
        let (client, name) = (it.client.clone(), it.name.clone());
        Some(Reservation6 { client, address: it.address6?, name })
    };
    dhcp.reservations.iter().filter_map(one).filter(|_| dhcp.ipv6_leases).collect()
}

fn boot(dhcp: &Dhcp, tftp: Option<Ipv4Addr>) -> Option<Boot> {
    let server = dhcp.boot_server.or(tftp).filter(|_| !dhcp.boot_file.is_empty())?;
    Some(Boot { server, server_name: String::new(), files: boot_files(dhcp) })
}

/// A boot server that is not the gateway for IPv4 is not the gateway for IPv6 either.
fn boot6(dhcp: &Dhcp, tftp: Option<IpAddr>) -> Option<Boot6> {
    let own = match tftp {
        Some(IpAddr::V6(address)) if dhcp.boot_server.is_none() => Some(address),
        _ => None,
    };
    let server = dhcp.boot_server6.or(own);
    let parameters = dhcp.boot_params.clone();
    let boot = Boot6 { server, files: boot_files(dhcp), parameters };
    (!boot.files.is_empty()).then_some(boot)
}

fn boot_files(dhcp: &Dhcp) -> Vec<BootFile> {
    let mut files = Vec::new();
    for (client, ipxe, architectures) in BOOT_CLIENTS {
        let Some(name) = dhcp.boot_file.get(client) else { continue };
        let file = |architecture| BootFile { architecture, ipxe, name: name.clone() };
        match architectures {
            [] => files.push(file(None)),
            some => files.extend(some.iter().map(|number| file(Some(*number)))),
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_range_leaves_the_gateway_out() {
        let range = |mode, subnet: &str| {
            let subnet = subnet::parsed(subnet);
            let network = Network { mode, ..Network::new("n") };
            let range = default_range(&network, &subnet);
            range.map(|range| format!("{}-{}", range.start(), range.end())).unwrap_or_default()
        };
        let internal = |subnet| range(Mode::Internal, subnet);
        assert_eq!(range(Mode::HostOnly, "192.168.56.0/24"), "192.168.56.101-192.168.56.254");
        assert_eq!(internal("10.1.0.0/16"), "10.1.0.101-10.1.255.254");
        assert_eq!(internal("10.0.0.0/8"), "10.0.0.101-10.16.0.100");
        assert_eq!(internal("10.1.0.16/28"), "10.1.0.18-10.1.0.30");
        assert_eq!(range(Mode::HostOnly, "10.1.0.0/30"), "");
        assert_eq!(range(Mode::Nat, "10.0.2.0/24"), "10.0.2.15-10.0.2.15");
        assert_eq!(range(Mode::Nat, "10.0.2.32/27"), "10.0.2.47-10.0.2.47");
        assert_eq!(range(Mode::NatNetwork, "10.0.2.0/24"), "10.0.2.15-10.0.2.254");
        assert_eq!(range(Mode::NatNetwork, "10.0.2.0/28"), "10.0.2.2-10.0.2.14");
    }
}

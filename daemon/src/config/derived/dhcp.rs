//! The DHCP settings in force, with the defaults that follow from the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use trama_dhcp::config::{Identity, MAX_POOL, Service, Settings};

use super::addresses::GUEST;
use crate::config::model::dhcp::DhcpSetting;
use crate::config::model::{Mode, Network};

/// The default range of an IPv4 subnet: from the 101st address on, as in VirtualBox; in a subnet
/// smaller than /24, all after the gateway's. With NAT it begins at the address of the guest of
/// mode `nat`, which is the only one in that mode.
fn default_range(network: &Network, subnet: IpNet) -> Option<RangeInclusive<Ipv4Addr>> {
    let known = network.well_known(subnet);
    let (IpNet::V4(net), IpAddr::V4(gateway)) = (subnet, known.gateway) else { return None };
    let (subnet, hosts) = (net.network().to_bits(), net.hostmask().to_bits());
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
fn default_range6(subnet: IpNet) -> Option<RangeInclusive<Ipv6Addr>> {
    let IpNet::V6(net) = subnet else { return None };
    let at = |number| Ipv6Addr::from_bits(net.network().to_bits() | number);
    Some(at(0x1000)..=at(0x1fff))
}

impl Network {
    /// Whether the network has a DHCP server. The same modes have one by default in VirtualBox.
    pub fn has_dhcp(&self) -> bool {
        match self.dhcp {
            DhcpSetting::On(_) => true,
            DhcpSetting::Off => false,
            DhcpSetting::ByMode => {
                matches!(self.mode, Mode::HostOnly | Mode::Nat | Mode::NatNetwork)
            }
        }
    }

    /// First and last addresses of what DHCP leases of one of its subnets, or would by default.
    pub fn lease_ranges(&self, subnet: IpNet) -> Vec<(IpAddr, IpAddr)> {
        let service = self.dhcp().unwrap_or_default();
        let (ranges, ranges6) = (service.settings.ranges, service.ranges6);
        if subnet.addr().is_ipv4() {
            let by_default = default_range(self, subnet).filter(|_| ranges.is_empty());
            return ends(ranges.into_iter().chain(by_default));
        }
        let by_default = default_range6(subnet).filter(|_| ranges6.is_empty());
        ends(ranges6.into_iter().chain(by_default))
    }

    /// The DHCP settings in force: as written, and where nothing is written the defaults that the
    /// network's mode and subnets decide. `None` if the network has no DHCP server.
    pub fn dhcp(&self) -> Option<Service> {
        if !self.has_dhcp() {
            return None;
        }
        let mut service = match &self.dhcp {
            DhcpSetting::On(service) => (**service).clone(),
            DhcpSetting::ByMode | DhcpSetting::Off => Service::default(),
        };
        let subnets = self.subnets();
        // The boot server's default for IPv6 depends on what is written for IPv4.
        let subnet6 = subnets.iter().copied().find(|subnet| subnet.addr().is_ipv6());
        fill_in_ipv6(self, subnet6, &mut service);
        if let Some(subnet) = subnets.iter().copied().find(|it| it.addr().is_ipv4()) {
            fill_in_ipv4(self, subnet, &mut service.settings);
        }
        let Settings { domain, search, .. } = &service.settings;
        service.host_search &= self.has_nat() && domain.is_none() && search.is_empty();
        if self.mode == Mode::Nat {
            service.clients.identity = Identity::Alone;
        }
        Some(service)
    }
}

fn ends<A: Into<IpAddr>>(ranges: impl Iterator<Item = RangeInclusive<A>>) -> Vec<(IpAddr, IpAddr)> {
    let ends = ranges.map(RangeInclusive::into_inner);
    ends.map(|(first, last)| (first.into(), last.into())).collect()
}

fn fill_in_ipv4(network: &Network, subnet: IpNet, settings: &mut Settings) {
    let known = network.well_known(subnet);
    if settings.ranges.is_empty() {
        settings.ranges.extend(default_range(network, subnet));
    }
    if settings.routers.is_empty() && network.has_nat() {
        settings.routers.extend(ipv4(known.gateway));
    }
    settings.dns.get_or_insert_with(|| ipv4(known.dns).into_iter().collect());
    settings.boot.server = settings.boot.server.or(ipv4(known.tftp));
}

fn fill_in_ipv6(network: &Network, subnet: Option<IpNet>, service: &mut Service) {
    if !service.ipv6_leases {
        service.ranges6.clear();
        service.clients.reservations.iter_mut().for_each(|it| it.address6 = None);
    } else if service.ranges6.is_empty() {
        service.ranges6.extend(subnet.and_then(default_range6));
    }
    let boot = &mut service.settings.boot;
    // A boot server that is not the gateway for IPv4 is not the gateway for IPv6 either.
    if let Some(IpAddr::V6(tftp)) = subnet.map(|subnet| network.well_known(subnet).tftp)
        && boot.server.is_none()
    {
        boot.server6.get_or_insert(tftp);
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::derived::subnet;

    #[test]
    fn the_default_range_leaves_the_gateway_out() {
        let range = |mode, subnet: &str| {
            let subnet = subnet::parsed(subnet);
            let network = Network { mode, ..Network::new("n") };
            let range = default_range(&network, subnet);
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

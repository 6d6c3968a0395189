//! Settings of DHCP and router advertisements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trama_dhcp::config::{self, Boot, Identity, LeaseTimes, Limits, Reservation, Settings, Subnet};
use trama_dhcp::dhcp6::{Boot6, Config6, Reservation6, Settings6};
use trama_dhcp::name::DomainName;
use trama_dhcp::prefix::{Prefix, Route};

use super::Config;

/// After how many seconds DHCPv6 clients without a lease renew their parameters.
const REFRESH: u32 = 86_400;
/// Octets of search domains that fit into router advertisements and DHCPv6 messages together with
/// all else: both must fit a packet of 1280 octets.
const SEARCH_OCTETS: usize = 512;

/// Address configuration of guests: DHCPv4 for the IPv4 subnet, router advertisements and DHCPv6
/// for the IPv6 subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dhcp {
    /// The folder of the lease store; it is created if it does not exist.
    pub folder: PathBuf,
    /// Seed of the order in which addresses are leased; unpredictable to guests, and the same in
    /// every run.
    pub seed: u64,
    /// How clients are identified.
    pub identity: Identity,
    /// Addresses to lease.
    pub ranges: Vec<RangeInclusive<Ipv4Addr>>,
    /// Lease times in seconds.
    pub lease: LeaseTimes,
    /// Clients that always get the same address.
    pub reservations: Vec<Reservation>,
    /// The default router; `None`: none.
    pub router: Option<Ipv4Addr>,
    /// DNS servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// The domain of the clients' names.
    pub domain: Option<DomainName>,
    /// Domains to search.
    pub search: Vec<DomainName>,
    /// Whether the search domains are the host's, and follow its changes.
    pub follows_host: bool,
    /// NTP servers, best first.
    pub ntp: Vec<Ipv4Addr>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Network boot.
    pub boot: Option<Boot>,
    /// Limits for each switch port.
    pub limits: Limits,
    /// Whether the IPv6 subnet is advertised.
    pub ipv6: bool,
    /// IPv6 addresses to lease; empty: guests form their own addresses.
    pub ranges6: Vec<RangeInclusive<Ipv6Addr>>,
    /// Clients that always get the same IPv6 address.
    pub reservations6: Vec<Reservation6>,
    /// Network boot over IPv6.
    pub boot6: Option<Boot6>,
}

impl Config {
    /// The settings of the DHCPv4 server; `None` if there is none.
    pub fn dhcp_server(&self) -> Option<config::Config> {
        let (dhcp, ipv4) = (self.dhcp.as_ref()?, self.station.ipv4?);
        let settings = Settings {
            routers: dhcp.router.into_iter().collect(),
            dns: dhcp.dns.clone(),
            domain: dhcp.domain.clone(),
            search: dhcp.search.clone(),
            mtu: Some(self.station.mtu),
            ntp: dhcp.ntp.clone(),
            routes: dhcp.routes.clone(),
            boot: dhcp.boot.clone(),
        };
        let subnet = Subnet {
            prefix: Prefix::new(ipv4.address, ipv4.prefix)?,
            server: ipv4.address,
            ranges: dhcp.ranges.clone(),
            lease: dhcp.lease,
            settings,
        };
        Some(config::Config {
            subnets: vec![subnet],
            reservations: dhcp.reservations.clone(),
            ..dhcp.common()
        })
    }
    /// The settings of the DHCPv6 server; `None` if there is none.
    pub fn dhcp6_server(&self) -> Option<Config6> {
        let (dhcp, ipv6) = (self.dhcp.as_ref().filter(|dhcp| dhcp.ipv6)?, self.station.ipv6?);
        let common = dhcp.common();
        let others =
            self.station.service_addresses.iter().filter_map(|(address, _)| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            });
        Some(Config6 {
            mac: self.station.mac(),
            prefix: (ipv6.address, ipv6.prefix),
            own: others.chain([ipv6.address]).collect(),
            ranges: dhcp.ranges6.clone(),
            reservations: dhcp.reservations6.clone(),
            lease: dhcp.lease.default,
            probe: common.probe,
            offer_hold: common.offer_hold,
            quarantine: common.quarantine,
            limits: common.limits,
            identity: common.identity,
            seed: common.seed,
            settings: Settings6 {
                dns: vec![self.station.dns6().unwrap_or(ipv6.address)],
                search: dhcp.short_search(),
                ntp: Vec::new(),
                refresh: REFRESH,
                boot: dhcp.boot6.clone(),
            },
        })
    }

    /// The DHCP settings, if there are addresses to lease, which needs a lease store.
    pub fn leasing(&self) -> Option<&Dhcp> {
        let leases6 = |dhcp: &Dhcp| self.station.ipv6.is_some() && dhcp.leases_ipv6();
        self.dhcp.as_ref().filter(|dhcp| self.station.ipv4.is_some() || leases6(dhcp))
    }
}

impl Dhcp {
    /// The settings that both servers share.
    fn common(&self) -> config::Config {
        let usual = config::Config::default();
        config::Config {
            limits: self.limits,
            seed: self.seed,
            identity: self.identity,
            // No other guest can have the address already.
            probe: usual.probe.filter(|_| self.identity != Identity::Alone),
            ..usual
        }
    }

    /// Whether IPv6 addresses are leased.
    pub fn leases_ipv6(&self) -> bool {
        self.ipv6 && (!self.ranges6.is_empty() || !self.reservations6.is_empty())
    }

    /// The search domains over IPv6, as far as they fit a packet. IPv6 has no option for a single
    /// domain, so without a search list it is the only entry.
    pub fn short_search(&self) -> Vec<DomainName> {
        let domain = self.domain.as_slice();
        let search = if self.search.is_empty() { domain } else { &self.search };
        let mut octets = 0;
        let fits = |domain: &&DomainName| {
            octets += domain.as_str().len() + 2;
            octets <= SEARCH_OCTETS
        };
        search.iter().take_while(fits).cloned().collect()
    }
}

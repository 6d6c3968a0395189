//! What a network's clients are told, as the gateway is told it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trama_dhcp::config::{self, Boot, Identity, LeaseTimes, Limits, Reservation, Settings, Subnet};
use trama_dhcp::dhcp6::{Boot6, Config6, Reservation6, Settings6};
use trama_dhcp::name::DomainName;
use trama_dhcp::prefix::{Prefix, Route};

use super::Config;

/// After how many seconds DHCPv6 clients without a lease ask again.
const REFRESH: u32 = 86_400;
/// Octets of domains to search that router advertisements and DHCPv6 have room for, whatever else
/// they say: both must fit into one packet of 1280 octets.
const SEARCH_OCTETS: usize = 512;

/// Address configuration of a network's guests: DHCPv4 for its IPv4 subnet, router
/// advertisements and DHCPv6 for its IPv6 subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dhcp {
    /// The folder of the lease store, made if it is missing.
    pub folder: PathBuf,
    /// Which addresses clients get first; the same in every run, and not to be guessed.
    pub seed: u64,
    /// What tells one client from another.
    pub identity: Identity,
    /// Addresses to lease.
    pub ranges: Vec<RangeInclusive<Ipv4Addr>>,
    /// For how long, in seconds.
    pub lease: LeaseTimes,
    /// Clients that always get the same address.
    pub reservations: Vec<Reservation>,
    /// The default router; none: there is no way out.
    pub router: Option<Ipv4Addr>,
    /// DNS servers, best first.
    pub dns: Vec<Ipv4Addr>,
    /// The domain of the clients' names.
    pub domain: Option<DomainName>,
    /// Domains to search.
    pub search: Vec<DomainName>,
    /// Whether those are the host's, as they change.
    pub follows_host: bool,
    /// NTP servers, best first.
    pub ntp: Vec<Ipv4Addr>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Network boot.
    pub boot: Option<Boot>,
    /// What one switch port may take.
    pub limits: Limits,
    /// Whether the IPv6 subnet is advertised.
    pub ipv6: bool,
    /// IPv6 addresses to lease; none: guests make themselves addresses.
    pub ranges6: Vec<RangeInclusive<Ipv6Addr>>,
    /// Clients that always get the same IPv6 address.
    pub reservations6: Vec<Reservation6>,
    /// Network boot by IPv6.
    pub boot6: Option<Boot6>,
}

impl Config {
    /// What the DHCPv4 server serves; `None` if there is none.
    pub fn dhcp_server(&self) -> Option<config::Config> {
        let (dhcp, own) = (self.dhcp.as_ref()?, self.ipv4?);
        let settings = Settings {
            routers: dhcp.router.into_iter().collect(),
            dns: dhcp.dns.clone(),
            domain: dhcp.domain.clone(),
            search: dhcp.search.clone(),
            mtu: Some(self.mtu),
            ntp: dhcp.ntp.clone(),
            routes: dhcp.routes.clone(),
            boot: dhcp.boot.clone(),
        };
        let subnet = Subnet {
            prefix: Prefix::new(own.address, own.prefix)?,
            server: own.address,
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
    /// What the DHCPv6 server serves; `None` if there is none.
    pub fn dhcp6_server(&self) -> Option<Config6> {
        let (dhcp, own) = (self.dhcp.as_ref().filter(|dhcp| dhcp.ipv6)?, self.ipv6?);
        let common = dhcp.common();
        let apart = self.apart.iter().filter_map(|(address, _)| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        Some(Config6 {
            mac: self.mac(),
            prefix: (own.address, own.prefix),
            own: apart.chain([own.address]).collect(),
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
                dns: vec![self.dns6().unwrap_or(own.address)],
                search: dhcp.short_search(),
                ntp: Vec::new(),
                refresh: REFRESH,
                boot: dhcp.boot6.clone(),
            },
        })
    }

    /// The settings, if they have addresses to lease, and so need a lease store.
    pub fn leasing(&self) -> Option<&Dhcp> {
        let leases6 = |dhcp: &Dhcp| self.ipv6.is_some() && dhcp.leases_ipv6();
        self.dhcp.as_ref().filter(|dhcp| self.ipv4.is_some() || leases6(dhcp))
    }
}

impl Dhcp {
    /// What holds for both versions of IP.
    fn common(&self) -> config::Config {
        let usual = config::Config::default();
        config::Config {
            limits: self.limits,
            seed: self.seed,
            identity: self.identity,
            // Nobody else is there to have an address already.
            probe: usual.probe.filter(|_| self.identity != Identity::Alone),
            ..usual
        }
    }

    /// Whether IPv6 addresses are leased.
    pub fn leases_ipv6(&self) -> bool {
        self.ipv6 && (!self.ranges6.is_empty() || !self.reservations6.is_empty())
    }

    /// What clients search by IPv6, as much as has room in one packet: IPv6 has no option for the
    /// domain, so where nothing else is to be searched, it is the only one in the list.
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

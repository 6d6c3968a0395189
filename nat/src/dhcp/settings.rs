//! What a network's clients are told, as the gateway is told it.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trama_dhcp::config::{self, Boot, LeaseTimes, Limits, Reservation, Settings, Subnet};
use trama_dhcp::name::DomainName;
use trama_dhcp::prefix::{Prefix, Route};

use crate::config::Config;

/// Address configuration of a network's machines: DHCPv4 for its IPv4 subnet, router
/// advertisements and stateless DHCPv6 for its IPv6 subnet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dhcp {
    /// The folder of the lease store, made if it is missing.
    pub folder: PathBuf,
    /// Which addresses clients get first; the same in every run, and not to be guessed.
    pub seed: u64,
    /// Whether the network has but one machine, which is whoever asks.
    pub alone: bool,
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
            limits: dhcp.limits,
            seed: dhcp.seed,
            alone: dhcp.alone,
            // Nobody else is there to have an address already.
            probe: config::Config::default().probe.filter(|_| !dhcp.alone),
            ..config::Config::default()
        })
    }
}

//! Settings of DHCP and router advertisements.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trama_dhcp::config::{self, Identity, Service, Settings, Subnet};
use trama_dhcp::dhcp6::{Config6, Settings6};
use trama_dhcp::name::DomainName;

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
    /// The folder of the lease store. The gateway is given it open.
    pub folder: PathBuf,
    /// Seed of the order in which addresses are leased; unpredictable to guests, and the same in
    /// every run.
    pub seed: u64,
    /// What is stated of the link, with its defaults filled in.
    pub service: Service,
}

impl Config {
    /// The settings of the DHCPv4 server; `None` if there is none.
    pub fn dhcp_server(&self) -> Option<config::Config> {
        let (dhcp, ipv4) = (self.dhcp.as_ref()?, self.station.ipv4?);
        let subnet = Subnet {
            prefix: ipv4,
            server: ipv4.addr(),
            mtu: Some(self.station.mtu),
            settings: dhcp.service.settings.clone(),
        };
        Some(config::Config { subnets: vec![subnet], ..dhcp.common() })
    }

    /// The settings of the DHCPv6 server; `None` if there is none.
    pub fn dhcp6_server(&self) -> Option<Config6> {
        let (dhcp, ipv6) =
            (self.dhcp.as_ref().filter(|dhcp| dhcp.service.ipv6)?, self.station.ipv6?);
        let common = dhcp.common();
        let others =
            self.station.service_addresses.iter().filter_map(|(address, _)| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            });
        Some(Config6 {
            mac: self.station.mac(),
            prefix: ipv6,
            own: others.chain([ipv6.addr()]).collect(),
            ranges: dhcp.service.ranges6.clone(),
            clients: common.clients,
            lease: dhcp.service.settings.lease.default,
            probe: common.probe,
            offer_hold: common.offer_hold,
            quarantine: common.quarantine,
            seed: common.seed,
            settings: Settings6 {
                dns: vec![self.station.dns6().unwrap_or(ipv6.addr())],
                search: dhcp.short_search(),
                ntp: Vec::new(),
                refresh: REFRESH,
                boot: dhcp.service.settings.boot.clone(),
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
            clients: self.service.clients.clone(),
            seed: self.seed,
            // No other guest can have the address already.
            probe: usual.probe.filter(|_| self.service.clients.identity != Identity::Alone),
            ..usual
        }
    }

    /// Whether IPv6 addresses are leased.
    pub fn leases_ipv6(&self) -> bool {
        let Service { ipv6, ranges6, clients, .. } = &self.service;
        let reserves = || clients.reservations.iter().any(|it| it.address6.is_some());
        *ipv6 && (!ranges6.is_empty() || reserves())
    }

    /// The settings without the addresses that are leased to no client.
    pub(crate) fn without_taken(&self) -> Dhcp {
        let mut dhcp = self.clone();
        dhcp.service.clients.taken.clear();
        dhcp
    }

    /// The domain of the clients' names.
    pub fn domain(&self) -> Option<&DomainName> {
        self.service.settings.domain.as_ref()
    }

    /// Takes the host's search domains, if the settings say to follow them; returns whether they
    /// do.
    pub(crate) fn follow_host(&mut self, search: &[DomainName]) -> bool {
        if self.service.host_search {
            self.service.settings.search = search.to_vec();
        }
        self.service.host_search
    }

    /// The search domains over IPv6, as far as they fit a packet. IPv6 has no option for a single
    /// domain, so without a search list it is the only entry.
    pub fn short_search(&self) -> Vec<DomainName> {
        let Settings { domain, search, .. } = &self.service.settings;
        let search = if search.is_empty() { domain.as_slice() } else { search };
        let mut octets = 0;
        let fits = |domain: &&DomainName| {
            octets += domain.as_str().len() + 2;
            octets <= SEARCH_OCTETS
        };
        search.iter().take_while(fits).cloned().collect()
    }
}

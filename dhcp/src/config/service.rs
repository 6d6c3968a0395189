//! The settings of DHCP: each is declared here, once.
//!
//! An administrator's configuration, a message to another process and the servers all hold these
//! structs, and pass them on whole. [`Service`] has all that is stated for one link. The DHCPv4
//! server takes its [`Settings`] and [`Clients`] ([`super::Config`]), the DHCPv6 server its
//! [`Clients`] and [`Boot`] ([`crate::dhcp6::Config6`]).
//!
//! A value that is `None` or an empty list is not sent to clients. Who holds the settings may fill
//! such values in before a server gets them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trama_frame::MacAddr;

use super::boot::Boot;
use crate::name::{DomainName, HostName};
use crate::prefix::Route;

/// The address configuration of one link: DHCPv4, DHCPv6 and router advertisements.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// What clients get over IPv4, and as far as it applies over IPv6.
    pub settings: Settings,
    /// How clients are told apart and limited.
    pub clients: Clients,
    /// Whether the domains to search are the host's, and follow its changes.
    pub host_search: bool,
    /// Whether the IPv6 subnet is advertised.
    pub ipv6: bool,
    /// Whether IPv6 addresses are leased.
    pub ipv6_leases: bool,
    /// IPv6 addresses to lease.
    pub ranges6: Vec<RangeInclusive<Ipv6Addr>>,
}

impl Default for Service {
    /// Both IP versions, with the host's domains.
    fn default() -> Service {
        Service {
            settings: Settings::default(),
            clients: Clients::default(),
            host_search: true,
            ipv6: true,
            ipv6_leases: true,
            ranges6: Vec::new(),
        }
    }
}

/// The addresses of a subnet, and the parameters that clients get with them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Addresses to lease. The server's own, the routers' and reserved ones among them are left
    /// out.
    pub ranges: Vec<RangeInclusive<Ipv4Addr>>,
    /// Lease times.
    pub lease: LeaseTimes,
    /// Routers, best first (option 3).
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers, best first (option 6).
    pub dns: Option<Vec<Ipv4Addr>>,
    /// The domain of the clients' names (option 15; without it, that is the first to search).
    pub domain: Option<DomainName>,
    /// Domains to search (option 119; DHCPv6 option 24).
    pub search: Vec<DomainName>,
    /// NTP servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Static routes (option 121). The default route by the first router is added to them, since
    /// clients that read them ignore option 3.
    pub routes: Vec<Route>,
    /// Network boot.
    pub boot: Boot,
}

/// How long leases last, in whole seconds on the wire. DHCPv6 clients get `default`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseTimes {
    /// For clients that ask for none.
    pub default: Duration,
    /// Shortest that is granted.
    pub min: Duration,
    /// Longest that is granted.
    pub max: Duration,
}

impl LeaseTimes {
    /// The times in seconds.
    pub const fn from_secs(default: u32, min: u32, max: u32) -> LeaseTimes {
        LeaseTimes {
            default: Duration::from_secs(default as u64),
            min: Duration::from_secs(min as u64),
            max: Duration::from_secs(max as u64),
        }
    }
}

impl Default for LeaseTimes {
    fn default() -> LeaseTimes {
        LeaseTimes::from_secs(3600, 120, 86400)
    }
}

/// How clients are told apart and limited, and which addresses are not for them, by both servers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Clients {
    /// How they are identified.
    pub identity: Identity,
    /// How many addresses one port may occupy.
    pub limits: Limits,
    /// Clients that always get the same addresses.
    pub reservations: Vec<Reservation>,
    /// Addresses of hosts that ask no server: they are leased to no client.
    pub taken: Vec<IpAddr>,
}

impl Clients {
    /// The IPv4 addresses of [`Clients::taken`].
    pub(crate) fn taken4(&self) -> HashSet<Ipv4Addr> {
        let taken = self.taken.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        taken.collect()
    }

    /// The IPv6 addresses of [`Clients::taken`].
    pub(crate) fn taken6(&self) -> HashSet<Ipv6Addr> {
        let taken = self.taken.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        });
        taken.collect()
    }
}

/// How clients are identified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The hardware address, whatever identifier comes with it: boot firmware, boot loader and
    /// system of a machine send different ones, and are one client. A reservation by identifier
    /// comes first.
    #[default]
    Hardware,
    /// The client identifier, else the hardware address (RFC 2131, 4.2).
    ClientId,
    /// Nothing: there is one machine, which has one address.
    Alone,
}

/// How many addresses one port may occupy. A pool with at least `addresses` × ports addresses
/// always has one for a port that is within its share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Addresses that a port's clients may occupy together: leased, remembered, offered, declined
    /// or claimed in answer to a probe.
    pub addresses: u32,
    /// How many of them may be offers that were not taken up.
    pub offers: u32,
}

impl Limits {
    /// The limits of a port that may occupy this many addresses: a quarter of them, and at least
    /// four, may be offers.
    pub fn per_port(addresses: u32) -> Limits {
        Limits { addresses, offers: (addresses / 4).max(4).min(addresses) }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::per_port(16)
    }
}

/// A client that always gets the same addresses. Each server passes over those without an address
/// of its IP version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// The client.
    pub client: ClientMatch,
    /// Its IPv4 address, in one of the subnets.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address, within the link's prefix.
    pub address6: Option<Ipv6Addr>,
    /// Its name; no other client gets it.
    pub name: Option<HostName>,
}

/// How a reservation identifies its client.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientMatch {
    /// Hardware address.
    #[serde(with = "text")]
    Mac(MacAddr),
    /// Client identifier, all octets of option 61; of a DHCPv6 client its DUID, or what it would
    /// send as option 61 (RFC 4361).
    Id(Vec<u8>),
}

/// Hardware addresses as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use trama_frame::MacAddr;

    pub(super) fn serialize<S: Serializer>(
        mac: &MacAddr,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<MacAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

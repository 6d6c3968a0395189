//! `[network.dhcp]`: the addresses and options that a network's DHCP server hands out.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use trama_dhcp::config::{ClientMatch, Identity, LeaseTimes, Limits};
use trama_dhcp::name::{DomainName, HostName};
use trama_dhcp::prefix::Route;

/// The key `dhcp` of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpSetting {
    /// It is not there: the mode decides.
    #[default]
    ByMode,
    /// `false`.
    Off,
    /// `true`, or a table.
    On(Box<Dhcp>),
}

/// What the table `[network.dhcp]` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dhcp {
    /// IPv4 addresses to lease; none: those that its subnet has by default.
    pub range: Vec<RangeInclusive<Ipv4Addr>>,
    /// IPv6 addresses to lease; none: those that its subnet has by default.
    pub range6: Vec<RangeInclusive<Ipv6Addr>>,
    /// How long a lease lasts, for clients that do not ask.
    pub lease: Duration,
    /// Shortest lease.
    pub lease_min: Duration,
    /// Longest lease.
    pub lease_max: Duration,
    /// The domain of the clients' names.
    pub domain: Option<DomainName>,
    /// Domains to search.
    pub search: Vec<DomainName>,
    /// Whether the host's domains are handed on where there is a NAT and neither of those is set.
    pub host_search: bool,
    /// DNS servers; `None` = the gateway.
    pub dns: Option<Vec<Ipv4Addr>>,
    /// The default router; `None` = the gateway, if it leads anywhere.
    pub router: Option<Ipv4Addr>,
    /// NTP servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// The TFTP server to boot from; `None` = the gateway.
    pub boot_server: Option<Ipv4Addr>,
    /// The TFTP server to boot from by IPv6; `None` = the gateway, if `boot_server` is it too.
    pub boot_server6: Option<Ipv6Addr>,
    /// Boot files by the clients that they are for, see [`BOOT_CLIENTS`].
    pub boot_file: BTreeMap<String, String>,
    /// Parameters for the boot file, by DHCPv6.
    pub boot_params: Vec<String>,
    /// Whether clients are told apart by hardware address or by what they call themselves.
    pub identity: Identity,
    /// Addresses that the clients behind one port may have.
    pub leases_per_port: u32,
    /// Whether the IPv6 subnet is advertised.
    pub ipv6: bool,
    /// Whether IPv6 addresses are leased.
    pub ipv6_leases: bool,
    /// Clients that always get the same address.
    pub reservations: Vec<Reservation>,
}

/// A client that always gets the same addresses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reservation {
    /// The client.
    pub client: ClientMatch,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// Its name.
    pub name: Option<HostName>,
}

impl Default for Dhcp {
    fn default() -> Dhcp {
        let LeaseTimes { default, min, max } = LeaseTimes::default();
        let seconds = |count: u32| Duration::from_secs(count.into());
        Dhcp {
            range: Vec::new(),
            range6: Vec::new(),
            lease: seconds(default),
            lease_min: seconds(min),
            lease_max: seconds(max),
            domain: None,
            search: Vec::new(),
            host_search: true,
            dns: None,
            router: None,
            ntp: Vec::new(),
            routes: Vec::new(),
            boot_server: None,
            boot_server6: None,
            boot_file: BTreeMap::new(),
            boot_params: Vec::new(),
            identity: Identity::Hardware,
            leases_per_port: Limits::default().addresses,
            ipv6: true,
            ipv6_leases: true,
            reservations: Vec::new(),
        }
    }
}

/// The client that a boot file is for if it is written as a string: any.
pub const ANY_CLIENT: &str = "any";
/// Kinds of clients that have boot files, the more particular first: whether it is iPXE, and the
/// architectures (RFC 4578, 2.1, and its registry: 7 and 9 are both in use for x86-64, 16 and 19 are
/// x86-64 and arm64 that boot by HTTP).
pub const BOOT_CLIENTS: [(&str, Option<bool>, &[u16]); 7] = [
    ("ipxe", Some(true), &[]),
    ("bios", None, &[0]),
    ("uefi-http", None, &[16]),
    ("arm64-http", None, &[19]),
    ("uefi", None, &[7, 9, 16]),
    ("arm64", None, &[11, 19]),
    (ANY_CLIENT, None, &[]),
];

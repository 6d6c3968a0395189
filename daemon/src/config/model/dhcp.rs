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
    /// The key is absent: the mode decides.
    #[default]
    ByMode,
    /// `false`.
    Off,
    /// `true`, or a table.
    On(Box<Dhcp>),
}

/// The table `[network.dhcp]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dhcp {
    /// IPv4 addresses to lease; empty = the subnet's default range.
    pub range: Vec<RangeInclusive<Ipv4Addr>>,
    /// IPv6 addresses to lease; empty = the subnet's default range.
    pub range6: Vec<RangeInclusive<Ipv6Addr>>,
    /// Duration of a lease for a client that asks for none.
    pub lease: Duration,
    /// Shortest lease.
    pub lease_min: Duration,
    /// Longest lease.
    pub lease_max: Duration,
    /// The domain of the clients' names (option 15).
    pub domain: Option<DomainName>,
    /// The domain search list (option 119).
    pub search: Vec<DomainName>,
    /// Whether clients get the host's search domains; only on networks with NAT that set neither
    /// `domain` nor `search`.
    pub host_search: bool,
    /// DNS servers; `None` = the gateway.
    pub dns: Option<Vec<Ipv4Addr>>,
    /// The default router; `None` = the gateway on networks with NAT, else no router.
    pub router: Option<Ipv4Addr>,
    /// NTP servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Classless static routes (option 121).
    pub routes: Vec<Route>,
    /// The TFTP server to boot from; `None` = the gateway.
    pub boot_server: Option<Ipv4Addr>,
    /// The TFTP server to boot from by IPv6; `None` = the gateway, unless `boot_server` is set.
    pub boot_server6: Option<Ipv6Addr>,
    /// Boot files by kind of client, see [`BOOT_CLIENTS`].
    pub boot_file: BTreeMap<String, String>,
    /// Parameters for the boot file (DHCPv6 option 60).
    pub boot_params: Vec<String>,
    /// Whether clients are identified by hardware address or by client identifier.
    pub identity: Identity,
    /// The number of addresses that the clients behind one port may hold.
    pub leases_per_port: u32,
    /// Whether the IPv6 subnet is advertised.
    pub ipv6: bool,
    /// Whether IPv6 addresses are leased.
    pub ipv6_leases: bool,
    /// Reservations.
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

/// The kind of client that a boot file is for if it is written as a string: every client.
pub const ANY_CLIENT: &str = "any";
/// Kinds of clients that have boot files, the more specific first: name, whether the client is
/// iPXE, architectures (RFC 4578, 2.1, and its registry: 7 and 9 are both in use for x86-64; 16 and
/// 19 are x86-64 and arm64 that boot by HTTP).
pub const BOOT_CLIENTS: [(&str, Option<bool>, &[u16]); 7] = [
    ("ipxe", Some(true), &[]),
    ("bios", None, &[0]),
    ("uefi-http", None, &[16]),
    ("arm64-http", None, &[19]),
    ("uefi", None, &[7, 9, 16]),
    ("arm64", None, &[11, 19]),
    (ANY_CLIENT, None, &[]),
];

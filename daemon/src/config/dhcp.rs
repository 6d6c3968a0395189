//! `[network.dhcp]`: how machines of a network are told their addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use trama_dhcp::config::{
    self, Boot, BootFile, ClientMatch, ConfigError, Identity, LeaseTimes, Limits, MAX_POOL,
};
use trama_dhcp::dhcp6::{Boot6, ConfigError6, Reservation6};
use trama_dhcp::name::{DomainName, HostName};
use trama_dhcp::prefix::Route;

use super::model::{Mode, Network};
use super::nat::{GUEST, Places};
use super::subnet::{self, Subnet};
use super::validate::{Check, Place};

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

impl Network {
    /// What its machines are told their addresses by; `None` if they are not.
    pub fn dhcp(&self) -> Option<Dhcp> {
        match (&self.dhcp, self.mode) {
            (DhcpSetting::On(dhcp), _) => Some((**dhcp).clone()),
            // As VirtualBox has it.
            (DhcpSetting::ByMode, Mode::HostOnly | Mode::Nat | Mode::NatNetwork) => {
                Some(Dhcp::default())
            }
            (DhcpSetting::ByMode | DhcpSetting::Off, _) => None,
        }
    }
}

/// The range of a subnet that is leased if none is written: all from the 101st address on, as
/// VirtualBox has it; of a subnet smaller than /24, all behind the gateway's address. Behind a NAT
/// all from the one on that the machine of mode `nat` has, there that one alone.
fn default_range(network: &Network, subnet: &Subnet) -> Option<RangeInclusive<Ipv4Addr>> {
    let places = network.places(subnet);
    let (IpAddr::V4(first), IpAddr::V4(gateway)) = (subnet::host(subnet, 0), places.gateway) else {
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
    // A /30 has no address for anybody else.
    (first <= last).then(|| Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last))
}

/// The range of an IPv6 subnet that is leased if none is written: 4096 addresses above those that
/// people give by hand, and far below those that machines make themselves.
fn default_range6(subnet: &Subnet) -> Option<RangeInclusive<Ipv6Addr>> {
    let IpAddr::V6(first) = subnet::host(subnet, 0) else { return None };
    let at = |number| Ipv6Addr::from_bits(first.to_bits() | number);
    Some(at(0x1000)..=at(0x1fff))
}

/// The settings as the network's gateway takes them.
pub fn for_gateway(network: &Network, dhcp: &Dhcp, folder: &Path, seed: u64) -> trama_nat::Dhcp {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let subnet = network.subnets().into_iter().find(|(address, _)| address.is_ipv4());
    let places = subnet.map(|subnet| network.places(&subnet));
    let place = |choose: fn(&Places) -> IpAddr| match places.as_ref().map(choose) {
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
    let tftp6 = subnet6.map(|subnet| network.places(&subnet).tftp);
    let has_domains = dhcp.domain.is_some() || !dhcp.search.is_empty();
    trama_nat::Dhcp {
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
        router: dhcp.router.or_else(|| place(|it| it.gateway).filter(|_| network.has_nat())),
        dns: dhcp.dns.clone().unwrap_or_else(|| place(|it| it.dns).into_iter().collect()),
        domain: dhcp.domain.clone(),
        search: dhcp.search.clone(),
        follows_host: dhcp.host_search && network.has_nat() && !has_domains,
        ntp: dhcp.ntp.clone(),
        routes: dhcp.routes.clone(),
        boot: boot(dhcp, place(|it| it.tftp)),
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

/// Files on another IPv4 server are not on the gateway's either.
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

impl Check {
    /// The table `dhcp` of the network with this number.
    pub(super) fn dhcp(&mut self, index: usize, network: &Network) {
        let DhcpSetting::On(dhcp) = &network.dhcp else { return };
        if network.mode == Mode::Bridged {
            let message = "the machines of a bridged network ask the DHCP server of its LAN";
            return self.problem("dhcp", message, "remove it");
        }
        if network.subnets().is_empty() {
            let remedy = r#"add subnet = "10.1.0.0/24", or remove dhcp"#;
            return self.problem("dhcp", "there is no subnet to take addresses from", remedy);
        }
        if network.subnets().iter().any(|subnet| subnet::check(subnet).is_err()) {
            return;
        }
        if let Some(bad) =
            dhcp.boot_file.keys().find(|key| !BOOT_CLIENTS.iter().any(|(name, ..)| name == key))
        {
            let known = BOOT_CLIENTS.map(|(name, ..)| name).join(", ");
            let message = format!("{bad:?} is no kind of client");
            self.dhcp_problem(index, network, ("boot-file", message, format!("use {known}")));
        }
        let Some(config) =
            crate::convert::gateway_at(network, [2, 0, 0, 0, 0, 1], Path::new("/"), 0)
        else {
            return;
        };
        self.dhcp_subnets(index, network, dhcp, (config.ipv4.is_some(), config.ipv6.is_some()));
        if let Some(Err(error)) = config.dhcp_server().map(|server| server.check()) {
            self.dhcp_error(index, network, &dhcp.reservations, &error);
        }
        if let Some(Err(error)) = config.dhcp6_server().map(|server| server.check()) {
            self.dhcp6_error(index, network, &dhcp.reservations, &error);
        }
    }

    /// Whether there is a subnet of each version of IP of which addresses are written.
    fn dhcp_subnets(
        &mut self,
        index: usize,
        network: &Network,
        dhcp: &Dhcp,
        (ipv4, ipv6): (bool, bool),
    ) {
        for (version, has_subnet, has_range) in
            [("IPv4", ipv4, !dhcp.range.is_empty()), ("IPv6", ipv6, !dhcp.range6.is_empty())]
        {
            if has_range && !has_subnet {
                let message = format!("the network has no {version} subnet");
                let remedy = "add one to its subnet, or remove range".to_owned();
                self.dhcp_problem(index, network, ("range", message, remedy));
            }
        }
        for (number, it) in dhcp.reservations.iter().enumerate() {
            let version = match (it.address, it.address6) {
                (Some(_), _) if !ipv4 => "IPv4",
                (_, Some(_)) if !ipv6 => "IPv6",
                _ => continue,
            };
            let message = format!("the network has no {version} subnet");
            self.enter(Place::Reservation(index, number), &network.name);
            self.problem("address", message, "add one to its subnet, or remove the address");
            self.enter(Place::Network(index), &network.name);
        }
    }

    /// As [`Check::dhcp_error`], for DHCPv6.
    fn dhcp6_error(
        &mut self,
        index: usize,
        network: &Network,
        list: &[Reservation],
        error: &ConfigError6,
    ) {
        let of_address =
            |address: &Ipv6Addr| list.iter().rposition(|it| it.address6 == Some(*address));
        let (reservation, key) = match error {
            ConfigError6::RangeOutside(..)
            | ConfigError6::RangesOverlap(..)
            | ConfigError6::PoolTooLarge => (None, "range"),
            ConfigError6::ReservationOutside(address)
            | ConfigError6::ReservationOfServer(address)
            | ConfigError6::AddressTwice(address) => (of_address(address), "address"),
            ConfigError6::ClientMac(address) => (of_address(address), "mac"),
            ConfigError6::ClientTwice(address) => {
                let number = of_address(address);
                (number, client_key(number.map(|number| &list[number])))
            }
        };
        self.dhcp_problem_at((index, reservation), network, key, &error.to_string());
    }

    fn dhcp_problem(
        &mut self,
        index: usize,
        network: &Network,
        (key, message, remedy): (&'static str, String, String),
    ) {
        self.enter(Place::Dhcp(index), &network.name);
        self.problem(key, message, remedy);
        self.enter(Place::Network(index), &network.name);
    }

    /// An error of the server's own check, at the key that it is about.
    fn dhcp_error(
        &mut self,
        index: usize,
        network: &Network,
        list: &[Reservation],
        error: &ConfigError,
    ) {
        let of_address =
            |address: &Ipv4Addr| list.iter().rposition(|it| it.address == Some(*address));
        let (reservation, key) = match error {
            ConfigError::RangeOutside(..)
            | ConfigError::RangesOverlap(..)
            | ConfigError::PoolTooLarge => (None, "range"),
            ConfigError::LeaseTimes(_) => (None, "lease"),
            ConfigError::ReservationOutside(address)
            | ConfigError::ReservationOfServer(address)
            | ConfigError::AddressTwice(address) => (of_address(address), "address"),
            ConfigError::ClientTwice(address) => {
                let number = of_address(address);
                (number, client_key(number.map(|number| &list[number])))
            }
            ConfigError::ClientId(address) => (of_address(address), "id"),
            ConfigError::ClientMac(address) => (of_address(address), "mac"),
            ConfigError::NameTwice(name) => {
                (list.iter().rposition(|it| it.name.as_ref() == Some(name)), "name")
            }
            ConfigError::BootName(_) => (None, "boot-file"),
            ConfigError::Limits => (None, "leases-per-port"),
            // The network's own keys, which are checked there.
            ConfigError::Mtu(..)
            | ConfigError::NoSubnet
            | ConfigError::SubnetsOverlap(..)
            | ConfigError::ServerOutside(..) => return,
        };
        self.dhcp_problem_at((index, reservation), network, key, &error.to_string());
    }

    /// What a server's own check says, at a key of the table or of one of its reservations.
    fn dhcp_problem_at(
        &mut self,
        (index, reservation): (usize, Option<usize>),
        network: &Network,
        key: &'static str,
        text: &str,
    ) {
        let (message, remedy) = text.rsplit_once(": ").unwrap_or((text, ""));
        match reservation {
            Some(number) => self.enter(Place::Reservation(index, number), &network.name),
            None => self.enter(Place::Dhcp(index), &network.name),
        }
        self.problem(key, message, remedy);
        self.enter(Place::Network(index), &network.name);
    }
}

/// The key by which a reservation names its client.
fn client_key(reservation: Option<&Reservation>) -> &'static str {
    match reservation.map(|it| &it.client) {
        Some(ClientMatch::Id(_)) => "id",
        _ => "mac",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_range_leaves_the_gateway_out() {
        let range = |mode, subnet: &str| {
            let subnet = super::super::parse_address(subnet).unwrap();
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

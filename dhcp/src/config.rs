//! The server's configuration: subnets, reservations, limits, and the check of all of it.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trama_frame::MacAddr;

use crate::name::{DomainName, HostName};
use crate::prefix::{Prefix, Route};

/// Most addresses that one server leases, so that its tables stay within tens of megabytes.
pub const MAX_POOL: u64 = 1 << 20;
/// Longest boot file or boot server name in octets, the limit of an option in one piece.
const MAX_TEXT: usize = 255;

/// A server for one network and, through relay agents, for others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The subnets. The first is that of the server's own link; the others are served through
    /// relay agents.
    pub subnets: Vec<Subnet>,
    /// Clients that always get the same address.
    pub reservations: Vec<Reservation>,
    /// How long to wait for another user of a fresh address before it is offered; `None` offers
    /// at once.
    pub probe: Option<Duration>,
    /// How long an offer is held for its client.
    pub offer_hold: Duration,
    /// How long an address stays in quarantine after a conflict.
    pub quarantine: Duration,
    /// How many addresses one port may occupy.
    pub limits: Limits,
    /// Whether no other server leases these addresses: a client with an address that this server
    /// does not know is then corrected (or kept, if it is renewing and the address is free)
    /// instead of ignored.
    pub authoritative: bool,
    /// How clients are identified.
    pub identity: Identity,
    /// Whether an ACK may answer a DISCOVER that allows it (RFC 4039).
    pub rapid_commit: bool,
    /// Seeds the hash of clients. Keep it the same, so that clients get their former addresses
    /// again even without a lease store.
    pub seed: u64,
}

impl Default for Config {
    /// No subnets, no reservations; an authoritative server with the limits of [`Limits`].
    fn default() -> Config {
        Config {
            subnets: Vec::new(),
            reservations: Vec::new(),
            probe: Some(Duration::from_millis(300)),
            offer_hold: Duration::from_secs(30),
            quarantine: Duration::from_secs(600),
            limits: Limits::default(),
            authoritative: true,
            identity: Identity::Hardware,
            rapid_commit: true,
            seed: 0,
        }
    }
}

/// How clients are identified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The hardware address, whatever identifier comes with it: boot firmware, boot loader and
    /// system of a machine send different ones, and are one client. A reservation by identifier
    /// comes first.
    Hardware,
    /// The client identifier, else the hardware address (RFC 2131, 4.2).
    ClientId,
    /// Nothing: there is one machine, which has one address.
    Alone,
}

/// How many addresses one port may occupy. A pool with at least `addresses` × ports addresses
/// always has one for a port that is within its share, whatever the others do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Addresses that a port's clients may occupy together: leased, remembered, offered, declined
    /// or claimed in answer to a probe.
    pub addresses: u32,
    /// How many of them may be offers that were not taken up.
    pub offers: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { addresses: 16, offers: 4 }
    }
}

/// A subnet and the parameters of its clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// The subnet.
    pub prefix: Prefix,
    /// The server's address, by which clients know it (option 54).
    pub server: Ipv4Addr,
    /// Addresses to lease. The server's own, the routers' and reserved ones among them are left
    /// out.
    pub ranges: Vec<RangeInclusive<Ipv4Addr>>,
    /// Lease times.
    pub lease: LeaseTimes,
    /// The other parameters.
    pub settings: Settings,
}

/// Lease times in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseTimes {
    /// For clients that ask for none.
    pub default: u32,
    /// Shortest that is granted.
    pub min: u32,
    /// Longest that is granted.
    pub max: u32,
}

impl Default for LeaseTimes {
    fn default() -> LeaseTimes {
        LeaseTimes { default: 3600, min: 120, max: 86400 }
    }
}

/// Parameters that clients get with their address. Empty ones are not sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Routers, best first (option 3).
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers, best first (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// The domain of the clients' names (option 15; without it, that is the first to search).
    pub domain: Option<DomainName>,
    /// Domains to search (option 119).
    pub search: Vec<DomainName>,
    /// MTU in octets (option 26).
    pub mtu: Option<u16>,
    /// NTP servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Static routes (option 121). The default route by the first router is added to them, since
    /// clients that read them ignore option 3.
    pub routes: Vec<Route>,
    /// Network boot.
    pub boot: Option<Boot>,
}

/// Where to boot from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Boot {
    /// The TFTP server's address (`siaddr`).
    pub server: Ipv4Addr,
    /// The TFTP server's name (`sname`, option 66); if empty, its address is sent.
    pub server_name: String,
    /// Boot files; the first that suits the client is named (`file`, option 67).
    pub files: Vec<BootFile>,
}

/// A boot file and the clients that it is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootFile {
    /// Only for this architecture (RFC 4578, 2.1; 0 is BIOS, 7 is x86-64 UEFI).
    pub architecture: Option<u16>,
    /// Only for iPXE, or only for others.
    pub ipxe: Option<bool>,
    /// The file's name for the TFTP server.
    pub name: String,
}

/// Prefix of the vendor class of clients that boot by HTTP (UEFI 2.10, 24.7). Such a client accepts
/// only answers whose vendor class begins with it too.
pub(crate) const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// How a client boots, from its options.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootClient {
    /// Its processor architecture (RFC 4578, 2.1, and the registry of RFC 5970).
    pub architecture: Option<u16>,
    /// Whether it is iPXE.
    pub ipxe: bool,
    /// Whether it is firmware that boots by HTTP and accepts only a URI.
    pub http: bool,
}

impl BootClient {
    /// Returns the first boot file that suits the client.
    pub fn choose<'a>(&self, files: &'a [BootFile]) -> Option<&'a str> {
        let suits = |file: &&BootFile| {
            file.ipxe.is_none_or(|ipxe| ipxe == self.ipxe)
                && file
                    .architecture
                    .is_none_or(|architecture| Some(architecture) == self.architecture)
                && (!self.http || is_http(&file.name))
        };
        files.iter().find(suits).map(|file| file.name.as_str())
    }
}

fn is_http(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}

/// A client that always gets the same address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// The client.
    pub client: ClientMatch,
    /// Its address, in one of the subnets.
    pub address: Ipv4Addr,
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
    /// Client identifier, all octets of option 61.
    Id(Vec<u8>),
}

/// Why a configuration cannot be served. The text names the place and the remedy.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("no subnet: give at least one")]
    NoSubnet,
    #[error("subnets {0} and {1} overlap: change one of them")]
    SubnetsOverlap(Prefix, Prefix),
    #[error("server address {0} is no host address of {1}: choose one inside")]
    ServerOutside(Ipv4Addr, Prefix),
    #[error("range {0}-{1} is not a range of host addresses of {2}: choose one inside")]
    RangeOutside(Ipv4Addr, Ipv4Addr, Prefix),
    #[error("range {0}-{1} overlaps another range of its subnet: join them")]
    RangesOverlap(Ipv4Addr, Ipv4Addr),
    #[error("the ranges have more than {MAX_POOL} addresses: make them smaller")]
    PoolTooLarge,
    #[error(
        "lease times of {0} are not 60 <= min <= default <= max < 4294967295 seconds: change them"
    )]
    LeaseTimes(Prefix),
    #[error("reserved address {0} is no host address of any subnet: choose one inside")]
    ReservationOutside(Ipv4Addr),
    #[error("reserved address {0} is the server's own: choose another")]
    ReservationOfServer(Ipv4Addr),
    #[error("address {0} is reserved twice: remove one reservation")]
    AddressTwice(Ipv4Addr),
    #[error(
        "the client of reserved address {0} has another reservation in that subnet: remove one"
    )]
    ClientTwice(Ipv4Addr),
    #[error("client identifier for {0} has not 2 to 255 octets: give the octets of option 61")]
    ClientId(Ipv4Addr),
    #[error("MAC address for {0} is zero or a group's: give that of the client's interface")]
    ClientMac(Ipv4Addr),
    #[error("name {0} is reserved twice: rename one")]
    NameTwice(HostName),
    #[error("MTU {0} of {1} is below 68 (RFC 2132): raise it")]
    Mtu(u16, Prefix),
    #[error("boot file or server name of {0} has more than 255 octets: shorten it")]
    BootName(Prefix),
    #[error("a port may take no address or no offer: raise both limits to 1 or more")]
    Limits,
}

impl Config {
    /// Checks that the configuration can be served.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.subnets.is_empty() {
            return Err(ConfigError::NoSubnet);
        }
        if self.limits.addresses == 0 || self.limits.offers == 0 {
            return Err(ConfigError::Limits);
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            subnet.check()?;
            for other in &self.subnets[..index] {
                let (a, b) = (other.prefix, subnet.prefix);
                if a.contains(b.first()) || b.contains(a.first()) {
                    return Err(ConfigError::SubnetsOverlap(a, b));
                }
            }
        }
        let sizes = self.subnets.iter().flat_map(|subnet| &subnet.ranges).map(size);
        if sizes.sum::<u64>() > MAX_POOL {
            return Err(ConfigError::PoolTooLarge);
        }
        self.check_reservations()
    }

    /// Returns the index of the subnet that contains `address`.
    pub(crate) fn subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.subnets.iter().position(|subnet| subnet.prefix.contains(address))
    }

    fn check_reservations(&self) -> Result<(), ConfigError> {
        let (mut addresses, mut clients, mut names) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        for Reservation { client, address, name } in &self.reservations {
            let index = self
                .subnet_of(*address)
                .filter(|index| self.subnets[*index].prefix.is_host(*address))
                .ok_or(ConfigError::ReservationOutside(*address))?;
            if self.subnets[index].server == *address {
                return Err(ConfigError::ReservationOfServer(*address));
            }
            if !addresses.insert(*address) {
                return Err(ConfigError::AddressTwice(*address));
            }
            if !clients.insert((index, client)) {
                return Err(ConfigError::ClientTwice(*address));
            }
            if let ClientMatch::Id(id) = client
                && !(2..=255).contains(&id.len())
            {
                return Err(ConfigError::ClientId(*address));
            }
            if let ClientMatch::Mac(mac) = client
                && (mac.is_multicast() || mac.is_zero())
            {
                return Err(ConfigError::ClientMac(*address));
            }
            if let Some(name) = name
                && !names.insert((index, name))
            {
                return Err(ConfigError::NameTwice(name.clone()));
            }
        }
        Ok(())
    }
}

impl Subnet {
    fn check(&self) -> Result<(), ConfigError> {
        let prefix = self.prefix;
        if !prefix.is_host(self.server) {
            return Err(ConfigError::ServerOutside(self.server, prefix));
        }
        for (index, range) in self.ranges.iter().enumerate() {
            let (start, end) = (*range.start(), *range.end());
            if start > end || !prefix.is_host(start) || !prefix.is_host(end) {
                return Err(ConfigError::RangeOutside(start, end, prefix));
            }
            let meets = |other: &RangeInclusive<_>| start <= *other.end() && end >= *other.start();
            if self.ranges[..index].iter().any(meets) {
                return Err(ConfigError::RangesOverlap(start, end));
            }
        }
        let LeaseTimes { default, min, max } = self.lease;
        if !(60 <= min && min <= default && default <= max && max < u32::MAX) {
            return Err(ConfigError::LeaseTimes(prefix));
        }
        if let Some(mtu) = self.settings.mtu.filter(|mtu| *mtu < 68) {
            return Err(ConfigError::Mtu(mtu, prefix));
        }
        let boot = self.settings.boot.iter();
        let mut texts = boot
            .flat_map(|boot| boot.files.iter().map(|file| &file.name).chain([&boot.server_name]));
        if texts.any(|text| text.len() > MAX_TEXT) {
            return Err(ConfigError::BootName(prefix));
        }
        Ok(())
    }

    /// Addresses that are never leased, even inside a range: the server's own and the routers'.
    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.settings.routers.iter().copied().chain([self.server])
    }
}

/// Hardware addresses as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use trama_frame::MacAddr;

    pub fn serialize<S: Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn size(range: &RangeInclusive<Ipv4Addr>) -> u64 {
    (u64::from(range.end().to_bits()) + 1).saturating_sub(u64::from(range.start().to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ip, lab};

    fn refused(change: impl FnOnce(&mut Config)) -> ConfigError {
        let mut config = lab();
        assert_eq!(config.check(), Ok(()));
        change(&mut config);
        config.check().unwrap_err()
    }

    fn reserve(address: &str, mac: u8, name: &str) -> Reservation {
        Reservation {
            client: ClientMatch::Mac(MacAddr([2, 0, 0, 0, 0, mac])),
            address: ip(address),
            name: name.parse().ok(),
        }
    }

    #[test]
    fn contradictions_are_named() {
        use ConfigError::*;
        let lab_prefix = lab().subnets[0].prefix;
        assert_eq!(refused(|c| c.subnets.clear()), NoSubnet);
        assert_eq!(refused(|c| c.limits.offers = 0), Limits);
        let twice = refused(|c| c.subnets.push(c.subnets[0].clone()));
        assert_eq!(twice, SubnetsOverlap(lab_prefix, lab_prefix));
        let outside = refused(|c| c.subnets[0].server = ip("10.0.3.1"));
        assert_eq!(outside, ServerOutside(ip("10.0.3.1"), lab_prefix));
        for (start, end) in
            [("10.0.1.9", "10.0.2.9"), ("10.0.2.9", "10.0.2.255"), ("10.0.2.9", "10.0.2.8")]
        {
            let (start, end) = (ip(start), ip(end));
            let error = refused(|c| c.subnets[0].ranges = vec![start..=end]);
            assert_eq!(error, RangeOutside(start, end, lab_prefix));
        }
        let (a, b) = (ip("10.0.2.10"), ip("10.0.2.20"));
        assert_eq!(refused(|c| c.subnets[0].ranges = vec![a..=b, b..=b]), RangesOverlap(b, b));
        assert_eq!(refused(|c| c.subnets[0].lease.min = 7200), LeaseTimes(lab_prefix));
        assert_eq!(refused(|c| c.subnets[0].settings.mtu = Some(67)), Mtu(67, lab_prefix));
        let large = refused(|c| {
            c.subnets[0].prefix = Prefix::new(ip("10.0.2.1"), 8).unwrap();
            c.subnets[0].ranges = vec![ip("10.0.0.1")..=ip("10.255.255.254")];
        });
        assert_eq!(large, PoolTooLarge);
    }

    #[test]
    fn bad_reservations_are_named() {
        use ConfigError::*;
        let errors = |list: Vec<Reservation>| refused(|c| c.reservations = list);
        let inside = reserve("10.0.2.77", 1, "a");
        assert_eq!(errors(vec![reserve("10.0.9.1", 1, "")]), ReservationOutside(ip("10.0.9.1")));
        let edge = ip("10.0.2.255");
        assert_eq!(errors(vec![reserve("10.0.2.255", 1, "")]), ReservationOutside(edge));
        assert_eq!(errors(vec![reserve("10.0.2.1", 1, "")]), ReservationOfServer(ip("10.0.2.1")));
        let twice = errors(vec![inside.clone(), reserve("10.0.2.77", 2, "")]);
        assert_eq!(twice, AddressTwice(ip("10.0.2.77")));
        let twice = errors(vec![inside.clone(), reserve("10.0.2.78", 1, "")]);
        assert_eq!(twice, ClientTwice(ip("10.0.2.78")));
        let twice = errors(vec![inside.clone(), reserve("10.0.2.78", 2, "A")]);
        assert_eq!(twice, NameTwice("a".parse().unwrap()));
        let short = Reservation { client: ClientMatch::Id(vec![1]), ..inside.clone() };
        assert_eq!(errors(vec![short]), ClientId(ip("10.0.2.77")));
        for mac in [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr([0x33, 0x33, 0, 0, 0, 1])] {
            let of_none = Reservation { client: ClientMatch::Mac(mac), ..inside.clone() };
            assert_eq!(errors(vec![of_none]), ClientMac(ip("10.0.2.77")));
        }
    }
}

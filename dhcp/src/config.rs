//! The DHCPv4 server's configuration and the check of it. The settings in it that an administrator
//! states are in `service`.

mod boot;
mod service;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::name::HostName;
use crate::prefix::is_host;
use crate::time::whole_seconds;
pub(crate) use boot::HTTP_CLIENT;
pub use boot::{Boot, BootClient, BootFile};
pub use service::{
    ClientMatch, Clients, Identity, LeaseTimes, Limits, Reservation, Service, Settings,
};

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
    /// How clients are told apart and limited, and reservations.
    pub clients: Clients,
    /// How long to wait for another user of a fresh address before it is offered; `None` offers
    /// at once.
    pub probe: Option<Duration>,
    /// How long an offer is held for its client.
    pub offer_hold: Duration,
    /// How long an address stays in quarantine after a conflict.
    pub quarantine: Duration,
    /// Whether no other server leases these addresses: a client with an address that this server
    /// does not know is then corrected (or kept, if it is renewing and the address is free)
    /// instead of ignored.
    pub authoritative: bool,
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
            clients: Clients::default(),
            probe: Some(Duration::from_millis(300)),
            offer_hold: Duration::from_secs(30),
            quarantine: Duration::from_secs(600),
            authoritative: true,
            rapid_commit: true,
            seed: 0,
        }
    }
}

/// A subnet and what its clients get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// The subnet; the bits behind its prefix have no meaning.
    pub prefix: Ipv4Net,
    /// The server's address, by which clients know it (option 54).
    pub server: Ipv4Addr,
    /// MTU in octets (option 26); `None` is not sent.
    pub mtu: Option<u16>,
    /// Addresses and parameters.
    pub settings: Settings,
}

/// Why a configuration cannot be served. The text names the place; [`ConfigError::remedy`] says
/// what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no subnet to serve.
    #[error("no subnet")]
    NoSubnet,
    /// These two subnets share addresses.
    #[error("subnets {0} and {1} overlap")]
    SubnetsOverlap(Ipv4Net, Ipv4Net),
    /// The server's address cannot be a host's in its subnet.
    #[error("server address {0} is no host address of {1}")]
    ServerOutside(Ipv4Addr, Ipv4Net),
    /// First and last address of a range, and the subnet that it must lie in.
    #[error("range {0}-{1} is not a range of host addresses of {2}")]
    RangeOutside(Ipv4Addr, Ipv4Addr, Ipv4Net),
    /// First and last address of a range that shares addresses with an earlier one.
    #[error("range {0}-{1} overlaps another range of its subnet")]
    RangesOverlap(Ipv4Addr, Ipv4Addr),
    /// All ranges together have more than [`MAX_POOL`] addresses.
    #[error("the ranges have more than {MAX_POOL} addresses")]
    PoolTooLarge,
    /// Lease times of this subnet are out of order or out of range.
    #[error("lease times of {0} are not 60 <= min <= default <= max < 4294967295 seconds")]
    LeaseTimes(Ipv4Net),
    /// This reserved address cannot be a host's in any subnet.
    #[error("reserved address {0} is no host address of any subnet")]
    ReservationOutside(Ipv4Addr),
    /// This reserved address is the server's.
    #[error("reserved address {0} is the server's own")]
    ReservationOfServer(Ipv4Addr),
    /// Two reservations have this address.
    #[error("address {0} is reserved twice")]
    AddressTwice(Ipv4Addr),
    /// The client of this address has another reservation in the same subnet.
    #[error("the client of reserved address {0} has another reservation in that subnet")]
    ClientTwice(Ipv4Addr),
    /// The client identifier of the reservation of this address is too short or too long.
    #[error("client identifier for {0} has not 2 to 255 octets")]
    ClientId(Ipv4Addr),
    /// The MAC address of the reservation of this address is zero or multicast.
    #[error("MAC address for {0} is zero or a group's")]
    ClientMac(Ipv4Addr),
    /// Two reservations in one subnet have this name.
    #[error("name {0} is reserved twice")]
    NameTwice(HostName),
    /// This MTU, in octets, is below the least that a client accepts.
    #[error("MTU {0} of {1} is below 68 (RFC 2132)")]
    Mtu(u16, Ipv4Net),
    /// A boot file or server name of this subnet does not fit one option.
    #[error("boot file or server name of {0} has more than 255 octets")]
    BootName(Ipv4Net),
    /// One of the [`Limits`] is zero.
    #[error("a port may take no address or no offer")]
    Limits,
}

impl ConfigError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoSubnet => "give at least one",
            Self::SubnetsOverlap(..) => "change one of them",
            Self::ServerOutside(..) | Self::RangeOutside(..) | Self::ReservationOutside(..) => {
                "choose one inside"
            }
            Self::RangesOverlap(..) => "join them",
            Self::PoolTooLarge => "make them smaller",
            Self::LeaseTimes(..) => "change them",
            Self::ReservationOfServer(..) => "choose another",
            Self::AddressTwice(..) => "remove one reservation",
            Self::ClientTwice(..) => "remove one",
            Self::ClientId(..) => "give the octets of option 61",
            Self::ClientMac(..) => "give that of the client's interface",
            Self::NameTwice(..) => "rename one",
            Self::Mtu(..) => "raise it",
            Self::BootName(..) => "shorten it",
            Self::Limits => "raise both limits to 1 or more",
        }
    }
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
        let Limits { addresses, offers } = self.clients.limits;
        if addresses == 0 || offers == 0 {
            return Err(ConfigError::Limits);
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            subnet.check()?;
            for other in &self.subnets[..index] {
                let (a, b) = (other.prefix.trunc(), subnet.prefix.trunc());
                if a.contains(&b.network()) || b.contains(&a.network()) {
                    return Err(ConfigError::SubnetsOverlap(a, b));
                }
            }
        }
        let sizes = self.subnets.iter().flat_map(|subnet| &subnet.settings.ranges).map(size);
        if sizes.sum::<u64>() > MAX_POOL {
            return Err(ConfigError::PoolTooLarge);
        }
        self.check_reservations()
    }

    /// Returns the index of the subnet that contains `address`.
    pub(crate) fn subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.subnets.iter().position(|subnet| subnet.prefix.contains(&address))
    }

    fn check_reservations(&self) -> Result<(), ConfigError> {
        let (mut addresses, mut clients, mut names) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        for Reservation { client, address, name, .. } in &self.clients.reservations {
            let Some(address) = address else { continue };
            let index = self
                .subnet_of(*address)
                .filter(|index| is_host(self.subnets[*index].prefix, *address))
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
        let prefix = self.prefix.trunc();
        if !is_host(prefix, self.server) {
            return Err(ConfigError::ServerOutside(self.server, prefix));
        }
        let Settings { ranges, lease, boot, .. } = &self.settings;
        for (index, range) in ranges.iter().enumerate() {
            let (start, end) = (*range.start(), *range.end());
            if start > end || !is_host(prefix, start) || !is_host(prefix, end) {
                return Err(ConfigError::RangeOutside(start, end, prefix));
            }
            let meets = |other: &RangeInclusive<_>| start <= *other.end() && end >= *other.start();
            if ranges[..index].iter().any(meets) {
                return Err(ConfigError::RangesOverlap(start, end));
            }
        }
        let [default, min, max] = [lease.default, lease.min, lease.max].map(whole_seconds);
        if !(60 <= min && min <= default && default <= max && max < u32::MAX) {
            return Err(ConfigError::LeaseTimes(prefix));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < 68) {
            return Err(ConfigError::Mtu(mtu, prefix));
        }
        let mut texts = boot.files.iter().map(|file| &file.name).chain([&boot.server_name]);
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

fn size(range: &RangeInclusive<Ipv4Addr>) -> u64 {
    (u64::from(range.end().to_bits()) + 1).saturating_sub(u64::from(range.start().to_bits()))
}

#[cfg(test)]
mod tests {
    use trama_frame::MacAddr;

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
            address: Some(ip(address)),
            address6: None,
            name: name.parse().ok(),
        }
    }

    #[test]
    fn contradictions_are_named() {
        use ConfigError::*;
        let lab_prefix = lab().subnets[0].prefix;
        assert_eq!(refused(|c| c.subnets.clear()), NoSubnet);
        assert_eq!(refused(|c| c.clients.limits.offers = 0), Limits);
        let twice = refused(|c| c.subnets.push(c.subnets[0].clone()));
        assert_eq!(twice, SubnetsOverlap(lab_prefix, lab_prefix));
        let outside = refused(|c| c.subnets[0].server = ip("10.0.3.1"));
        assert_eq!(outside, ServerOutside(ip("10.0.3.1"), lab_prefix));
        for (start, end) in
            [("10.0.1.9", "10.0.2.9"), ("10.0.2.9", "10.0.2.255"), ("10.0.2.9", "10.0.2.8")]
        {
            let (start, end) = (ip(start), ip(end));
            let error = refused(|c| c.subnets[0].settings.ranges = vec![start..=end]);
            assert_eq!(error, RangeOutside(start, end, lab_prefix));
        }
        let (a, b) = (ip("10.0.2.10"), ip("10.0.2.20"));
        assert_eq!(
            refused(|c| c.subnets[0].settings.ranges = vec![a..=b, b..=b]),
            RangesOverlap(b, b)
        );
        assert_eq!(
            refused(|c| c.subnets[0].settings.lease.min = Duration::from_secs(7200)),
            LeaseTimes(lab_prefix)
        );
        assert_eq!(refused(|c| c.subnets[0].mtu = Some(67)), Mtu(67, lab_prefix));
        let large = refused(|c| {
            c.subnets[0].prefix = Ipv4Net::new(ip("10.0.2.1"), 8).unwrap();
            c.subnets[0].settings.ranges = vec![ip("10.0.0.1")..=ip("10.255.255.254")];
        });
        assert_eq!(large, PoolTooLarge);
    }

    #[test]
    fn bad_reservations_are_named() {
        use ConfigError::*;
        let errors = |list: Vec<Reservation>| refused(|c| c.clients.reservations = list);
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

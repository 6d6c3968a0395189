//! The DHCPv6 server's configuration and the check of it.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv6Net;
use trama_frame::MacAddr;

use crate::config::{Boot, ClientMatch, Clients, MAX_POOL, Reservation};
use crate::name::DomainName;

/// A server for one link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config6 {
    /// The server's hardware address; its DUID is derived from it (RFC 8415, 11.4).
    pub mac: MacAddr,
    /// The link's prefix; the bits behind it have no meaning.
    pub prefix: Ipv6Net,
    /// Addresses of the prefix that are the server's own.
    pub own: Vec<Ipv6Addr>,
    /// Addresses to lease. If empty, the server is stateless.
    pub ranges: Vec<RangeInclusive<Ipv6Addr>>,
    /// How clients are told apart and limited, and reservations.
    pub clients: Clients,
    /// How long a lease lasts, in whole seconds on the wire.
    pub lease: Duration,
    /// As [`crate::config::Config::probe`], by neighbour solicitation.
    pub probe: Option<Duration>,
    /// How long an offer is held for its client.
    pub offer_hold: Duration,
    /// How long an address stays in quarantine after a conflict.
    pub quarantine: Duration,
    /// Seeds the hash of clients; see [`crate::config::Config::seed`].
    pub seed: u64,
    /// Parameters for clients.
    pub settings: Settings6,
}

/// Parameters for clients. Empty ones are not sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings6 {
    /// DNS servers, best first (option 23).
    pub dns: Vec<Ipv6Addr>,
    /// Domains to search (option 24).
    pub search: Vec<DomainName>,
    /// NTP servers (option 56).
    pub ntp: Vec<Ipv6Addr>,
    /// After how many seconds clients without a lease ask again, at least 600 (RFC 8415, 21.23).
    pub refresh: u32,
    /// Network boot (RFC 5970).
    pub boot: Boot,
}

/// Why a configuration cannot be served. The text names the place; [`ConfigError6::remedy`] says
/// what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError6 {
    /// First and last address of a range outside the link's prefix.
    #[error("range {0}-{1} is not a range of the IPv6 subnet")]
    RangeOutside(Ipv6Addr, Ipv6Addr),
    /// First and last address of a range that shares addresses with an earlier one.
    #[error("range {0}-{1} overlaps another range of its subnet")]
    RangesOverlap(Ipv6Addr, Ipv6Addr),
    /// All ranges together have more than [`MAX_POOL`] addresses.
    #[error("the ranges have more than {MAX_POOL} addresses")]
    PoolTooLarge,
    /// This reserved address cannot be a host's in the link's prefix.
    #[error("reserved address {0} is no host address of the IPv6 subnet")]
    ReservationOutside(Ipv6Addr),
    /// This reserved address is the server's.
    #[error("reserved address {0} is the server's own")]
    ReservationOfServer(Ipv6Addr),
    /// Two reservations have this address.
    #[error("address {0} is reserved twice")]
    AddressTwice(Ipv6Addr),
    /// The client of this address has another reservation.
    #[error("the client of reserved address {0} has another reservation")]
    ClientTwice(Ipv6Addr),
    /// The MAC address of the reservation of this address is zero or multicast.
    #[error("MAC address for {0} is zero or a group's")]
    ClientMac(Ipv6Addr),
}

impl ConfigError6 {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::RangeOutside(..) | Self::ReservationOutside(..) => "choose one inside",
            Self::RangesOverlap(..) => "join them",
            Self::PoolTooLarge => "make them smaller",
            Self::ReservationOfServer(..) => "choose another",
            Self::AddressTwice(..) => "remove one reservation",
            Self::ClientTwice(..) => "remove one",
            Self::ClientMac(..) => "give that of the client's interface",
        }
    }
}

impl Config6 {
    /// Checks that the configuration can be served.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), ConfigError6> {
        for (index, range) in self.ranges.iter().enumerate() {
            let (first, last) = (*range.start(), *range.end());
            if first > last || !self.is_host(first) || !self.contains(last) {
                return Err(ConfigError6::RangeOutside(first, last));
            }
            let meets = |other: &RangeInclusive<_>| first <= *other.end() && last >= *other.start();
            if self.ranges[..index].iter().any(meets) {
                return Err(ConfigError6::RangesOverlap(first, last));
            }
        }
        let size = |range: &RangeInclusive<Ipv6Addr>| {
            (range.end().to_bits() - range.start().to_bits()).saturating_add(1)
        };
        if self.ranges.iter().map(size).fold(0, u128::saturating_add) > MAX_POOL.into() {
            return Err(ConfigError6::PoolTooLarge);
        }
        self.check_reservations()
    }

    fn check_reservations(&self) -> Result<(), ConfigError6> {
        let (mut addresses, mut clients) = (HashSet::new(), HashSet::new());
        for Reservation { client, address6, .. } in &self.clients.reservations {
            let Some(address) = address6 else { continue };
            if !self.is_host(*address) {
                return Err(ConfigError6::ReservationOutside(*address));
            }
            if self.own.contains(address) {
                return Err(ConfigError6::ReservationOfServer(*address));
            }
            if !addresses.insert(address) {
                return Err(ConfigError6::AddressTwice(*address));
            }
            if let ClientMatch::Mac(mac) = client
                && (mac.is_multicast() || mac.is_zero())
            {
                return Err(ConfigError6::ClientMac(*address));
            }
            if !clients.insert(client) {
                return Err(ConfigError6::ClientTwice(*address));
            }
        }
        Ok(())
    }

    /// Whether the link's prefix contains an address.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        self.prefix.contains(&address)
    }

    /// Whether a host may have the address: it is in the prefix and is not the subnet-router
    /// anycast address (RFC 4291, 2.6.1).
    fn is_host(&self, address: Ipv6Addr) -> bool {
        self.contains(address) && address != self.prefix.network()
    }
}

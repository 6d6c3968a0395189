//! Router advertisements (RFC 4861, RFC 8106): their content and when they are sent.
//!
//! [`Router`] decides only the times; the host sends the messages from its link-local address with
//! hop limit 255. A solicitation with a source address is answered by unicast, one from the
//! unspecified address by multicast to all nodes. Each answer is delayed at random (RFC 4861,
//! 6.2.6), so a flood of solicitations leads to at most [`MAX_WAITING`] unicast answers per half
//! second and one multicast answer per three seconds.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::net::Ipv6Addr;
use std::time::Duration;

use foldhash::quality::FixedState;
use ipnet::Ipv6Net;
use trama_frame::{MacAddr, checksum};

use crate::name::DomainName;
use crate::{DropReason, Time};

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Solicitations from different addresses that may wait for their answer.
pub const MAX_WAITING: usize = 64;

/// Next header value of ICMPv6.
const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// Advertisements at short intervals after the start (RFC 4861, 10, as the next three).
const INITIAL: u32 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
const MAX_DELAY_MS: u64 = 500;
const MIN_BETWEEN: Duration = Duration::from_secs(3);

/// The content of an advertisement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// Hop limit for hosts to use; zero leaves it unspecified.
    pub hop_limit: u8,
    /// Addresses come from DHCPv6 (M).
    pub managed: bool,
    /// Other parameters come from DHCPv6 (O).
    pub other: bool,
    /// Router lifetime in seconds; zero: not a default router.
    pub lifetime: u16,
    /// Prefixes of the link.
    pub prefixes: Vec<PrefixInformation>,
    /// MTU of the link in octets.
    pub mtu: Option<u32>,
    /// DNS servers (RFC 8106).
    pub dns: Vec<Ipv6Addr>,
    /// Domains to search (RFC 8106).
    pub search: Vec<DomainName>,
    /// Lifetime of DNS servers and domains, in seconds.
    pub dns_lifetime: u32,
    /// The sender's hardware address.
    pub mac: MacAddr,
}

/// A prefix of the link (RFC 4861, 4.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixInformation {
    /// The prefix; the bits behind its length are not sent.
    pub prefix: Ipv6Net,
    /// Its addresses are on the link (L).
    pub on_link: bool,
    /// Hosts derive addresses from it (A); it should be 64 bits long.
    pub autonomous: bool,
    /// Valid lifetime in seconds.
    pub valid: u32,
    /// Preferred lifetime in seconds.
    pub preferred: u32,
}

impl Advertisement {
    /// Builds the ICMPv6 message from `source` to `destination`, with its checksum.
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let flags = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        let [high, low] = self.lifetime.to_be_bytes();
        let mut out =
            vec![ROUTER_ADVERTISEMENT, 0, 0, 0, self.hop_limit, flags, high, low, 0, 0, 0, 0];
        // Reachable time (above) and retransmission timer are left to hosts.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[SOURCE_LINK_LAYER, 1]);
        out.extend_from_slice(&self.mac.0);
        if let Some(mtu) = self.mtu {
            out.extend_from_slice(&[MTU, 1, 0, 0]);
            out.extend_from_slice(&mtu.to_be_bytes());
        }
        self.prefixes.iter().for_each(|prefix| prefix.emit(&mut out));
        let servers: Vec<u8> = self.dns.iter().flat_map(Ipv6Addr::octets).collect();
        self.emit_dns(RDNSS, &servers, &mut out);
        let mut domains = Vec::new();
        self.search.iter().for_each(|domain| domain.emit(&mut domains));
        self.emit_dns(DNSSL, &domains, &mut out);
        let sum = icmpv6_checksum(source, destination, &out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// An option of RFC 8106, padded to a multiple of eight octets. One that is too long for its
    /// length field is left out.
    fn emit_dns(&self, kind: u8, value: &[u8], out: &mut Vec<u8>) {
        let units = 1 + value.len().div_ceil(8);
        let Ok(length) = u8::try_from(units) else { return };
        if value.is_empty() {
            return;
        }
        let end = out.len() + 8 * units;
        out.extend_from_slice(&[kind, length, 0, 0]);
        out.extend_from_slice(&self.dns_lifetime.to_be_bytes());
        out.extend_from_slice(value);
        out.resize(end, 0);
    }
}

impl PrefixInformation {
    fn emit(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.on_link) << 7 | u8::from(self.autonomous) << 6;
        out.extend_from_slice(&[PREFIX_INFORMATION, 4, self.prefix.prefix_len(), flags]);
        out.extend_from_slice(&self.valid.to_be_bytes());
        out.extend_from_slice(&self.preferred.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.prefix.network().octets());
    }
}

/// Checks a router solicitation (RFC 4861, 6.1.1).
///
/// # Errors
/// The reason to ignore it.
pub fn check_solicitation(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    message: &[u8],
) -> Result<(), DropReason> {
    let [kind, code, _, _, _, _, _, _, options @ ..] = message else {
        return Err(DropReason::TooShort);
    };
    if (*kind, *code) != (ROUTER_SOLICITATION, 0) {
        return Err(DropReason::NotARequest);
    }
    if hop_limit != 255 {
        return Err(DropReason::NotLinkLocal);
    }
    if icmpv6_checksum(source, destination, message) != 0 {
        return Err(DropReason::Checksum);
    }
    let mut rest = options;
    while let [kind, length, ..] = *rest {
        if length == 0 || (kind == SOURCE_LINK_LAYER && source.is_unspecified()) {
            return Err(DropReason::OptionLength);
        }
        rest = rest.get(8 * usize::from(length)..).ok_or(DropReason::OptionOverrun)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(DropReason::OptionOverrun) }
}

/// The checksum of an ICMPv6 message with its pseudo-header (RFC 8200, 8.1). Zero over a message
/// that includes its own correct checksum.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    // A message fits in a datagram.
    let [a, b, c, d] = (message.len() as u32).to_be_bytes();
    let partial = checksum::add(checksum::sum(&source.octets()), &destination.octets());
    let partial = checksum::add(partial, &[a, b, c, d, 0, 0, 0, ICMPV6]);
    !checksum::fold(checksum::add(partial, message))
}

/// When advertisements are sent.
#[derive(Clone, Debug)]
pub struct Router {
    max_interval: Duration,
    random: FixedState,
    drawn: u64,
    initial: u32,
    next_multicast: Time,
    last_multicast: Option<Time>,
    waiting: BTreeMap<Ipv6Addr, Time>,
}

impl Router {
    /// A router that begins to advertise at `now`, then at random intervals up to `max_interval`,
    /// which is kept within 4 seconds and 30 minutes (RFC 4861, 6.2.1).
    pub fn new(now: Time, max_interval: Duration, seed: u64) -> Router {
        let max_interval = max_interval.clamp(Duration::from_secs(4), Duration::from_secs(1800));
        Router {
            max_interval,
            random: FixedState::with_seed(seed),
            drawn: 0,
            initial: INITIAL,
            next_multicast: now,
            last_multicast: None,
            waiting: BTreeMap::new(),
        }
    }

    /// The advertisement has changed: sends it soon.
    pub fn changed(&mut self, now: Time) {
        self.initial = INITIAL;
        self.next_multicast = self.soon(now);
    }

    /// A solicitation came that passed [`check_solicitation`].
    ///
    /// # Errors
    /// [`DropReason::Throttled`] if its answer is due already.
    pub fn solicited(&mut self, now: Time, source: Ipv6Addr) -> Result<(), DropReason> {
        if self.waiting.contains_key(&source) {
            return Err(DropReason::Throttled);
        }
        if !source.is_unspecified() && self.waiting.len() < MAX_WAITING {
            let delay = self.draw(MAX_DELAY_MS);
            self.waiting.insert(source, now + delay);
            return Ok(());
        }
        let soon = self.soon(now);
        if self.next_multicast <= soon {
            return Err(DropReason::Throttled);
        }
        self.next_multicast = soon;
        Ok(())
    }

    /// When [`Router::poll`] has something to send next.
    pub fn next_deadline(&self) -> Time {
        self.waiting.values().copied().fold(self.next_multicast, Time::min)
    }

    /// Returns the destinations of the advertisements due now.
    pub fn poll(&mut self, now: Time) -> Vec<Ipv6Addr> {
        if self.next_multicast <= now {
            self.last_multicast = Some(now);
            self.next_multicast = now + self.interval();
            // All nodes include the waiting ones.
            self.waiting.clear();
            return vec![ALL_NODES];
        }
        self.waiting.extract_if(.., |_, due| *due <= now).map(|(address, _)| address).collect()
    }

    /// A random time between a third of the longest interval and all of it.
    fn interval(&mut self) -> Duration {
        let longest = self.max_interval.as_millis() as u64;
        let interval = Duration::from_millis(longest / 3) + self.draw(longest - longest / 3);
        if self.initial == 0 {
            return interval;
        }
        self.initial -= 1;
        interval.min(INITIAL_INTERVAL)
    }

    fn soon(&mut self, now: Time) -> Time {
        let soon = now + self.draw(MAX_DELAY_MS);
        self.last_multicast.map_or(soon, |last| soon.max(last + MIN_BETWEEN))
    }

    /// A random time up to `millis`.
    fn draw(&mut self, millis: u64) -> Duration {
        self.drawn += 1;
        Duration::from_millis(self.random.hash_one(self.drawn) % (millis + 1))
    }
}

#[cfg(test)]
mod tests;

//! Service discovery across the gateway, with multicast DNS (RFC 6762) and SSDP (UPnP Device
//! Architecture 2.0, 1). Queries of guests go out to the host's links; responses, and announcements
//! there, come to the guests. Nothing about the guests is announced outside, where they could not
//! be reached, and no query comes in.
//!
//! Each group has a socket on each link, bound to the group's address ([`Group`]), so that a
//! responder on the host keeps its own. It receives responses and announcements, which go to the
//! guests' group. Responses to a query from a port other than mDNS's, such as an SSDP search,
//! return to that port (RFC 6762, 6.7), so it is sent from a socket of its own ([`Search`]).
//!
//! mDNS responses come from the gateway's address, because clients only accept those of their link
//! (RFC 6762, 11); SSDP responses come from the device's address, which they contain.

mod filter;
pub(super) mod groups;
mod links;
mod mdns;
mod ssdp;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use filter::{admit, check_response, deliver, group_mac, is_announcement, outgoing_query};
use groups::{MDNS4, group_of, is_on, wanted};
use links::{Link, Links};
use mio::Interest;
use mio::unix::SourceFd;
use nix::errno::Errno;
use trama_frame::MacAddr;

use crate::context::{Context, TokenKind};
use crate::drop_reason::DropReason;
use crate::flow_table::{FlowTable, Limits};
use crate::host_socket::{BATCH, HostSocket, ReceiveBuffers, SendOptions};
use crate::io::PortMark;
use crate::packet::HOP_LIMIT;
use crate::packet::inbound::Inbound;
use crate::rate_limiter::RateLimiter;
use crate::ready_queue::ReadyQueue;
use crate::rules::Discovery;
use crate::udp::wire;

/// Hop limits of packets to the groups (RFC 6762, 11; UPnP Device Architecture 2.0, 1.2.2).
const MDNS_HOPS: u8 = 255;
const SSDP_HOPS: u8 = 2;
/// How often the host's links are scanned.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// How long responses to a search are accepted; devices answer within 5 s.
const LIFETIME: [Duration; 1] = [Duration::from_secs(10)];
const LIMITS: Limits = Limits { port: 16, total: 256 };
/// Rate limits: queries of a switch port, responses to a port, and responses to a group.
const QUERY_RATE: (u32, Duration) = (30, Duration::from_millis(100));
const RESPONSE_RATE: (u32, Duration) = (200, Duration::from_millis(10));
/// Stands for all guests where responses are counted.
const ALL_GUESTS: PortMark = PortMark(u64::MAX);
/// Sockets served in one turn.
const TURNS: usize = 16;
/// Errors discarded from a socket in one turn.
const ERRORS: usize = 16;
/// First token number of [`Group`]s, above those of searches.
const FIRST: u32 = 1 << 31;
const SEND_OPTIONS: SendOptions = SendOptions { hop_limit: HOP_LIMIT, may_fragment: true };

/// A group on one of the host's links.
struct Group {
    service: Discovery,
    address: SocketAddr,
    link: u32,
    socket: HostSocket,
}

/// A port of a guest whose queries are answered there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortMark,
    source: SocketAddr,
    service: Discovery,
}

struct Search {
    mac: MacAddr,
    socket: HostSocket,
}

/// All reflected groups and searches.
pub(crate) struct Reflector {
    host_links: Links,
    /// Those in use.
    links: Vec<Link>,
    groups: Vec<Option<Group>>,
    searches: FlowTable<Key, Search, 1>,
    ready: ReadyQueue,
    /// The ring to the switch was full at the last turn.
    pub(super) is_blocked: bool,
    buffers: ReceiveBuffers,
    queries: RateLimiter,
    responses: RateLimiter,
    /// When the links are scanned next; `None`: nothing is reflected.
    next_scan: Option<Duration>,
    /// The last failure to join a group, which was logged.
    failure: Option<(SocketAddr, Errno)>,
    warnings: Vec<String>,
}

impl Default for Reflector {
    fn default() -> Reflector {
        Reflector {
            host_links: Links::default(),
            links: Vec::new(),
            groups: Vec::new(),
            searches: FlowTable::new(LIFETIME, LIMITS),
            ready: ReadyQueue::default(),
            is_blocked: false,
            buffers: ReceiveBuffers::default(),
            queries: RateLimiter::new(QUERY_RATE.0, QUERY_RATE.1),
            responses: RateLimiter::new(RESPONSE_RATE.0, RESPONSE_RATE.1),
            next_scan: None,
            failure: None,
            warnings: Vec::new(),
        }
    }
}

fn hops(service: Discovery) -> u8 {
    match service {
        Discovery::Mdns => MDNS_HOPS,
        Discovery::Ssdp => SSDP_HOPS,
    }
}

impl Reflector {
    /// Applies the settings.
    pub(super) fn configure(&mut self, context: &Context<'_>) {
        self.next_scan = is_on(context.config).then_some(context.now);
        if self.next_scan.is_none() {
            self.groups.clear();
            self.searches = FlowTable::new(LIFETIME, LIMITS);
        }
    }

    /// Takes the warnings to log.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Handles a guest's datagram to a group.
    pub(super) fn handle_query(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let datagram = wire::datagram(packet)?;
        let (service, group) = group_of(context.config, packet).ok_or(DropReason::BadUdp)?;
        let query = outgoing_query(service, datagram.payload)?;
        if !self.queries.try_take(context.now, packet.port) {
            return Err(DropReason::ReflectLimit);
        }
        if datagram.from != MDNS4.port() || service != Discovery::Mdns {
            return self.search(packet, (service, group), datagram.from, &query, context);
        }
        let mut sent = false;
        for joined in self.groups.iter_mut().flatten().filter(|joined| joined.address == group) {
            sent |= joined.socket.send((group, None), SEND_OPTIONS, &[&query], None).is_ok();
        }
        if sent { Ok(()) } else { Err(DropReason::Unreachable) }
    }

    /// Sends a query whose responses return to the port that it came from.
    fn search(
        &mut self,
        packet: &Inbound<'_>,
        (service, group): (Discovery, SocketAddr),
        from: u16,
        query: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let source = SocketAddr::new(packet.source, from);
        let key = Key { port: packet.port, source, service };
        let number = match self.searches.find(&key) {
            Some(number) => number,
            None => self.open(key, packet.mac, context)?,
        };
        self.searches.touch(context.now, number, 0);
        let Some(search) = self.searches.get_mut(number) else { return Err(DropReason::FileLimit) };
        search.mac = packet.mac;
        let mut is_sent = false;
        for link in &self.links {
            let has_version = if group.is_ipv4() { link.has_v4 } else { link.has_v6 };
            if !has_version {
                continue;
            }
            let socket = &mut search.socket;
            let selected = socket.set_multicast_link(link.index);
            is_sent |= selected
                .and_then(|()| socket.send((group, None), SEND_OPTIONS, &[query], None))
                .is_ok();
        }
        if is_sent { Ok(()) } else { Err(DropReason::Unreachable) }
    }

    fn open(
        &mut self,
        key: Key,
        mac: MacAddr,
        context: &mut Context<'_>,
    ) -> Result<u32, DropReason> {
        if let Some(number) = self.searches.eviction_candidate(key.port) {
            self.searches.remove(number);
            context.counters.drop(DropReason::FlowEvicted);
        }
        let socket =
            HostSocket::udp_without_gro(key.source.is_ipv6()).map_err(|error| match error {
                Errno::EAFNOSUPPORT => DropReason::Unreachable,
                _ => DropReason::FileLimit,
            })?;
        socket.set_multicast_hops(hops(key.service)).map_err(|_| DropReason::HostError)?;
        let fd = socket.as_fd().as_raw_fd();
        let number = self.searches.insert(context.now, key.port, key, Search { mac, socket }, 0);
        let token = TokenKind::Reflect.token(number);
        if context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE).is_err() {
            self.searches.remove(number);
            return Err(DropReason::FileLimit);
        }
        Ok(number)
    }

    pub(super) fn ready(&mut self, number: u32) {
        self.ready.push(number);
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        if self.next_scan.is_some_and(|at| at <= context.now) {
            self.follow_links(context);
            self.next_scan = Some(context.now + SCAN_INTERVAL);
        }
        while let Some(number) = self.searches.expired(context.now) {
            self.searches.remove(number);
        }
        self.is_blocked = false;
        for _ in 0..TURNS {
            let room = context.cable.room();
            self.is_blocked = room == 0 && !self.ready.is_empty();
            if self.is_blocked {
                return;
            }
            let Some(number) = self.ready.pop() else { return };
            let limit = room.min(BATCH);
            let (is_there, result) = match number {
                FIRST.. => self.receive_group((number - FIRST) as usize, limit, context),
                number => self.receive_search(number, limit, context),
            };
            let has_more = match result {
                Ok(count) => count == limit,
                Err(Errno::EAGAIN) => false,
                Err(_) => true,
            };
            if has_more && is_there {
                self.ready.push(number);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if !self.ready.is_empty() && !self.is_blocked {
            return Some(Duration::ZERO);
        }
        self.next_scan.into_iter().chain(self.searches.deadline()).min()
    }

    /// Joins the groups on the links that exist now, and leaves them on those that are gone.
    fn follow_links(&mut self, context: &Context<'_>) {
        self.links = self.host_links.scan();
        let wanted: Vec<_> = wanted(context.config)
            .flat_map(|group| self.links.iter().map(move |link| (group, link)))
            .filter(|((_, group), link)| if group.is_ipv4() { link.has_v4 } else { link.has_v6 })
            .collect();
        for slot in &mut self.groups {
            let is_wanted = |group: &mut Group| {
                let same = |((_, address), link): &((Discovery, SocketAddr), &Link)| {
                    *address == group.address && link.index == group.link
                };
                wanted.iter().any(same)
            };
            slot.take_if(|group| !is_wanted(group));
        }
        let mut failure = None;
        for ((service, address), link) in wanted {
            let same = |group: &Group| group.address == address && group.link == link.index;
            if self.groups.iter().flatten().any(same) {
                continue;
            }
            let free = self.groups.iter().position(Option::is_none);
            let slot = free.unwrap_or(self.groups.len());
            match Group::open(service, address, link, slot, context) {
                Ok(group) if slot < self.groups.len() => self.groups[slot] = Some(group),
                Ok(group) => self.groups.push(Some(group)),
                Err(error) => failure = Some((address, error)),
            }
        }
        if let Some((address, error)) = failure
            && self.failure != failure
        {
            let reason = error.desc();
            self.warnings.push(format!(
                "discovery: cannot listen on {address}: {reason}; retrying; let the program that \
                 has this port share it (SO_REUSEADDR)"
            ));
        }
        self.failure = failure;
    }

    /// Passes datagrams of a group to the guests. Returns whether the group still exists, and how
    /// many datagrams there were.
    fn receive_group(
        &mut self,
        slot: usize,
        limit: usize,
        context: &mut Context<'_>,
    ) -> (bool, Result<usize, Errno>) {
        let Some(Some(group)) = self.groups.get(slot) else { return (false, Ok(0)) };
        let (service, address, responses) = (group.service, group.address, &mut self.responses);
        let result = self.buffers.receive(&group.socket, limit, |datagram| {
            let passed = is_announcement(service, &datagram).and_then(|is_for_guests| {
                if !is_for_guests {
                    return Ok(());
                }
                let visible = admit(service, &datagram, ALL_GUESTS, responses, context)?;
                let to = (group_mac(address.ip()), address, hops(service));
                deliver(visible, to, datagram.bytes, context)
            });
            if let Err(reason) = passed {
                context.counters.drop(reason);
            }
        });
        if result.is_err() {
            discard_errors(&mut self.buffers, &group.socket);
        }
        (true, result)
    }

    /// Passes responses to a search to its guest.
    fn receive_search(
        &mut self,
        number: u32,
        limit: usize,
        context: &mut Context<'_>,
    ) -> (bool, Result<usize, Errno>) {
        let Some((key, _, search)) = self.searches.entry_mut(number) else { return (false, Ok(0)) };
        let (key, mac, responses) = (*key, search.mac, &mut self.responses);
        let result = self.buffers.receive(&search.socket, limit, |datagram| {
            let passed = check_response(key.service, &datagram)
                .and_then(|()| admit(key.service, &datagram, key.port, responses, context))
                .and_then(|visible| {
                    deliver(visible, (mac, key.source, HOP_LIMIT), datagram.bytes, context)
                });
            if let Err(reason) = passed {
                context.counters.drop(reason);
            }
        });
        if result.is_err() {
            discard_errors(&mut self.buffers, &search.socket);
        }
        (true, result)
    }
}

impl Group {
    fn open(
        service: Discovery,
        address: SocketAddr,
        link: &Link,
        slot: usize,
        context: &Context<'_>,
    ) -> Result<Group, Errno> {
        let socket = HostSocket::multicast(address, hops(service), (link.index, &link.name))?;
        let fd = socket.as_fd().as_raw_fd();
        let token = TokenKind::Reflect.token(FIRST + slot as u32);
        let registered = context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        registered.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        Ok(Group { service, address, link: link.index, socket })
    }
}

/// Errors about multicasts do not concern guests.
fn discard_errors(buffers: &mut ReceiveBuffers, socket: &HostSocket) {
    for _ in 0..ERRORS {
        if buffers.next_error(socket).is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

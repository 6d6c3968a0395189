//! Finding others across the gateway, by multicast DNS (RFC 6762) and SSDP (UPnP Device Architecture
//! 2.0, 1): machines' questions go out to the host's links, the answers to them and what others
//! announce there come to the machines. Nothing of the machines is announced outside, because nobody
//! there could reach them, and no question from outside comes in.
//!
//! For each link and group there is a socket that is bound to the group's address ([`Group`]), so that
//! a responder of the host itself does not notice. It hears everybody's answers and announcements,
//! which go to the machines' group. A question from a port other than that of mDNS, as a search of
//! SSDP is, has its answers come back to that port (RFC 6762, 6.7): it leaves by a socket of its own
//! ([`Search`]).
//!
//! Answers of mDNS come from the gateway's own address, because clients take only those from their
//! link (RFC 6762, 11); those of SSDP from the device, which they name.

pub(super) mod groups;
mod links;
mod mdns;
mod passage;
mod ssdp;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;
use nix::errno::Errno;
use trama_frame::MacAddr;

use super::allowance::Allowances;
use super::context::{Context, Kind};
use super::flow_table::{FlowTable, Limits};
use super::host_socket::{BATCH, HostSocket, Manner, Receiver};
use super::turns::Turns;
use super::udp::wire;
use crate::config::Discovery;
use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::packet::HOP_LIMIT;
use crate::packet::inbound::Inbound;
use groups::{MDNS4, group_of, is_on, wanted};
use links::Link;
use passage::{admit, announced, deliver, found, group_mac, question};

/// Hops of packets to the groups (RFC 6762, 11; UPnP Device Architecture 2.0, 1.2.2).
const MDNS_HOPS: u8 = 255;
const SSDP_HOPS: u8 = 2;
/// How often the host's links are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long answers to a search are waited for: devices answer within 5 s.
const LIFE: [Duration; 1] = [Duration::from_secs(10)];
const LIMITS: Limits = Limits { port: 16, total: 256 };
/// Questions of a switch port, and what is let in for the answers of a port and for all from a group.
const QUESTIONS: (u32, Duration) = (30, Duration::from_millis(100));
const ANSWERS: (u32, Duration) = (200, Duration::from_millis(10));
/// What stands for the machines' group where those who get answers are counted.
const EVERYBODY: PortId = PortId(u64::MAX);
/// Turns of sockets before everything else has its own.
const TURNS: usize = 16;
/// Errors of a socket that are passed over in a turn.
const ERRORS: usize = 16;
/// Numbers of the tokens of [`Group`]s begin here, behind those of searches.
const FIRST: u32 = 1 << 31;
const MANNER: Manner = Manner { hop_limit: HOP_LIMIT, may_fragment: true };

/// A group on one of the host's links.
struct Group {
    service: Discovery,
    address: SocketAddr,
    link: u32,
    socket: HostSocket,
}

/// A port of a machine from which questions came that want their answers there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortId,
    source: SocketAddr,
    service: Discovery,
}

struct Search {
    mac: MacAddr,
    socket: HostSocket,
}

/// All of it.
pub(crate) struct Reflector {
    links: Vec<Link>,
    groups: Vec<Option<Group>>,
    searches: FlowTable<Key, Search, 1>,
    turns: Turns,
    /// The ring to the switch was full when turns were taken last.
    pub(super) is_blocked: bool,
    receiver: Receiver,
    questions: Allowances,
    answers: Allowances,
    /// When the links are looked at next; `None`: nothing is reflected.
    look: Option<Duration>,
    /// Why a group is not heard, and what of it was told.
    failure: Option<(SocketAddr, Errno)>,
    warnings: Vec<String>,
}

impl Default for Reflector {
    fn default() -> Reflector {
        Reflector {
            links: Vec::new(),
            groups: Vec::new(),
            searches: FlowTable::new(LIFE, LIMITS),
            turns: Turns::default(),
            is_blocked: false,
            receiver: Receiver::default(),
            questions: Allowances::new(QUESTIONS.0, QUESTIONS.1),
            answers: Allowances::new(ANSWERS.0, ANSWERS.1),
            look: None,
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
    /// Follows the settings.
    pub(super) fn configure(&mut self, context: &Context<'_>) {
        self.look = is_on(context.config).then_some(context.now);
        if self.look.is_none() {
            self.groups.clear();
            self.searches = FlowTable::new(LIFE, LIMITS);
        }
    }

    /// What somebody should be told of.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes a machine's datagram for a group.
    pub(super) fn ask(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let datagram = wire::datagram(packet)?;
        let (service, group) = group_of(context.config, packet).ok_or(DropReason::BadUdp)?;
        let question = question(service, datagram.payload)?;
        if !self.questions.allows(context.now, packet.port) {
            return Err(DropReason::ReflectLimit);
        }
        if datagram.from != MDNS4.port() || service != Discovery::Mdns {
            return self.search(packet, (service, group), datagram.from, &question, context);
        }
        let mut sent = false;
        for heard in self.groups.iter_mut().flatten().filter(|heard| heard.address == group) {
            sent |= heard.socket.send((group, None), MANNER, &[&question], None).is_ok();
        }
        if sent { Ok(()) } else { Err(DropReason::Unreachable) }
    }

    /// Sends a question whose answers are for the port that it came from.
    fn search(
        &mut self,
        packet: &Inbound<'_>,
        (service, group): (Discovery, SocketAddr),
        from: u16,
        question: &[u8],
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
            let there = socket.set_group_link(link.index);
            is_sent |=
                there.and_then(|()| socket.send((group, None), MANNER, &[question], None)).is_ok();
        }
        if is_sent { Ok(()) } else { Err(DropReason::Unreachable) }
    }

    fn open(
        &mut self,
        key: Key,
        mac: MacAddr,
        context: &mut Context<'_>,
    ) -> Result<u32, DropReason> {
        if let Some(number) = self.searches.must_end(key.port) {
            self.searches.remove(number);
            context.counters.drop(DropReason::FlowEvicted);
        }
        let socket = HostSocket::single(key.source.is_ipv6()).map_err(|error| match error {
            Errno::EAFNOSUPPORT => DropReason::Unreachable,
            _ => DropReason::FileLimit,
        })?;
        socket.set_group_hops(hops(key.service)).map_err(|_| DropReason::HostError)?;
        let fd = socket.as_fd().as_raw_fd();
        let number = self.searches.insert(context.now, key.port, key, Search { mac, socket }, 0);
        let token = Kind::Reflect.token(number);
        if context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE).is_err() {
            self.searches.remove(number);
            return Err(DropReason::FileLimit);
        }
        Ok(number)
    }

    pub(super) fn ready(&mut self, number: u32) {
        self.turns.ask(number);
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        if self.look.is_some_and(|at| at <= context.now) {
            self.follow_links(context);
            self.look = Some(context.now + LOOK);
        }
        while let Some(number) = self.searches.expired(context.now) {
            self.searches.remove(number);
        }
        self.is_blocked = false;
        for _ in 0..TURNS {
            let room = context.cable.room();
            self.is_blocked = room == 0 && !self.turns.is_empty();
            if self.is_blocked {
                return;
            }
            let Some(number) = self.turns.next() else { return };
            let limit = room.min(BATCH);
            let (is_there, result) = match number {
                FIRST.. => self.hear_group((number - FIRST) as usize, limit, context),
                number => self.hear_search(number, limit, context),
            };
            let has_more = match result {
                Ok(count) => count == limit,
                Err(Errno::EAGAIN) => false,
                Err(_) => true,
            };
            if has_more && is_there {
                self.turns.ask(number);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if !self.turns.is_empty() && !self.is_blocked {
            return Some(Duration::ZERO);
        }
        self.look.into_iter().chain(self.searches.deadline()).min()
    }

    /// Listens on the links that there are now, and no more on those that are gone.
    fn follow_links(&mut self, context: &Context<'_>) {
        self.links = links::look();
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
                "discovery: {address} is not heard: {reason}; it is tried again; have the program \
                 that has this port share it (SO_REUSEADDR)"
            ));
        }
        self.failure = failure;
    }

    /// Passes on what came to a group on one of the host's links. Whether the group is still there,
    /// and how many messages there were.
    fn hear_group(
        &mut self,
        slot: usize,
        limit: usize,
        context: &mut Context<'_>,
    ) -> (bool, Result<usize, Errno>) {
        let Some(Some(group)) = self.groups.get(slot) else { return (false, Ok(0)) };
        let (service, address, answers) = (group.service, group.address, &mut self.answers);
        let result = self.receiver.receive(&group.socket, limit, |arrival| {
            let passed = announced(service, &arrival).and_then(|is_for_machines| {
                if !is_for_machines {
                    return Ok(());
                }
                let shown = admit(service, &arrival, EVERYBODY, answers, context)?;
                let to = (group_mac(address.ip()), address, hops(service));
                deliver(shown, to, arrival.bytes, context)
            });
            if let Err(reason) = passed {
                context.counters.drop(reason);
            }
        });
        if result.is_err() {
            pass_over_errors(&mut self.receiver, &group.socket);
        }
        (true, result)
    }

    /// Passes on what answers a machine's search.
    fn hear_search(
        &mut self,
        number: u32,
        limit: usize,
        context: &mut Context<'_>,
    ) -> (bool, Result<usize, Errno>) {
        let Some((key, _, search)) = self.searches.entry_mut(number) else { return (false, Ok(0)) };
        let (key, mac, answers) = (*key, search.mac, &mut self.answers);
        let result = self.receiver.receive(&search.socket, limit, |arrival| {
            let passed = found(key.service, &arrival)
                .and_then(|()| admit(key.service, &arrival, key.port, answers, context))
                .and_then(|shown| {
                    deliver(shown, (mac, key.source, HOP_LIMIT), arrival.bytes, context)
                });
            if let Err(reason) = passed {
                context.counters.drop(reason);
            }
        });
        if result.is_err() {
            pass_over_errors(&mut self.receiver, &search.socket);
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
        let socket = HostSocket::group(address, hops(service), (link.index, &link.name))?;
        let fd = socket.as_fd().as_raw_fd();
        let token = Kind::Reflect.token(FIRST + slot as u32);
        let registered = context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        registered.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        Ok(Group { service, address, link: link.index, socket })
    }
}

/// Errors of what was sent to a group say nothing to a machine.
fn pass_over_errors(receiver: &mut Receiver, socket: &HostSocket) {
    for _ in 0..ERRORS {
        if receiver.next_error(socket).is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

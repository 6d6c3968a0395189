//! UDP flows: datagrams of guests through sockets of the host, and the answers.
//!
//! A flow is one UDP port of one guest. Its socket, and so its outside port, is the same for all
//! destinations (endpoint-independent mapping, RFC 4787, 4.1), as peer-to-peer programs need. A
//! datagram from outside passes if the guest has sent to that address (address-dependent filtering,
//! RFC 4787, 5). One socket for many destinations is also cheaper: the thousand servers of a
//! resolver are one flow. ICMP errors are not lost, see [`host_socket`](crate::host_socket).
//!
//! Consecutive datagrams to one destination are sent as a GSO batch ([`gso_batch`]); GRO batches
//! from the kernel go to the guest as one large frame ([`wire`]).

pub(crate) mod forward;
mod gso_batch;
mod icmp_error;
mod report;
pub(super) mod wire;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use foldhash::fast::RandomState;
use forward::Forwards;
use gso_batch::{BatchKey, GsoBatch};
use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;
use nix::errno::Errno;
use rustix::process::{Resource, getrlimit};
use trama_frame::MacAddr;
use wire::{Datagram, GuestDestination, datagram};

use crate::context::{Context, TokenKind};
use crate::drop_reason::DropReason;
use crate::events::{FlowChange, FlowEvent, Protocol, closed, flow_event};
use crate::flow_table::{FlowTable, Limits};
use crate::host_socket::{BATCH, HostSocket, ReceiveBuffers, SendOptions};
use crate::icmp::errors::{IcmpError, IcmpErrorSender};
use crate::io::PortMark;
use crate::neighbour_cache::NeighbourCache;
use crate::new_flows::NewFlows;
use crate::packet::inbound::Inbound;
use crate::policy;
use crate::ready_queue::ReadyQueue;
use crate::report::FlowRow;
use crate::rules::Transport;

/// Lifetimes of idle flows: one that only queries DNS servers, one without an answer yet, any
/// other. RFC 4787, 4.3, requires 2 minutes for flows in use.
const LIFETIMES: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(180)];
const DNS: usize = 0;
const UNANSWERED: usize = 1;
const ANSWERED: usize = 2;
const DNS_PORT: u16 = 53;
/// Most flows, if the host has descriptors for them: each is a socket.
const MAX_FLOWS: usize = 65_536;
/// Destinations that a flow remembers; at one more it forgets all. With many flows, each gets its
/// part of the total, but not less than the minimum.
const MAX_PEERS: usize = 4096;
const ALL_PEERS: usize = 1 << 18;
const MIN_PEERS: usize = 16;
/// Sockets served in one turn.
const TURNS: usize = 32;
/// Errors taken from a socket in one turn.
const ERRORS: usize = 16;

/// A UDP port of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortMark,
    source: SocketAddr,
    /// The gateway's address that is mapped to loopback. It has a flow of its own, because its
    /// answers come from that address.
    mapped: Option<SocketAddr>,
}

struct Flow {
    mac: MacAddr,
    socket: HostSocket,
    /// Addresses that may answer.
    peers: HashSet<IpAddr, RandomState>,
    /// Unanswered DNS queries, while the flow has sent nothing else.
    dns_queries: Option<u32>,
    is_answered: bool,
    /// Path MTU to the guest, as far as ICMP errors reported it.
    mtu: u16,
    /// Bytes of payload from the guest and to it.
    sent: u64,
    received: u64,
    opened: Duration,
    /// The first destination, as the guest sees it.
    first: SocketAddr,
}

impl Flow {
    fn class(&self) -> usize {
        match (self.dns_queries, self.is_answered) {
            (Some(_), _) => DNS,
            (None, false) => UNANSWERED,
            (None, true) => ANSWERED,
        }
    }

    /// An event of the flow.
    fn event(&self, port: PortMark, key: &Key, change: FlowChange) -> FlowEvent {
        flow_event((port, self.mac), Protocol::Udp, (key.source, self.first), change)
    }

    /// Records datagrams to `target`. At most `most` destinations are remembered.
    fn record_destination(&mut self, target: SocketAddr, datagrams: u32, most: usize) {
        if self.peers.len() >= most && !self.peers.contains(&target.ip()) {
            self.peers = HashSet::default();
        }
        self.peers.insert(target.ip());
        self.dns_queries = match self.dns_queries {
            Some(dns_queries) if target.port() == DNS_PORT => {
                Some(dns_queries.saturating_add(datagrams))
            }
            _ => None,
        };
    }
}

/// All UDP flows of a network.
pub(crate) struct Flows {
    table: FlowTable<Key, Flow, 3>,
    ready: ReadyQueue,
    /// The ring to the switch was full at the last turn.
    pub(super) is_blocked: bool,
    /// Datagrams of one flow to one destination that are not sent yet.
    batch: GsoBatch,
    buffers: ReceiveBuffers,
    errors: IcmpErrorSender,
    forwards: Forwards,
    warnings: Vec<String>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows::new(limits())
    }
}

/// Half of the process's descriptors; a single port gets three quarters of that.
fn limits() -> Limits {
    let files = getrlimit(Resource::Nofile).current.map_or(MAX_FLOWS, |files| files as usize);
    let total = (files / 2).min(MAX_FLOWS);
    Limits { port: total / 4 * 3, total }
}

impl Flows {
    fn new(limits: Limits) -> Flows {
        Flows {
            table: FlowTable::new(LIFETIMES, limits),
            ready: ReadyQueue::default(),
            is_blocked: false,
            batch: GsoBatch::default(),
            buffers: ReceiveBuffers::default(),
            errors: IcmpErrorSender::default(),
            forwards: Forwards::default(),
            warnings: Vec::new(),
        }
    }

    /// Takes the warnings to log; each is returned once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// A guest's MAC address is known now: datagrams for it may wait in forwards.
    pub(super) fn guest_resolved(&mut self) {
        for number in self.forwards.numbers() {
            self.ready.push(number);
        }
    }

    /// Handles a guest's datagram, or a GSO batch, to another network.
    pub(super) fn handle(
        &mut self,
        packet: &Inbound<'_>,
        new_flows: &mut NewFlows,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let datagram = datagram(packet)?;
        let visible = SocketAddr::new(packet.destination, datagram.to);
        let guest = SocketAddr::new(packet.source, datagram.from);
        let options = SendOptions {
            hop_limit: packet.hop_limit.saturating_sub(1).max(1),
            may_fragment: packet.may_fragment(),
        };
        if let Some((number, client)) = self.forwards.client_of(context.now, guest, visible) {
            let (target, local) = (client.address, client.local);
            self.push(BatchKey { number, target, local, visible, options }, &datagram, context);
            return Ok(());
        }
        let target = match policy::target(context.config, Transport::Udp, visible) {
            Ok(target) => target,
            Err(reason) => return Err(self.reject(packet, reason, context)),
        };
        let key = Key {
            port: packet.port,
            source: guest,
            mapped: (target != visible).then_some(visible),
        };
        let number = match self.table.find(&key) {
            Some(number) => number,
            None if !new_flows.try_take(context.now, packet.port) => {
                return Err(DropReason::NewFlowShare);
            }
            None => self.open(key, target, packet, context)?,
        };
        let peers = (ALL_PEERS / self.table.len().max(1)).clamp(MIN_PEERS, MAX_PEERS);
        let Some(flow) = self.table.get_mut(number) else { return Err(DropReason::FileLimit) };
        flow.mac = packet.mac;
        flow.sent += datagram.payload.len() as u64;
        let count = datagram.payload.len().div_ceil(datagram.segment.max(1)).max(1);
        flow.record_destination(target, count as u32, peers);
        let class = flow.class();
        self.table.touch(context.now, number, class);
        let key = BatchKey { number, target, local: None, visible, options };
        self.push(key, &datagram, context);
        Ok(())
    }

    /// Adds datagrams to the batch, which is sent first if they do not fit.
    fn push(&mut self, key: BatchKey, datagram: &Datagram<'_>, context: &mut Context<'_>) {
        let (size, mut rest) = (datagram.segment.max(1), datagram.payload);
        loop {
            let (first, others) = rest.split_at(size.min(rest.len()));
            if !self.batch.accepts(&key, first.len()) {
                self.flush(context);
            }
            self.batch.push(key, first);
            rest = others;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Answers a datagram to a forbidden destination. A group gets no answer (RFC 1122, 3.2.2).
    fn reject(
        &mut self,
        packet: &Inbound<'_>,
        reason: DropReason,
        context: &mut Context<'_>,
    ) -> DropReason {
        if matches!(reason, DropReason::PolicyMulticast | DropReason::PolicyBroadcast) {
            return reason;
        }
        // A port of the gateway is closed rather than forbidden.
        let is_gateway = reason == DropReason::OtherAddress;
        let error = if is_gateway { Errno::ECONNREFUSED } else { Errno::EACCES };
        let icmp_error = IcmpError::refused(packet.source.is_ipv6(), error);
        match icmp_error.map_or(Ok(()), |error| self.errors.send_error(context, packet, error)) {
            Ok(()) => reason,
            Err(limit) => limit,
        }
    }

    /// The number of flows.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn rows(&self, now: Duration) -> impl Iterator<Item = FlowRow> + '_ {
        self.table.iter().map(move |(key, flow, used)| FlowRow {
            protocol: Transport::Udp.name().to_owned(),
            guest: key.source,
            port: key.port.0,
            remote: None,
            state: if flow.is_answered { "answered" } else { "" }.to_owned(),
            sent: flow.sent,
            received: flow.received,
            idle: now.saturating_sub(used).as_secs(),
        })
    }

    /// Forwarded ports that cannot be bound: name of the rule, address, error.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&str, SocketAddr, Errno)> {
        self.forwards.pending()
    }

    pub(super) fn ready(&mut self, number: u32, _event: &Event, _context: &mut Context<'_>) {
        self.ready.push(number);
    }

    pub(super) fn poll(&mut self, neighbours: &mut NeighbourCache, context: &mut Context<'_>) {
        self.flush(context);
        self.warnings.extend(self.forwards.poll(context));
        while let Some(number) = self.table.expired(context.now) {
            self.close(number, context);
        }
        self.is_blocked = false;
        for _ in 0..TURNS {
            let room = context.cable.room();
            self.is_blocked = room == 0;
            if self.is_blocked {
                return;
            }
            let Some(number) = self.ready.pop() else { return };
            self.serve_errors(number, None, context);
            match number {
                forward::FIRST_LISTENER.. => {
                    self.serve_listener(number, room.min(BATCH), neighbours, context)
                }
                number => self.serve(number, room.min(BATCH), context),
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        // A full ring wakes the process when it has room.
        let now = !self.ready.is_empty() && !self.is_blocked;
        if now {
            return Some(Duration::ZERO);
        }
        self.table.deadline().into_iter().chain(self.forwards.deadline()).min()
    }

    fn open(
        &mut self,
        key: Key,
        target: SocketAddr,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<u32, DropReason> {
        // The batch may be of the flow that is evicted.
        self.flush(context);
        if let Some(number) = self.table.eviction_candidate(key.port) {
            self.evict(number, context);
        }
        let socket = match self.socket(&key, target, context) {
            Ok(socket) => socket,
            Err(error) => {
                let icmp_error = IcmpError::refused(packet.source.is_ipv6(), error);
                icmp_error
                    .map_or(Ok(()), |error| self.errors.send_error(context, packet, error))?;
                return Err(match error {
                    Errno::EMFILE | Errno::ENFILE => DropReason::FileLimit,
                    _ => DropReason::HostError,
                });
            }
        };
        let fd = socket.as_fd().as_raw_fd();
        let flow = Flow {
            mac: packet.mac,
            socket,
            peers: HashSet::default(),
            dns_queries: Some(0),
            is_answered: false,
            mtu: u16::MAX,
            sent: 0,
            received: 0,
            opened: context.now,
            first: key.mapped.unwrap_or(target),
        };
        let number = self.table.insert(context.now, key.port, key, flow, DNS);
        let token = TokenKind::Udp.token(number);
        if context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE).is_err() {
            self.table.remove(number);
            return Err(DropReason::FileLimit);
        }
        if let Some((key, port, flow)) = self.table.entry_mut(number) {
            context.events.note(context.now, port, || flow.event(port, key, FlowChange::Opened));
        }
        Ok(number)
    }

    fn socket(
        &mut self,
        key: &Key,
        target: SocketAddr,
        context: &mut Context<'_>,
    ) -> Result<HostSocket, Errno> {
        let socket = match HostSocket::udp(target.is_ipv6()) {
            // The port with the most sockets gives one back.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                let number = self.table.idlest_of_busiest().ok_or(Errno::EMFILE)?;
                self.evict(number, context);
                HostSocket::udp(target.is_ipv6())?
            }
            result => result?,
        };
        if key.mapped.is_some() {
            socket.connect(target)?;
        }
        Ok(socket)
    }

    fn evict(&mut self, number: u32, context: &mut Context<'_>) {
        self.close(number, context);
        context.counters.drop(DropReason::FlowEvicted);
    }

    /// Ends a flow.
    fn close(&mut self, number: u32, context: &mut Context<'_>) {
        let Some((key, flow)) = self.table.remove(number) else { return };
        let moved = (flow.sent, flow.received);
        let change = || closed(context.now, flow.opened, moved);
        context.events.note(context.now, key.port, || flow.event(key.port, &key, change()));
    }

    /// Sends the batch.
    fn flush(&mut self, context: &mut Context<'_>) {
        let mut batch = std::mem::take(&mut self.batch);
        if let Some((key, segment)) = batch.destination()
            && let Some(socket) = socket_of(&mut self.table, &mut self.forwards, key.number)
        {
            let is_gso = segment.is_some();
            let to = (key.target, key.local);
            match socket.send(to, key.options, &[batch.bytes()], segment) {
                Ok(()) => {}
                // Too long for the path, or no GSO there: send each datagram by itself.
                Err(error) if is_gso => {
                    batch.record_error(error);
                    for payload in batch.datagrams() {
                        self.send_one(&key, payload, context);
                    }
                }
                Err(error) => self.send_failed(&key, batch.bytes(), error, context),
            }
        }
        batch.clear();
        self.batch = batch;
    }

    fn send_one(&mut self, key: &BatchKey, payload: &[u8], context: &mut Context<'_>) {
        let Some(socket) = socket_of(&mut self.table, &mut self.forwards, key.number) else {
            return;
        };
        let to = (key.target, key.local);
        if let Err(error) = socket.send(to, key.options, &[payload], None) {
            self.send_failed(key, payload, error, context);
        }
    }

    /// Passes datagrams from a flow's socket to the guest.
    fn serve(&mut self, number: u32, limit: usize, context: &mut Context<'_>) {
        let Some((key, _, flow)) = self.table.entry_mut(number) else { return };
        let guest = GuestDestination { mac: flow.mac, address: key.source, mtu: flow.mtu };
        let mapped = key.mapped;
        let Flow { peers, socket, received, .. } = flow;
        let mut answers = 0;
        let result = self.buffers.receive(socket, limit, |datagram| {
            if !peers.contains(&datagram.from.ip()) {
                return context.counters.drop(DropReason::UdpUnasked);
            }
            *received += datagram.bytes.len() as u64;
            answers += datagram.bytes.len().div_ceil(datagram.segment.max(1)).max(1) as u32;
            wire::deliver(&guest, mapped.unwrap_or(datagram.from), &datagram, context);
        });
        match result {
            Ok(count) if count == limit => {
                socket.enlarge_buffer();
                self.ready.push(number);
            }
            Ok(_) | Err(Errno::EAGAIN) => {}
            // The error is in the error queue, too, and more datagrams may follow it.
            Err(_) => self.ready.push(number),
        }
        if answers > 0 {
            self.answered(number, answers, context);
        }
    }

    /// Passes datagrams from a forwarded port to its guest.
    fn serve_listener(
        &mut self,
        number: u32,
        limit: usize,
        neighbours: &mut NeighbourCache,
        context: &mut Context<'_>,
    ) {
        let Flows { forwards, buffers, ready, .. } = self;
        let listener = forwards.listener(number).filter(|listener| listener.socket.is_ok());
        let Some(guest) = listener.map(|listener| listener.guest) else { return };
        // Datagrams wait in the socket; the guest's advertisement brings the next turn.
        let Some(station) = neighbours.resolve(guest.ip(), context) else { return };
        // The socket is taken out meanwhile, because the translation borrows `forwards`.
        let Some(listener) = forwards.listener(number) else { return };
        listener.station = Some(station);
        let guest = GuestDestination { mac: station.0, address: guest, mtu: listener.mtu };
        let Ok(socket) = std::mem::replace(&mut listener.socket, Err(Errno::EBUSY)) else { return };
        let result = buffers.receive(&socket, limit, |datagram| {
            match forwards.visible_address(number, &datagram, context) {
                Some(visible) => wire::deliver(&guest, visible, &datagram, context),
                None => context.counters.drop(DropReason::FlowLimit),
            }
        });
        if let Some(listener) = forwards.listener(number) {
            listener.socket = Ok(socket);
        }
        match result {
            Ok(count) if count < limit => {}
            Err(Errno::EAGAIN) => {}
            _ => ready.push(number),
        }
    }

    /// Counts answers. A flow that only sent DNS queries ends with the last answer.
    fn answered(&mut self, number: u32, answers: u32, context: &mut Context<'_>) {
        let Some(flow) = self.table.get_mut(number) else { return };
        flow.is_answered = true;
        if let Some(dns_queries) = &mut flow.dns_queries {
            *dns_queries = dns_queries.saturating_sub(answers);
        }
        let (class, is_done) = (flow.class(), flow.dns_queries == Some(0));
        if is_done {
            self.close(number, context);
        } else {
            self.table.touch(context.now, number, class);
        }
    }
}

/// The socket of a flow or of a forwarded port.
fn socket_of<'a>(
    table: &'a mut FlowTable<Key, Flow, 3>,
    forwards: &'a mut Forwards,
    number: u32,
) -> Option<&'a mut HostSocket> {
    match number {
        forward::FIRST_LISTENER.. => forwards.listener(number)?.socket.as_mut().ok(),
        number => table.get_mut(number).map(|flow| &mut flow.socket),
    }
}

#[cfg(test)]
mod tests;

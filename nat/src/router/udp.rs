//! UDP flows: what machines send, through sockets of the host, and what comes back.
//!
//! A flow is one UDP port of one machine, whomever it speaks to: its socket, and so its port
//! outside, stays the same for all destinations (endpoint-independent mapping, RFC 4787, 4.1), as
//! programs need that find their way to each other. A datagram from outside passes if the machine
//! has sent something to that address (address-dependent filtering, RFC 4787, 5). One socket for
//! many destinations is also the cheaper one: a resolver's thousand servers are one flow. Errors
//! do not get lost by it: [`host_socket`](super::host_socket) says why.
//!
//! What a machine sends to one destination in a row leaves as one train ([`train`]); what the
//! kernel puts together on receipt goes to the machine as one large frame ([`wire`]).

pub(crate) mod forward;
mod heard;
mod report;
mod train;
pub(super) mod wire;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use foldhash::fast::RandomState;
use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;
use nix::errno::Errno;
use rustix::process::{Resource, getrlimit};
use trama_frame::MacAddr;

use super::context::{Context, Kind};
use super::flow_table::{FlowTable, Limits};
use super::host_socket::{BATCH, HostSocket, Manner, Receiver};
use super::icmp::errors::{Complaint, Errors};
use super::neighbours::Neighbours;
use super::turns::Turns;
use crate::config::Transport;
use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::packet::inbound::Inbound;
use crate::report::FlowRow;
use forward::Forwards;
use train::{Train, Wagon};
use wire::{Datagram, Machine, datagram};

/// How long a flow lives without a datagram: one that only asks DNS servers, one without an answer
/// yet, and any other. RFC 4787, 4.3, wants 2 minutes for flows in use.
const LIVES: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(180)];
const DNS: usize = 0;
const UNANSWERED: usize = 1;
const ANSWERED: usize = 2;
const DNS_PORT: u16 = 53;
/// Flows that there may be if the host has descriptors for them: each is a socket.
const MAX_FLOWS: usize = 65_536;
/// Addresses that a flow may have spoken to; at one more it forgets them, and learns anew. Where there
/// are many flows, each has its part of what all may have, as long as that is not too few.
const MAX_PEERS: usize = 4096;
const ALL_PEERS: usize = 1 << 18;
const MIN_PEERS: usize = 16;
/// Turns of sockets before everything else has its own.
const TURNS: usize = 32;
/// Errors taken from a socket in a turn.
const ERRORS: usize = 16;

/// A UDP port of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortId,
    source: SocketAddr,
    /// The gateway's address that a loopback map put something behind: a flow of its own, because
    /// its answers are to come from there.
    mapped: Option<SocketAddr>,
}

struct Flow {
    mac: MacAddr,
    socket: HostSocket,
    /// Addresses that datagrams may come from.
    peers: HashSet<IpAddr, RandomState>,
    /// Questions to DNS servers without an answer, if it has sent nothing else.
    questions: Option<u32>,
    is_answered: bool,
    /// The longest packet that the way to the machine takes, as far as it has shown.
    mtu: u16,
    /// Bytes of payload from the machine and to it.
    sent: u64,
    received: u64,
}

impl Flow {
    fn class(&self) -> usize {
        match (self.questions, self.is_answered) {
            (Some(_), _) => DNS,
            (None, false) => UNANSWERED,
            (None, true) => ANSWERED,
        }
    }

    /// Remembers what is sent where; `most`: how many addresses at once.
    fn note(&mut self, target: SocketAddr, datagrams: u32, most: usize) {
        if self.peers.len() >= most && !self.peers.contains(&target.ip()) {
            self.peers = HashSet::default();
        }
        self.peers.insert(target.ip());
        self.questions = match self.questions {
            Some(questions) if target.port() == DNS_PORT => {
                Some(questions.saturating_add(datagrams))
            }
            _ => None,
        };
    }
}

/// All of a network's UDP flows.
pub(crate) struct Flows {
    table: FlowTable<Key, Flow, 3>,
    turns: Turns,
    /// The ring to the switch was full when turns were taken last.
    pub(super) is_blocked: bool,
    /// What has not been sent yet: datagrams of one flow to one destination.
    train: Train,
    receiver: Receiver,
    errors: Errors,
    forwards: Forwards,
    warnings: Vec<String>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows::new(limits())
    }
}

/// Half of the descriptors that the process may have, the rest being for everything else; a single
/// port gets three quarters of that.
fn limits() -> Limits {
    let files = getrlimit(Resource::Nofile).current.map_or(MAX_FLOWS, |files| files as usize);
    let total = (files / 2).min(MAX_FLOWS);
    Limits { port: total / 4 * 3, total }
}

impl Flows {
    fn new(limits: Limits) -> Flows {
        Flows {
            table: FlowTable::new(LIVES, limits),
            turns: Turns::default(),
            is_blocked: false,
            train: Train::default(),
            receiver: Receiver::default(),
            errors: Errors::default(),
            forwards: Forwards::default(),
            warnings: Vec::new(),
        }
    }

    /// What somebody should be told of; each once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// A machine has said where it is: something may wait for it.
    pub(super) fn machine_found(&mut self) {
        for number in self.forwards.numbers() {
            self.turns.ask(number);
        }
    }

    /// Takes a machine's datagram for another network, or a train of them.
    pub(super) fn handle(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let datagram = datagram(packet)?;
        let shown = SocketAddr::new(packet.destination, datagram.to);
        let guest = SocketAddr::new(packet.source, datagram.from);
        let manner = Manner {
            hop_limit: packet.hop_limit.saturating_sub(1).max(1),
            may_fragment: packet.may_fragment(),
        };
        if let Some((number, client)) = self.forwards.client_of(context.now, guest, shown) {
            let (target, local) = (client.address, client.local);
            self.load(Wagon { number, target, local, shown, manner }, &datagram, context);
            return Ok(());
        }
        let target = match context.policy.target(context.config, Transport::Udp, shown) {
            Ok(target) => target,
            Err(reason) => return Err(self.deny(packet, reason, context)),
        };
        let key =
            Key { port: packet.port, source: guest, mapped: (target != shown).then_some(shown) };
        let number = match self.table.find(&key) {
            Some(number) => number,
            None => self.open(key, target, packet, context)?,
        };
        let peers = (ALL_PEERS / self.table.len().max(1)).clamp(MIN_PEERS, MAX_PEERS);
        let Some(flow) = self.table.get_mut(number) else { return Err(DropReason::FileLimit) };
        flow.mac = packet.mac;
        flow.sent += datagram.payload.len() as u64;
        let count = datagram.payload.len().div_ceil(datagram.segment.max(1)).max(1);
        flow.note(target, count as u32, peers);
        let class = flow.class();
        self.table.touch(context.now, number, class);
        let wagon = Wagon { number, target, local: None, shown, manner };
        self.load(wagon, &datagram, context);
        Ok(())
    }

    /// Has a datagram, or a train of them, wait for departure.
    fn load(&mut self, wagon: Wagon, datagram: &Datagram<'_>, context: &mut Context<'_>) {
        let (size, mut rest) = (datagram.segment.max(1), datagram.payload);
        loop {
            let (first, others) = rest.split_at(size.min(rest.len()));
            if !self.train.takes(&wagon, first.len()) {
                self.depart(context);
            }
            self.train.add(wagon, first);
            rest = others;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Says so to a machine that may not reach what it wants. A group gets no answer (RFC 1122,
    /// 3.2.2).
    fn deny(
        &mut self,
        packet: &Inbound<'_>,
        reason: DropReason,
        context: &mut Context<'_>,
    ) -> DropReason {
        if matches!(reason, DropReason::PolicyMulticast | DropReason::PolicyBroadcast) {
            return reason;
        }
        // A port of the gateway's own is closed, not forbidden.
        let is_own = reason == DropReason::OtherAddress;
        let error = if is_own { Errno::ECONNREFUSED } else { Errno::EACCES };
        let complaint = Complaint::refused(packet.source.is_ipv6(), error);
        match complaint.map_or(Ok(()), |said| self.errors.complain(context, packet, said)) {
            Ok(()) => reason,
            Err(limit) => limit,
        }
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn rows(&self, now: Duration) -> impl Iterator<Item = FlowRow> + '_ {
        self.table.iter().map(move |(key, flow, used)| FlowRow {
            protocol: Transport::Udp.name().to_owned(),
            guest: key.source,
            remote: None,
            state: if flow.is_answered { "answered" } else { "" }.to_owned(),
            sent: flow.sent,
            received: flow.received,
            idle: now.saturating_sub(used).as_secs(),
        })
    }

    /// Ports of the host that cannot be bound: the rule's name, the address and the reason.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&str, SocketAddr, Errno)> {
        self.forwards.pending()
    }

    pub(super) fn ready(&mut self, number: u32, _event: &Event, _context: &mut Context<'_>) {
        self.turns.ask(number);
    }

    pub(super) fn poll(&mut self, neighbours: &mut Neighbours, context: &mut Context<'_>) {
        self.depart(context);
        self.warnings.extend(self.forwards.poll(context));
        while let Some(number) = self.table.expired(context.now) {
            self.table.remove(number);
        }
        self.is_blocked = false;
        for _ in 0..TURNS {
            let room = context.cable.room();
            self.is_blocked = room == 0;
            if self.is_blocked {
                return;
            }
            let Some(number) = self.turns.next() else { return };
            self.serve_errors(number, None, context);
            match number {
                forward::FIRST.. => self.serve_port(number, room.min(BATCH), neighbours, context),
                number => self.serve(number, room.min(BATCH), context),
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        // A full ring wakes the process when it has room.
        let now = !self.turns.is_empty() && !self.is_blocked;
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
        // It may be of the flow that has to end.
        self.depart(context);
        if let Some(number) = self.table.must_end(key.port) {
            self.end_early(number, context);
        }
        let socket = match self.socket(&key, target, context) {
            Ok(socket) => socket,
            Err(error) => {
                let complaint = Complaint::refused(packet.source.is_ipv6(), error);
                complaint.map_or(Ok(()), |said| self.errors.complain(context, packet, said))?;
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
            questions: Some(0),
            is_answered: false,
            mtu: u16::MAX,
            sent: 0,
            received: 0,
        };
        let number = self.table.insert(context.now, key.port, key, flow, DNS);
        let token = Kind::Udp.token(number);
        if context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE).is_err() {
            self.table.remove(number);
            return Err(DropReason::FileLimit);
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
            // Whoever has most of them gives one back.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                let number = self.table.idlest_of_largest().ok_or(Errno::EMFILE)?;
                self.end_early(number, context);
                HostSocket::udp(target.is_ipv6())?
            }
            result => result?,
        };
        if key.mapped.is_some() {
            socket.connect(target)?;
        }
        Ok(socket)
    }

    fn end_early(&mut self, number: u32, context: &mut Context<'_>) {
        self.table.remove(number);
        context.counters.drop(DropReason::FlowEvicted);
    }

    /// Sends what waits.
    fn depart(&mut self, context: &mut Context<'_>) {
        let mut train = std::mem::take(&mut self.train);
        if let Some((wagon, segment)) = train.destination()
            && let Some(socket) = socket_of(&mut self.table, &mut self.forwards, wagon.number)
        {
            let whole = segment.is_some();
            let to = (wagon.target, wagon.local);
            match socket.send(to, wagon.manner, &[train.bytes()], segment) {
                Ok(()) => {}
                // Too long for the way, or the way takes no trains: each has its own fate.
                Err(error) if whole => {
                    train.note_refusal(error);
                    for payload in train.datagrams() {
                        self.send_one(&wagon, payload, context);
                    }
                }
                Err(error) => self.failed(&wagon, train.bytes(), error, context),
            }
        }
        train.clear();
        self.train = train;
    }

    fn send_one(&mut self, wagon: &Wagon, payload: &[u8], context: &mut Context<'_>) {
        let Some(socket) = socket_of(&mut self.table, &mut self.forwards, wagon.number) else {
            return;
        };
        let to = (wagon.target, wagon.local);
        if let Err(error) = socket.send(to, wagon.manner, &[payload], None) {
            self.failed(wagon, payload, error, context);
        }
    }

    /// Passes on what came through a socket.
    fn serve(&mut self, number: u32, limit: usize, context: &mut Context<'_>) {
        let Some((key, _, flow)) = self.table.entry_mut(number) else { return };
        let machine = Machine { mac: flow.mac, address: key.source, mtu: flow.mtu };
        let mapped = key.mapped;
        let Flow { peers, socket, received, .. } = flow;
        let mut answers = 0;
        let result = self.receiver.receive(socket, limit, |arrival| {
            if !peers.contains(&arrival.from.ip()) {
                return context.counters.drop(DropReason::UdpUnasked);
            }
            *received += arrival.bytes.len() as u64;
            answers += arrival.bytes.len().div_ceil(arrival.segment.max(1)).max(1) as u32;
            wire::deliver(&machine, mapped.unwrap_or(arrival.from), &arrival, context);
        });
        match result {
            Ok(count) if count == limit => {
                socket.widen();
                self.turns.ask(number);
            }
            Ok(_) | Err(Errno::EAGAIN) => {}
            // An error that is in the queue as well; behind it there may be more.
            Err(_) => self.turns.ask(number),
        }
        if answers > 0 {
            self.answered(number, answers, context);
        }
    }

    /// Passes on what came to a port of the host that leads to a machine.
    fn serve_port(
        &mut self,
        number: u32,
        limit: usize,
        neighbours: &mut Neighbours,
        context: &mut Context<'_>,
    ) {
        let Flows { forwards, receiver, turns, .. } = self;
        let listener = forwards.listener(number).filter(|listener| listener.socket.is_ok());
        let Some(guest) = listener.map(|listener| listener.guest) else { return };
        // What cannot be delivered yet waits; the machine's answer gives it another turn.
        let Some(station) = neighbours.station(guest.ip(), context) else { return };
        // The socket is lent out, because whom it shows to the machine is of the same value.
        let Some(listener) = forwards.listener(number) else { return };
        listener.station = Some(station);
        let machine = Machine { mac: station.0, address: guest, mtu: listener.mtu };
        let Ok(socket) = std::mem::replace(&mut listener.socket, Err(Errno::EBUSY)) else { return };
        let result = receiver.receive(&socket, limit, |arrival| {
            match forwards.show(number, &arrival, context) {
                Some(shown) => wire::deliver(&machine, shown, &arrival, context),
                None => context.counters.drop(DropReason::FlowLimit),
            }
        });
        if let Some(listener) = forwards.listener(number) {
            listener.socket = Ok(socket);
        }
        match result {
            Ok(count) if count < limit => {}
            Err(Errno::EAGAIN) => {}
            _ => turns.ask(number),
        }
    }

    /// Datagrams from outside were passed on. A flow whose DNS questions all have their answers has
    /// done what it was for.
    fn answered(&mut self, number: u32, answers: u32, context: &Context<'_>) {
        let Some(flow) = self.table.get_mut(number) else { return };
        flow.is_answered = true;
        if let Some(questions) = &mut flow.questions {
            *questions = questions.saturating_sub(answers);
        }
        let (class, is_done) = (flow.class(), flow.questions == Some(0));
        if is_done {
            self.table.remove(number);
        } else {
            self.table.touch(context.now, number, class);
        }
    }
}

/// The socket of a flow, or of a port of the host.
fn socket_of<'a>(
    table: &'a mut FlowTable<Key, Flow, 3>,
    forwards: &'a mut Forwards,
    number: u32,
) -> Option<&'a mut HostSocket> {
    match number {
        forward::FIRST.. => forwards.listener(number)?.socket.as_mut().ok(),
        number => table.get_mut(number).map(|flow| &mut flow.socket),
    }
}

#[cfg(test)]
mod tests;

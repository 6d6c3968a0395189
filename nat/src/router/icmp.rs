//! ICMP flows: echo requests of machines, through ping sockets of the host (icmp(7)).
//!
//! A flow is one identifier of one machine; its socket has an identifier of the kernel's choice,
//! which is exchanged both ways. Requests keep their sequence number, data and number of hops, so
//! the round trip is the real one and a trace of the way shows it. Where the host lets nobody ping
//! (`net.ipv4.ping_group_range`), nothing is answered, and a warning says so.

pub(crate) mod errors;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;
use nix::errno::Errno;
use smoltcp::wire::IpProtocol;
use trama_frame::{MacAddr, VnetHeader, checksum};

use super::context::{Context, Kind};
use super::flow_table::{FlowTable, Limits};
use super::host_socket::{Arrival, BATCH, ErrorReport, HostSocket, Manner, Receiver};
use super::turns::Turns;
use crate::drop_reason::DropReason;
use crate::io::PortId;
use crate::packet::HOP_LIMIT;
use crate::packet::icmp::{HEADER, echo_request};
use crate::packet::inbound::Inbound;
use crate::packet::outbound::Outbound;
use crate::report::FlowRow;
use errors::{Complaint, Errors};

/// A flow that is silent this long has ended (RFC 5508, 3.2).
const LIVES: [Duration; 1] = [Duration::from_secs(60)];
const LIMITS: Limits = Limits { port: 512, total: 4096 };
/// Turns of sockets before everything else has its own.
const TURNS: usize = 32;
/// Errors taken from a socket in a turn.
const ERRORS: usize = 16;
/// An identifier of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortId,
    source: IpAddr,
    ident: u16,
}

struct Flow {
    mac: MacAddr,
    socket: HostSocket,
    /// Bytes of echo data from the machine and to it.
    sent: u64,
    received: u64,
}

/// All of a network's ICMP flows.
pub(crate) struct Flows {
    table: FlowTable<Key, Flow, 1>,
    turns: Turns,
    /// The ring to the switch was full when turns were taken last.
    pub(super) is_blocked: bool,
    receiver: Receiver,
    errors: Errors,
    /// Why nobody can ping, to be told once.
    forbidden: Option<Errno>,
    warning: Option<String>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows {
            table: FlowTable::new(LIVES, LIMITS),
            turns: Turns::default(),
            is_blocked: false,
            receiver: Receiver::default(),
            errors: Errors::default(),
            forbidden: None,
            warning: None,
        }
    }
}

impl Flows {
    /// Takes a machine's ICMP message for another network.
    pub(super) fn handle(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let (head, data) = echo_request(packet)?;
        context.policy.allows(context.config, packet.destination)?;
        let ident = u16::from_be_bytes([head[4], head[5]]);
        let key = Key { port: packet.port, source: packet.source, ident };
        let number = match self.table.find(&key) {
            Some(number) => number,
            None => self.open(key, packet, context)?,
        };
        self.table.touch(context.now, number, 0);
        let Some(flow) = self.table.get_mut(number) else { return Err(DropReason::FileLimit) };
        flow.mac = packet.mac;
        flow.sent += data.len() as u64;
        let manner = Manner {
            hop_limit: packet.hop_limit.saturating_sub(1).max(1),
            may_fragment: packet.may_fragment(),
        };
        let to = SocketAddr::new(packet.destination, 0);
        match flow.socket.send((to, None), manner, &[head, data], None) {
            Ok(()) => Ok(()),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Err(DropReason::HostBusy),
            Err(error) => {
                let mtu = self.serve_errors(number, context);
                let is_v6 = packet.source.is_ipv6();
                let complaint = match (error, mtu) {
                    (Errno::EMSGSIZE, Some(mtu)) => Some(Complaint::too_big(is_v6, mtu)),
                    (error, _) => Complaint::refused(is_v6, error),
                };
                self.complain(packet, complaint, DropReason::HostError, context)
            }
        }
    }

    /// Answers a packet whose hops end here.
    pub(super) fn time_exceeded(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let complaint = Complaint::time_exceeded(packet.source.is_ipv6());
        self.complain(packet, Some(complaint), DropReason::HopLimit, context)
    }

    /// Answers a packet that leads nowhere, because the host says so.
    pub(super) fn unreachable(
        &mut self,
        packet: &Inbound<'_>,
        error: &io::Error,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let error = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        let complaint = Complaint::refused(packet.source.is_ipv6(), error);
        self.complain(packet, complaint, DropReason::Unreachable, context)
    }

    /// Complains of a packet, which is dropped for `reason`.
    fn complain(
        &mut self,
        packet: &Inbound<'_>,
        complaint: Option<Complaint>,
        reason: DropReason,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        if let Some(complaint) = complaint {
            self.errors.complain(context, packet, complaint)?;
        }
        Err(reason)
    }

    /// What somebody should be told of.
    pub(super) fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn rows(&self, now: Duration) -> impl Iterator<Item = FlowRow> + '_ {
        self.table.iter().map(move |(key, flow, used)| FlowRow {
            protocol: "icmp".to_owned(),
            guest: SocketAddr::new(key.source, key.ident),
            remote: None,
            state: String::new(),
            sent: flow.sent,
            received: flow.received,
            idle: now.saturating_sub(used).as_secs(),
        })
    }

    pub(super) fn ready(&mut self, number: u32, _event: &Event, _context: &mut Context<'_>) {
        self.turns.ask(number);
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
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
            self.serve_errors(number, context);
            self.serve(number, room.min(BATCH), context);
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        // A full ring wakes the process when it has room.
        let now = !self.turns.is_empty() && !self.is_blocked;
        if now { Some(Duration::ZERO) } else { self.table.deadline() }
    }

    fn open(
        &mut self,
        key: Key,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<u32, DropReason> {
        if let Some(number) = self.table.must_end(key.port) {
            self.table.remove(number);
            context.counters.drop(DropReason::FlowEvicted);
        }
        let socket = match HostSocket::ping(key.source.is_ipv6()) {
            Ok(socket) => socket,
            Err(error @ (Errno::EACCES | Errno::EPERM)) => {
                self.forbid(error);
                return Err(DropReason::PingForbidden);
            }
            Err(Errno::EMFILE | Errno::ENFILE) => return Err(DropReason::FileLimit),
            Err(error) => {
                let complaint = Complaint::refused(key.source.is_ipv6(), error);
                return self
                    .complain(packet, complaint, DropReason::HostError, context)
                    .and(Err(DropReason::HostError));
            }
        };
        self.forbidden = None;
        let fd = socket.as_fd().as_raw_fd();
        let flow = Flow { mac: packet.mac, socket, sent: 0, received: 0 };
        let number = self.table.insert(context.now, key.port, key, flow, 0);
        let token = Kind::Icmp.token(number);
        if context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE).is_err() {
            self.table.remove(number);
            return Err(DropReason::FileLimit);
        }
        Ok(number)
    }

    /// The host forbids ping sockets; says so when it begins to.
    fn forbid(&mut self, error: Errno) {
        if self.forbidden.replace(error).is_none() {
            let remedy = "have net.ipv4.ping_group_range include a group of the daemon";
            let reason = error.desc();
            self.warning = Some(format!(
                "no answer to pings of other networks: the host forbids ping sockets: {reason}; {remedy}"
            ));
        }
    }

    /// Passes on what came through a socket.
    fn serve(&mut self, number: u32, limit: usize, context: &mut Context<'_>) {
        let Some((key, _, flow)) = self.table.entry_mut(number) else { return };
        let (key, mac) = (*key, flow.mac);
        let Flow { socket, received, .. } = flow;
        let result = self.receiver.receive(socket, limit, |arrival| {
            *received += arrival.bytes.len().saturating_sub(HEADER) as u64;
            if let Err(reason) = reply(&key, mac, &arrival, context) {
                context.counters.drop(reason);
            }
        });
        match result {
            Ok(count) => {
                self.table.touch(context.now, number, 0);
                if count == limit {
                    self.turns.ask(number);
                }
            }
            Err(Errno::EAGAIN) => {}
            // An error that is in the queue as well; behind it there may be more.
            Err(_) => self.turns.ask(number),
        }
    }

    /// Passes on what the network said about requests. What way was too narrow for one that was
    /// sent just now is the caller's to tell.
    fn serve_errors(&mut self, number: u32, context: &mut Context<'_>) -> Option<u32> {
        let (key, port, flow) = self.table.entry_mut(number)?;
        let to = (port, flow.mac, key.source);
        let mut narrow = None;
        for _ in 0..ERRORS {
            let Some(error) = self.receiver.next_error(&flow.socket) else { return narrow };
            if let ErrorReport::TooBig { mtu } = error.report {
                narrow = Some(mtu);
                continue;
            }
            let quoted = with_ident(error.quoted, key.ident);
            let quote = (error.destination.ip(), protocol(key.source), &quoted[..]);
            if let Err(reason) = self.errors.pass_on(context, to, error.report, quote) {
                context.counters.drop(reason);
            }
        }
        self.turns.ask(number);
        narrow
    }
}

fn protocol(address: IpAddr) -> IpProtocol {
    if address.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 }
}

/// Sends a machine the reply to its request.
fn reply(
    key: &Key,
    mac: MacAddr,
    arrival: &Arrival<'_>,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let (head, data) = arrival.bytes.split_first_chunk::<HEADER>().ok_or(DropReason::HostError)?;
    let (source, protocol) = (arrival.from.ip(), protocol(key.source));
    let destination = key.source;
    let out = Outbound { mac, source, destination, protocol, hop_limit: HOP_LIMIT };
    let mut head = *head;
    head[2..4].fill(0);
    head[4..6].copy_from_slice(&key.ident.to_be_bytes());
    let length = HEADER + data.len();
    let pseudo = if key.source.is_ipv6() { out.pseudo_sum(length) } else { 0 };
    let sum = checksum::add(checksum::add(pseudo, &head), data);
    head[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    if out.fits(context.config.mtu, length) {
        out.send(context, &VnetHeader::default(), (&head, data))
    } else {
        out.send_fragments(context, context.config.mtu, (&head, data))
    }
}

/// A quoted request with the identifier that the machine gave it.
fn with_ident(quoted: &[u8], ident: u16) -> Vec<u8> {
    let mut quoted = quoted.to_vec();
    let [.., high, low] = ident.to_be_bytes();
    if let Some([_, _, c0, c1, i0, i1, ..]) = quoted.first_chunk_mut::<HEADER>() {
        // The checksum changes by as much as the identifier does (RFC 1624).
        let old = [!*c0, !*c1, !*i0, !*i1];
        let sum = checksum::add(checksum::sum(&old), &[high, low]);
        [*c0, *c1] = (!checksum::fold(sum)).to_be_bytes();
        (*i0, *i1) = (high, low);
    }
    quoted
}

#[cfg(test)]
mod tests;

//! ICMP flows: echo requests of guests, through ping sockets of the host (icmp(7)).
//!
//! A flow is one identifier of one guest. The kernel chooses the identifier of its socket, which is
//! translated both ways. Requests keep their sequence number, data and hop limit, so a guest
//! measures the real round-trip time and can trace the path. If the host does not allow pings
//! (`net.ipv4.ping_group_range`), requests are not answered, and a warning says so.

pub(crate) mod errors;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use errors::{IcmpError, IcmpErrorSender};
use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;
use nix::errno::Errno;
use smoltcp::wire::IpProtocol;
use trama_frame::{MacAddr, VnetHeader, checksum};

use crate::context::{Context, TokenKind};
use crate::drop_reason::DropReason;
use crate::events::{FlowChange, FlowEvent, Protocol, closed, flow_event};
use crate::flow_table::{FlowTable, Limits};
use crate::host_socket::{
    BATCH, ErrorReport, HostDatagram, HostSocket, ReceiveBuffers, SendOptions,
};
use crate::io::PortMark;
use crate::new_flows::NewFlows;
use crate::packet::HOP_LIMIT;
use crate::packet::icmp::{HEADER, echo_request};
use crate::packet::inbound::Inbound;
use crate::packet::outbound::Outbound;
use crate::policy;
use crate::ready_queue::ReadyQueue;
use crate::report::FlowRow;

/// Idle time after which a flow expires (RFC 5508, 3.2).
const LIFETIMES: [Duration; 1] = [Duration::from_secs(60)];
const LIMITS: Limits = Limits { port: 512, total: 4096 };
/// Sockets served in one turn.
const TURNS: usize = 32;
/// Errors taken from a socket in one turn.
const ERRORS: usize = 16;
/// An identifier of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: PortMark,
    source: IpAddr,
    ident: u16,
}

struct Flow {
    mac: MacAddr,
    socket: HostSocket,
    /// Bytes of echo data from the guest and to it.
    sent: u64,
    received: u64,
    opened: Duration,
    /// The first destination.
    first: IpAddr,
}

impl Flow {
    /// An event of the flow.
    fn event(&self, key: &Key, change: FlowChange) -> FlowEvent {
        let ends = (SocketAddr::new(key.source, key.ident), SocketAddr::new(self.first, 0));
        flow_event((key.port, self.mac), Protocol::Icmp, ends, change)
    }
}

/// All ICMP flows of a network.
pub(crate) struct Flows {
    table: FlowTable<Key, Flow, 1>,
    ready: ReadyQueue,
    /// The ring to the switch was full at the last turn.
    pub(super) is_blocked: bool,
    buffers: ReceiveBuffers,
    errors: IcmpErrorSender,
    /// Why the host does not allow pings, once a warning was logged.
    forbidden: Option<Errno>,
    warning: Option<String>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows {
            table: FlowTable::new(LIFETIMES, LIMITS),
            ready: ReadyQueue::default(),
            is_blocked: false,
            buffers: ReceiveBuffers::default(),
            errors: IcmpErrorSender::default(),
            forbidden: None,
            warning: None,
        }
    }
}

impl Flows {
    /// Handles a guest's ICMP message to another network.
    pub(super) fn handle(
        &mut self,
        packet: &Inbound<'_>,
        new_flows: &mut NewFlows,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let (head, data) = echo_request(packet)?;
        policy::allows(context.config, packet.destination)?;
        let ident = u16::from_be_bytes([head[4], head[5]]);
        let key = Key { port: packet.port, source: packet.source, ident };
        let number = match self.table.find(&key) {
            Some(number) => number,
            None if !new_flows.try_take(context.now, packet.port) => {
                return Err(DropReason::NewFlowShare);
            }
            None => self.open(key, packet, context)?,
        };
        self.table.touch(context.now, number, 0);
        let Some(flow) = self.table.get_mut(number) else { return Err(DropReason::FileLimit) };
        flow.mac = packet.mac;
        flow.sent += data.len() as u64;
        let options = SendOptions {
            hop_limit: packet.hop_limit.saturating_sub(1).max(1),
            may_fragment: packet.may_fragment(),
        };
        let to = SocketAddr::new(packet.destination, 0);
        match flow.socket.send((to, None), options, &[head, data], None) {
            Ok(()) => Ok(()),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Err(DropReason::HostBusy),
            Err(error) => {
                let mtu = self.serve_errors(number, context);
                let is_v6 = packet.source.is_ipv6();
                let icmp_error = match (error, mtu) {
                    (Errno::EMSGSIZE, Some(mtu)) => Some(IcmpError::too_big(is_v6, mtu)),
                    (error, _) => IcmpError::refused(is_v6, error),
                };
                self.send_error(packet, icmp_error, DropReason::HostError, context)
            }
        }
    }

    /// Answers a packet whose hop limit is exceeded here.
    pub(super) fn time_exceeded(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let icmp_error = IcmpError::time_exceeded(packet.source.is_ipv6());
        self.send_error(packet, Some(icmp_error), DropReason::HopLimit, context)
    }

    /// Answers a packet that the host cannot send.
    pub(super) fn unreachable(
        &mut self,
        packet: &Inbound<'_>,
        error: &io::Error,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let error = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        let icmp_error = IcmpError::refused(packet.source.is_ipv6(), error);
        self.send_error(packet, icmp_error, DropReason::Unreachable, context)
    }

    /// Answers a packet with an ICMP error, if there is one. Returns the reason of the drop.
    fn send_error(
        &mut self,
        packet: &Inbound<'_>,
        icmp_error: Option<IcmpError>,
        reason: DropReason,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        if let Some(icmp_error) = icmp_error {
            self.errors.send_error(context, packet, icmp_error)?;
        }
        Err(reason)
    }

    /// Takes the warning to log.
    pub(super) fn take_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// The number of flows.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn rows(&self, now: Duration) -> impl Iterator<Item = FlowRow> + '_ {
        self.table.iter().map(move |(key, flow, used)| FlowRow {
            protocol: "icmp".to_owned(),
            guest: SocketAddr::new(key.source, key.ident),
            port: key.port.0,
            remote: None,
            state: String::new(),
            sent: flow.sent,
            received: flow.received,
            idle: now.saturating_sub(used).as_secs(),
        })
    }

    pub(super) fn ready(&mut self, number: u32, _event: &Event, _context: &mut Context<'_>) {
        self.ready.push(number);
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
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
            self.serve_errors(number, context);
            self.serve(number, room.min(BATCH), context);
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        // A full ring wakes the process when it has room.
        let now = !self.ready.is_empty() && !self.is_blocked;
        if now { Some(Duration::ZERO) } else { self.table.deadline() }
    }

    fn open(
        &mut self,
        key: Key,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<u32, DropReason> {
        if let Some(number) = self.table.eviction_candidate(key.port) {
            self.close(number, context);
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
                let icmp_error = IcmpError::refused(key.source.is_ipv6(), error);
                return self
                    .send_error(packet, icmp_error, DropReason::HostError, context)
                    .and(Err(DropReason::HostError));
            }
        };
        self.forbidden = None;
        let fd = socket.as_fd().as_raw_fd();
        let (opened, first) = (context.now, packet.destination);
        let flow = Flow { mac: packet.mac, socket, sent: 0, received: 0, opened, first };
        let number = self.table.insert(context.now, key.port, key, flow, 0);
        let token = TokenKind::Icmp.token(number);
        if context.registry.register(&mut SourceFd(&fd), token, Interest::READABLE).is_err() {
            self.table.remove(number);
            return Err(DropReason::FileLimit);
        }
        if let Some((key, _, flow)) = self.table.entry_mut(number) {
            context.events.note(context.now, key.port, || flow.event(key, FlowChange::Opened));
        }
        Ok(number)
    }

    /// Ends a flow.
    fn close(&mut self, number: u32, context: &mut Context<'_>) {
        let Some((key, flow)) = self.table.remove(number) else { return };
        let moved = (flow.sent, flow.received);
        let change = || closed(context.now, flow.opened, moved);
        context.events.note(context.now, key.port, || flow.event(&key, change()));
    }

    /// Notes that the host does not allow pings. The first time, a warning is logged.
    fn forbid(&mut self, error: Errno) {
        if self.forbidden.replace(error).is_none() {
            let remedy = "include a group of the daemon in net.ipv4.ping_group_range";
            let reason = error.desc();
            self.warning = Some(format!(
                "pings to other networks are not answered: the host forbids ping sockets: \
                 {reason}; {remedy}"
            ));
        }
    }

    /// Passes replies from a socket to the guest.
    fn serve(&mut self, number: u32, limit: usize, context: &mut Context<'_>) {
        let Some((key, _, flow)) = self.table.entry_mut(number) else { return };
        let (key, mac) = (*key, flow.mac);
        let Flow { socket, received, .. } = flow;
        let result = self.buffers.receive(socket, limit, |datagram| {
            *received += datagram.bytes.len().saturating_sub(HEADER) as u64;
            if let Err(reason) = reply(&key, mac, &datagram, context) {
                context.counters.drop(reason);
            }
        });
        match result {
            Ok(count) => {
                self.table.touch(context.now, number, 0);
                if count == limit {
                    self.ready.push(number);
                }
            }
            Err(Errno::EAGAIN) => {}
            // The error is in the error queue, too, and more datagrams may follow it.
            Err(_) => self.ready.push(number),
        }
    }

    /// Passes errors about requests to the guest. Returns the path MTU if the last request exceeded
    /// it; the caller reports that.
    fn serve_errors(&mut self, number: u32, context: &mut Context<'_>) -> Option<u32> {
        let (key, port, flow) = self.table.entry_mut(number)?;
        let to = (port, flow.mac, key.source);
        let mut path_mtu = None;
        for _ in 0..ERRORS {
            let Some(error) = self.buffers.next_error(&flow.socket) else { return path_mtu };
            if let ErrorReport::TooBig { mtu } = error.report {
                path_mtu = Some(mtu);
                continue;
            }
            let quoted = with_ident(error.quoted, key.ident);
            let quote = (error.destination.ip(), protocol(key.source), &quoted[..]);
            if let Err(reason) = self.errors.forward_error(context, to, error.report, quote) {
                context.counters.drop(reason);
            }
        }
        self.ready.push(number);
        path_mtu
    }
}

fn protocol(address: IpAddr) -> IpProtocol {
    if address.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 }
}

/// Sends a guest the reply to its request.
fn reply(
    key: &Key,
    mac: MacAddr,
    datagram: &HostDatagram<'_>,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let (head, data) = datagram.bytes.split_first_chunk::<HEADER>().ok_or(DropReason::HostError)?;
    let (source, protocol) = (datagram.from.ip(), protocol(key.source));
    let destination = key.source;
    let out = Outbound { mac, source, destination, protocol, hop_limit: HOP_LIMIT };
    let mut head = *head;
    head[2..4].fill(0);
    head[4..6].copy_from_slice(&key.ident.to_be_bytes());
    let length = HEADER + data.len();
    let pseudo = if key.source.is_ipv6() { out.pseudo_sum(length) } else { 0 };
    let sum = checksum::add(checksum::add(pseudo, &head), data);
    head[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    if out.fits(context.config.station.mtu, length) {
        out.send(context, &VnetHeader::default(), (&head, data))
    } else {
        out.send_fragments(context, context.config.station.mtu, (&head, data))
    }
}

/// A quoted request with the identifier that the guest gave it.
fn with_ident(quoted: &[u8], ident: u16) -> Vec<u8> {
    let mut quoted = quoted.to_vec();
    let [.., high, low] = ident.to_be_bytes();
    if let Some([_, _, c0, c1, i0, i1, ..]) = quoted.first_chunk_mut::<HEADER>() {
        // Updates the checksum for the changed identifier (RFC 1624).
        let old = [!*c0, !*c1, !*i0, !*i1];
        let sum = checksum::add(checksum::sum(&old), &[high, low]);
        [*c0, *c1] = (!checksum::fold(sum)).to_be_bytes();
        (*i0, *i1) = (high, low);
    }
    quoted
}

#[cfg(test)]
mod tests;

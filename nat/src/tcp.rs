//! TCP flows. Each one is a connection with a guest ([`connection`]) that a socket of the host or
//! the gateway's DNS continues ([`far`]).
//!
//! The host starts to connect when a guest's SYN arrives, and the guest is answered when the
//! connection stands or has failed. Flows are served in turns ([`flow`]); the first turn starts the
//! connection. Switch ports take turns, and so do the flows of each port. Neither a busy flow nor a
//! guest with many flows can starve others. A flow queues for a turn after a segment from the
//! guest, an event of its socket, or its timer. Handling a segment at once costs little: all
//! expensive work is done in turns.
//!
//! Limits per switch port: flows, flows that are not established yet, and buffered bytes.

mod connection;
mod dns;
mod dns_end;
mod far;
mod flow;
mod flow_journal;
#[cfg(test)]
mod flow_tests;
mod host_end;
mod icmp_error;
#[cfg(test)]
mod peer_tests;
mod quota;
mod read_pause;
mod receiver;
mod segment;
mod sender;
mod state;
#[cfg(test)]
mod tests;
mod turn;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use connection::Connection;
use far::Far;
use flow::{Flow, Turn};
use flow_journal::FlowJournal;
use host_end::HostEnd;
use mio::event::Event;
use mio::net::TcpStream;
use quota::Quotas;
use rustix::io::Errno;
use segment::{Endpoints, Outgoing, Segment, Seq};
use state::State;
use trama_frame::MacAddr;

use crate::context::Context;
use crate::dns::PORT;
use crate::drop_reason::DropReason;
use crate::events::{FlowChange, closed};
use crate::io::{Client, PortMark};
use crate::new_flows::NewFlows;
use crate::packet::inbound::Inbound;
use crate::report::FlowRow;
use crate::rules::Transport;
use crate::station::Service;
use crate::{host_stream, policy};

/// Turns between two looks at the ring. With thousands of queued flows, a packet of another guest
/// would otherwise wait for all of them. Starting a connection counts as several turns, and so does
/// moving many bytes.
const TURNS: usize = 16;
const CONNECT_TURNS: usize = 8;
const TURN_BYTES: u64 = 16 << 10;
/// Outdated timers that are kept in addition to one for each flow.
const STALE_TIMERS: usize = 1024;

/// A flow that the host could not connect.
pub(super) struct ConnectFailure {
    pub port: PortMark,
    pub mac: MacAddr,
    /// The guest's SYN, an IP packet.
    pub packet: Box<[u8]>,
    pub error: io::Error,
}

/// All TCP flows of a network.
#[derive(Default)]
pub(crate) struct Flows {
    /// By guest end and remote end.
    table: HashMap<(SocketAddr, SocketAddr), u32>,
    flows: Vec<Option<Box<Flow>>>,
    free: Vec<u32>,
    quotas: Quotas,
    /// When to look at which flow. An entry that differs from the flow's own `timer` is outdated.
    timers: BinaryHeap<Reverse<(Duration, u32)>>,
    failures: Vec<ConnectFailure>,
    read_buffer: Vec<u8>,
    is_blocked: bool,
    journal: FlowJournal,
    /// Flows of a gateway process that died. Their guests have not been told yet.
    stale_flows: Vec<Endpoints>,
    /// Queries of guests to the gateway's DNS.
    dns_queries: Vec<(Client, Vec<u8>)>,
    /// Counts the flows to the gateway's DNS.
    dns_generation: u32,
}

impl Flows {
    pub(super) fn handle(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let segment = Segment::parse(packet)?;
        let ends = Endpoints {
            mac: packet.mac,
            guest: SocketAddr::new(packet.source, segment.source),
            remote: SocketAddr::new(packet.destination, segment.destination),
        };
        let begins = segment.syn && segment.ack.is_none() && !segment.rst;
        // spec: rfc9293 MUST-45
        if let Some(&number) = self.table.get(&(ends.guest, ends.remote)) {
            let Some(flow) = &mut self.flows[number as usize] else { return Ok(()) };
            if flow.ends.mac != packet.mac {
                return Err(DropReason::ForeignSource);
            }
            if !(begins && flow.is_closing()) {
                flow.handle(context.now, &segment);
                self.queue(number);
                return Ok(());
            }
            self.remove(number, context);
        }
        match (begins, segment.rst) {
            (true, _) => self.open_flow(packet, &segment, ends, context),
            (false, true) => Err(DropReason::NoFlow),
            (false, false) => {
                ends.send(context, &Outgoing::reset_for(&segment))?;
                Err(DropReason::NoFlow)
            }
        }
    }

    /// Opens a flow for a guest's SYN.
    fn open_flow(
        &mut self,
        packet: &Inbound<'_>,
        segment: &Segment<'_>,
        ends: Endpoints,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        // The SYN is kept until the host has connected; a long one out of fragments would waste
        // memory.
        if packet.packet.len() > context.config.station.mtu.into() {
            return Err(DropReason::BadTcp);
        }
        let remote = ends.remote;
        if remote.port() == PORT && context.config.station.offers(Service::Dns, remote.ip()) {
            return self.begin_dns(packet, segment, ends, context);
        }
        if let Err(reason) = policy::target(context.config, Transport::Tcp, remote) {
            ends.send(context, &Outgoing::reset_for(segment))?;
            return Err(reason);
        }
        self.admit(packet.port, context)?;
        let far = Far::Host(HostEnd::new(None));
        let mut flow = Flow::new(context.now, packet.port, ends, far);
        flow.syn = Some(packet.packet.into());
        let number = self.insert(flow);
        self.queue(number);
        Ok(())
    }

    /// Starts to connect the host's socket.
    fn start_connect(&mut self, number: u32, context: &mut Context<'_>) {
        let Some(remote) = self.flow(number).map(|flow| flow.ends.remote) else { return };
        let target = policy::target(context.config, Transport::Tcp, remote);
        let stream = target.map_err(|_| Errno::ACCESS.into()).and_then(host_stream::connect);
        let begun = stream.and_then(|stream| {
            let host = self.flow(number).and_then(|flow| flow.far.host()).ok_or(Errno::NOENT)?;
            host.stream = Some(stream);
            host.register(number, context)
        });
        if let Err(error) = begun {
            self.connect_failed(number, error, context);
        }
    }

    /// Removes a flow that the host cannot connect, and tells its guest.
    fn connect_failed(&mut self, number: u32, error: io::Error, context: &mut Context<'_>) {
        let Some(flow) = self.remove(number, context) else { return };
        let Some(syn) = &flow.syn else { return };
        let change = || FlowChange::Failed(error.to_string());
        context.events.note(context.now, flow.port, || flow.event(change()));
        let answered = Inbound::reparse(flow.port, flow.ends.mac, syn)
            .and_then(|packet| self.reject(&packet, error, context));
        if let Err(reason) = answered {
            context.counters.drop(reason);
        }
    }

    /// Checks whether a port may have another flow. At the limit, a flow in TIME-WAIT makes room.
    fn admit(&mut self, port: PortMark, context: &mut Context<'_>) -> Result<(), DropReason> {
        if self.quotas.is_full(port)
            && let Some(number) = self.quotas.oldest_time_wait(port)
        {
            self.remove(number, context);
        }
        self.quotas.admit(port)
    }

    /// Whether [`Flows::open_to_guest`] may open a flow between these ends: there is none, or one
    /// in TIME-WAIT.
    pub(super) fn can_open_to_guest(&self, guest: SocketAddr, remote: SocketAddr) -> bool {
        let number = self.table.get(&(guest, remote));
        let flow = number.and_then(|number| self.flows[*number as usize].as_ref());
        flow.is_none_or(|flow| flow.time_wait_since.is_some())
    }

    /// Opens a connection to a guest for a client outside.
    pub(super) fn open_to_guest(
        &mut self,
        port: PortMark,
        (mac, guest, remote): (MacAddr, SocketAddr, SocketAddr),
        stream: TcpStream,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let ends = Endpoints { mac, guest, remote };
        let far = Far::Host(HostEnd::new(Some(stream)));
        let mut flow = Flow::new(context.now, port, ends, far);
        let refusal = match self.can_open_to_guest(guest, remote) {
            true => self.admit(port, context),
            false => Err(DropReason::FlowLimit),
        };
        if let Err(reason) = refusal {
            flow.far.reset();
            return Err(reason);
        }
        // spec: rfc9293 MUST-9
        let initial = Seq((context.random)() as u32);
        flow.connection =
            Some(Connection::connect(context.now, initial, local_mss(context, &ends)));
        if let Some(&old) = self.table.get(&(guest, remote)) {
            self.remove(old, context);
        }
        flow.is_inbound = true;
        let number = self.insert(flow);
        self.quotas.flow_opened(port);
        let Some(flow) = &mut self.flows[number as usize] else { return Ok(()) };
        if flow.far.host().is_some_and(|host| host.register(number, context).is_err()) {
            flow.far.reset();
            self.remove(number, context);
            return Err(DropReason::FileLimit);
        }
        flow.opened = Some(context.now);
        context.events.note(context.now, flow.port, || flow.event(FlowChange::Opened));
        self.queue(number);
        Ok(())
    }

    /// Tells a guest why its flow does not open.
    fn reject(
        &mut self,
        packet: &Inbound<'_>,
        error: io::Error,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        match Errno::from_io_error(&error) {
            // The guest sends the SYN again, and by then there may be a descriptor.
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                return Err(DropReason::FileLimit);
            }
            // The remote end did not answer, so the guest gets no answer either.
            Some(Errno::TIMEDOUT) => return Ok(()),
            Some(
                Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::AFNOSUPPORT
                | Errno::ACCESS
                | Errno::PERM,
            ) => {
                let (port, mac) = (packet.port, packet.mac);
                self.failures.push(ConnectFailure {
                    port,
                    mac,
                    packet: packet.packet.into(),
                    error,
                });
                return Ok(());
            }
            _ => {}
        }
        let segment = Segment::parse(packet)?;
        let ends = Endpoints {
            mac: packet.mac,
            guest: SocketAddr::new(packet.source, segment.source),
            remote: SocketAddr::new(packet.destination, segment.destination),
        };
        ends.send(context, &Outgoing::reset_for(&segment))
    }

    /// Keeps the journal of flows in `file`. Guests are answered that the flows in it have ended.
    ///
    /// # Errors
    ///
    /// The file cannot be read. Guests that only receive are not answered then.
    pub(super) fn open_journal(&mut self, file: File) -> io::Result<()> {
        (self.journal, self.stale_flows) = FlowJournal::open(file)?;
        Ok(())
    }

    /// Tells guests that flows have ended, as far as the cable has room.
    fn notify_stale_flows(&mut self, context: &mut Context<'_>) {
        while context.cable.room() > 0
            && let Some(ends) = self.stale_flows.pop()
        {
            let probe = Outgoing { ack: Some(Seq(0)), ..Outgoing::default() };
            if let Err(reason) = ends.send(context, &probe) {
                context.counters.drop(reason);
            }
        }
    }

    /// The number of flows.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn rows(&self, now: Duration) -> impl Iterator<Item = FlowRow> + '_ {
        self.flows.iter().flatten().map(move |flow| FlowRow {
            protocol: Transport::Tcp.name().to_owned(),
            guest: flow.ends.guest,
            port: flow.port.0,
            remote: Some(flow.ends.remote),
            state: flow.state().to_owned(),
            sent: flow.sent,
            received: flow.received,
            idle: now.saturating_sub(flow.used).as_secs(),
        })
    }

    /// Takes the connections that failed since the last call and are answered with an ICMP error.
    pub(super) fn take_failures(&mut self) -> Vec<ConnectFailure> {
        std::mem::take(&mut self.failures)
    }

    fn insert(&mut self, flow: Flow) -> u32 {
        let key = (flow.ends.guest, flow.ends.remote);
        self.quotas.flow_added(flow.port);
        let flow = Some(Box::new(flow));
        let number = match self.free.pop() {
            Some(number) => {
                self.flows[number as usize] = flow;
                number
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u32
            }
        };
        if let Some(flow) = &self.flows[number as usize] {
            self.journal.record(number, &flow.ends);
        }
        self.table.insert(key, number);
        number
    }

    fn remove(&mut self, number: u32, context: &mut Context<'_>) -> Option<Box<Flow>> {
        let flow = self.flows[number as usize].take()?;
        if let Some(opened) = flow.opened {
            let moved = (flow.sent, flow.received);
            let change = || closed(context.now, opened, moved);
            context.events.note(context.now, flow.port, || flow.event(change()));
        }
        self.table.remove(&(flow.ends.guest, flow.ends.remote));
        self.journal.erase(number);
        self.quotas.flow_removed(number, &flow);
        self.free.push(number);
        Some(flow)
    }

    fn flow(&mut self, number: u32) -> Option<&mut Flow> {
        self.flows.get_mut(number as usize)?.as_deref_mut()
    }

    /// Queues a flow for a turn.
    fn queue(&mut self, number: u32) {
        if let Some(flow) = &mut self.flows[number as usize]
            && !std::mem::replace(&mut flow.is_queued, true)
        {
            self.quotas.enqueue(flow.port, number);
        }
    }

    pub(super) fn ready(&mut self, number: u32, event: &Event, context: &mut Context<'_>) {
        let Some(Some(flow)) = self.flows.get_mut(number as usize) else { return };
        if let Some(host) = flow.far.host() {
            host.ready(event);
        }
        if flow.syn.is_some() {
            self.connected(number, context);
        }
        self.queue(number);
    }

    /// Handles the outcome of the host's connection attempt.
    fn connected(&mut self, number: u32, context: &mut Context<'_>) {
        let Some(flow) = &mut self.flows[number as usize] else { return };
        let Some(stream) = flow.far.host().and_then(|host| host.stream.as_ref()) else { return };
        let result = match stream.take_error() {
            Ok(None) => stream.peer_addr().map(drop),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
            _ => {}
        }
        if let Err(error) = result {
            return self.connect_failed(number, error, context);
        }
        let (port, mac) = (flow.port, flow.ends.mac);
        let Some(syn) = flow.syn.take() else { return };
        self.quotas.flow_opened(port);
        let packet = Inbound::reparse(port, mac, &syn);
        let Ok(segment) = packet.and_then(|packet| Segment::parse(&packet)) else {
            return drop(self.remove(number, context));
        };
        let initial = Seq((context.random)() as u32);
        let mss = local_mss(context, &flow.ends);
        flow.connection = Some(Connection::accept(context.now, &segment, initial, mss));
        flow.opened = Some(context.now);
        context.events.note(context.now, flow.port, || flow.event(FlowChange::Opened));
    }

    pub(super) fn poll(&mut self, new_flows: &mut NewFlows, context: &mut Context<'_>) {
        self.expire(context.now);
        self.notify_stale_flows(context);
        self.is_blocked = !self.stale_flows.is_empty();
        let mut left = TURNS;
        for _ in 0..self.quotas.queued() {
            if context.cable.room() == 0 {
                self.is_blocked = true;
                return;
            }
            let Some(number) = self.quotas.next_turn() else { return };
            left = left.saturating_sub(self.turn(number, new_flows, context));
            if left == 0 {
                return;
            }
        }
    }

    /// Gives a flow its turn. Returns how many turns it counts as.
    fn turn(&mut self, number: u32, new_flows: &mut NewFlows, context: &mut Context<'_>) -> usize {
        let Some(flow) = self.flow(number) else { return 0 };
        flow.is_queued = false;
        if flow.syn.is_some() && flow.far.host().is_some_and(|host| host.stream.is_none()) {
            new_flows.count(context.now, flow.port);
            self.start_connect(number, context);
            return CONNECT_TURNS;
        }
        1 + (self.serve(number, context) / TURN_BYTES) as usize
    }

    /// Serves a flow. Returns the bytes moved between guest and host.
    fn serve(&mut self, number: u32, context: &mut Context<'_>) -> u64 {
        let Flows { flows, quotas, read_buffer, timers, dns_queries, .. } = self;
        let Some(flow) = &mut flows[number as usize] else { return 0 };
        let before = flow.sent + flow.received;
        let turn = flow.serve(context, read_buffer, quotas.may_buffer_more(flow.port));
        let moved = flow.sent + flow.received - before;
        let Some(connection) = &flow.connection else { return moved };
        if flow.time_wait_since.is_none() && connection.state() == State::TimeWait {
            flow.time_wait_since = Some(context.now);
            quotas.enter_time_wait(flow.port, context.now, number);
        }
        let kept = connection.buffered() + flow.far.buffered();
        quotas.charge(flow.port, std::mem::replace(&mut flow.buffered, kept), kept);
        match &mut flow.far {
            Far::Host(host) => host.update_read_interest(number, context),
            Far::Dns(dns) => dns_queries.extend(dns.take_queries(number, flow.port, &flow.ends)),
        }
        if let Some(at) = flow.deadline()
            && flow.timer.is_none_or(|timer| at < timer)
        {
            flow.timer = Some(at);
            timers.push(Reverse((at, number)));
            // Outdated timers lie up to two hours ahead, and a busy flow leaves several a second.
            if timers.len() > 2 * flows.len() + STALE_TIMERS {
                let timer = |number: u32| flows[number as usize].as_ref()?.timer;
                timers.retain(|Reverse((at, number))| timer(*number) == Some(*at));
            }
        }
        match turn {
            Turn::Idle => {}
            Turn::More => self.queue(number),
            Turn::Over => drop(self.remove(number, context)),
        }
        moved
    }

    /// Handles the timers that have expired.
    fn expire(&mut self, now: Duration) {
        while let Some(Reverse((at, number))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(flow) = &mut self.flows[number as usize] else { continue };
            if flow.timer != Some(at) {
                continue;
            }
            flow.timer = None;
            let Some(connection) = &mut flow.connection else { continue };
            connection.expire(now);
            self.queue(number);
        }
    }

    /// Whether flows wait for room on the cable.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.quotas.queued() > 0 && !self.is_blocked {
            return Some(Duration::ZERO);
        }
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}

/// The maximum segment size that follows from the network's MTU.
fn local_mss(context: &Context<'_>, ends: &Endpoints) -> u16 {
    let mtu = usize::from(context.config.station.mtu);
    // spec: rfc9293 MUST-67
    mtu.saturating_sub(ends.overhead()).max(64) as u16
}

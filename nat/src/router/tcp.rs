//! TCP flows: each is a connection with a machine of the network ([`engine`]), continued by a
//! socket of the host.
//!
//! A machine's SYN has the host connect; only when it has, or has been refused, is the machine
//! answered. Flows are served in turns ([`flow`]), of which the first has the host connect: ports
//! take turns, and the flows of each, so that neither a busy flow nor a machine with many starves
//! others. A flow waits for its turn after a segment of the machine, an event of its socket, or its
//! timer. What a segment costs at once is small: all that is dear is done in turns.
//!
//! What a port may have is bounded: flows, those of them that have not begun, and bytes that wait.

mod connection;
mod dns;
mod engine;
mod flow;
#[cfg(test)]
mod flow_tests;
mod heard;
mod ledger;
mod pace;
#[cfg(test)]
mod peer_tests;
mod ports;
mod receiver;
mod segment;
mod sender;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::Interest;
use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use rustix::io::Errno;
use trama_frame::MacAddr;

use super::context::{Context, Kind};
use super::host_stream;
use crate::config::{Service, Transport};
use crate::dns::PORT;
use crate::drop_reason::DropReason;
use crate::io::{Client, PortId};
use crate::packet::inbound::Inbound;
use crate::report::FlowRow;
use connection::Connection;
use engine::{Engine, State};
use flow::{Flow, Turn};
use ledger::Ledger;
use ports::Ports;
use segment::{Outgoing, Route, Segment, Seq};

/// Turns before the ring is looked at again: with thousands of flows waiting, a packet of another
/// machine would wait for all of them. To connect takes as long as several turns, and so does to move
/// many bytes.
const TURNS: usize = 16;
const CONNECT_TURNS: usize = 8;
const TURN_BYTES: u64 = 16 << 10;
/// What is heard of a flow's socket, as it changes.
const EVENTS: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Timers out of date that are kept, beside one for each flow.
const STALE_TIMERS: usize = 1024;

/// A flow that the host refused to begin.
pub(super) struct Failure {
    pub port: PortId,
    pub mac: MacAddr,
    /// The machine's SYN.
    pub packet: Box<[u8]>,
    pub error: io::Error,
}

/// All of a network's TCP flows.
#[derive(Default)]
pub(crate) struct Flows {
    /// By the machine's end and the remote one.
    table: HashMap<(SocketAddr, SocketAddr), u32>,
    flows: Vec<Option<Box<Flow>>>,
    free: Vec<u32>,
    ports: Ports,
    /// When flows are to be looked at. One whose flow says otherwise is out of date.
    timers: BinaryHeap<Reverse<(Duration, u32)>>,
    failures: Vec<Failure>,
    scratch: Vec<u8>,
    is_blocked: bool,
    ledger: Ledger,
    /// Flows of a process that has died, whose machines have yet to hear of it.
    orphans: Vec<Route>,
    /// Machines that have connected to the gateway's DNS, and the other ends of their flows.
    pub(super) callers: Vec<(Client, UnixStream)>,
}

impl Flows {
    pub(super) fn handle(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let segment = Segment::parse(packet)?;
        let route = Route {
            mac: packet.mac,
            guest: SocketAddr::new(packet.source, segment.source),
            remote: SocketAddr::new(packet.destination, segment.destination),
        };
        let begins = segment.syn && segment.ack.is_none() && !segment.rst;
        if let Some(&number) = self.table.get(&(route.guest, route.remote)) {
            let Some(flow) = &mut self.flows[number as usize] else { return Ok(()) };
            if flow.route.mac != packet.mac {
                return Err(DropReason::ForeignSource);
            }
            if !(begins && flow.is_closing()) {
                flow.handle(context.now, &segment);
                self.queue(number);
                return Ok(());
            }
            self.remove(number);
        }
        match (begins, segment.rst) {
            (true, _) => self.begin(packet, &segment, route, context),
            (false, true) => Err(DropReason::NoFlow),
            (false, false) => {
                route.send(context, &Outgoing::refusal(&segment))?;
                Err(DropReason::NoFlow)
            }
        }
    }

    /// Begins a flow for a machine's SYN.
    fn begin(
        &mut self,
        packet: &Inbound<'_>,
        segment: &Segment<'_>,
        route: Route,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        // It is kept until the host has connected, so nobody may make it long by fragments.
        if packet.packet.len() > context.config.mtu.into() {
            return Err(DropReason::BadTcp);
        }
        let remote = route.remote;
        if remote.port() == PORT && context.config.offers(Service::Dns, remote.ip()) {
            return self.begin_dns(packet, segment, route, context);
        }
        if let Err(reason) = context.policy.target(context.config, Transport::Tcp, remote) {
            route.send(context, &Outgoing::refusal(segment))?;
            return Err(reason);
        }
        self.admit(packet.port)?;
        let mut flow = Flow::new(context.now, packet.port, route);
        flow.syn = Some(packet.packet.into());
        let number = self.insert(flow);
        self.queue(number);
        Ok(())
    }

    /// Has the host connect.
    fn connect(&mut self, number: u32, context: &mut Context<'_>) {
        let Some(remote) = self.flow(number).map(|flow| flow.route.remote) else { return };
        let target = context.policy.target(context.config, Transport::Tcp, remote);
        let stream = target.map_err(|_| Errno::ACCESS.into()).and_then(host_stream::connect);
        let begun = stream.and_then(|stream| {
            let flow = self.flow(number).ok_or(Errno::NOENT)?;
            flow.stream = Some(stream);
            watch(flow, number, context)
        });
        if let Err(error) = begun {
            self.fail(number, error, context);
        }
    }

    /// Ends a flow that the host cannot begin, and tells its machine.
    fn fail(&mut self, number: u32, error: io::Error, context: &mut Context<'_>) {
        let Some(flow) = self.remove(number) else { return };
        let Some(syn) = &flow.syn else { return };
        let told = Inbound::kept(flow.port, flow.route.mac, syn)
            .and_then(|packet| self.refuse(&packet, error, context));
        if let Err(reason) = told {
            context.counters.drop(reason);
        }
    }

    /// Whether a port may have another flow; those that only linger make room for it.
    fn admit(&mut self, port: PortId) -> Result<(), DropReason> {
        if self.ports.is_full(port)
            && let Some(number) = self.ports.oldest_lingering(port)
        {
            self.remove(number);
        }
        self.ports.admit(port)
    }

    /// Whether [`Flows::call`] may begin a flow between these ends: there is none, or it only lingers.
    pub(super) fn may_call(&self, guest: SocketAddr, remote: SocketAddr) -> bool {
        let number = self.table.get(&(guest, remote));
        let flow = number.and_then(|number| self.flows[*number as usize].as_ref());
        flow.is_none_or(|flow| flow.lingers.is_some())
    }

    /// Begins a flow with a machine for a client of the host's.
    pub(super) fn call(
        &mut self,
        port: PortId,
        (mac, guest, remote): (MacAddr, SocketAddr, SocketAddr),
        stream: TcpStream,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let route = Route { mac, guest, remote };
        let mut flow = Flow::new(context.now, port, route);
        flow.stream = Some(stream);
        let refusal = match self.may_call(guest, remote) {
            true => self.admit(port),
            false => Err(DropReason::FlowLimit),
        };
        if let Err(reason) = refusal {
            flow.reset_host();
            return Err(reason);
        }
        let initial = Seq((context.random)() as u32);
        flow.engine = Some(Connection::call(context.now, initial, own_mss(context, &route)));
        if let Some(&old) = self.table.get(&(guest, remote)) {
            self.remove(old);
        }
        let number = self.insert(flow);
        self.ports.opened(port);
        let Some(flow) = &mut self.flows[number as usize] else { return Ok(()) };
        if watch(flow, number, context).is_err() {
            flow.reset_host();
            self.remove(number);
            return Err(DropReason::FileLimit);
        }
        self.queue(number);
        Ok(())
    }

    /// Tells a machine why its flow does not begin.
    fn refuse(
        &mut self,
        packet: &Inbound<'_>,
        error: io::Error,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        match Errno::from_io_error(&error) {
            // The machine tries again, and by then there may be one.
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                return Err(DropReason::FileLimit);
            }
            // As silent as the far end was.
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
                self.failures.push(Failure { port, mac, packet: packet.packet.into(), error });
                return Ok(());
            }
            _ => {}
        }
        let segment = Segment::parse(packet)?;
        let route = Route {
            mac: packet.mac,
            guest: SocketAddr::new(packet.source, segment.source),
            remote: SocketAddr::new(packet.destination, segment.destination),
        };
        route.send(context, &Outgoing::refusal(&segment))
    }

    /// Keeps the book of flows in this file, and has machines hear that those in it have ended.
    ///
    /// # Errors
    /// It cannot be read. Machines that only receive do not hear of it.
    pub(super) fn keep_book(&mut self, file: File) -> io::Result<()> {
        (self.ledger, self.orphans) = Ledger::open(file)?;
        Ok(())
    }

    /// Tells machines that flows have ended, as far as there is room on the cable.
    fn tell_orphans(&mut self, context: &mut Context<'_>) {
        while context.cable.room() > 0
            && let Some(route) = self.orphans.pop()
        {
            let astray = Outgoing { ack: Some(Seq(0)), ..Outgoing::default() };
            if let Err(reason) = route.send(context, &astray) {
                context.counters.drop(reason);
            }
        }
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn rows(&self, now: Duration) -> impl Iterator<Item = FlowRow> + '_ {
        self.flows.iter().flatten().map(move |flow| FlowRow {
            protocol: Transport::Tcp.name().to_owned(),
            guest: flow.route.guest,
            remote: Some(flow.route.remote),
            state: flow.state().to_owned(),
            sent: flow.sent,
            received: flow.received,
            idle: now.saturating_sub(flow.used).as_secs(),
        })
    }

    /// What the host refused since this was last asked, of what ICMP should tell.
    pub(super) fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    fn insert(&mut self, flow: Flow) -> u32 {
        let key = (flow.route.guest, flow.route.remote);
        self.ports.began(flow.port);
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
            self.ledger.enter(number, &flow.route);
        }
        self.table.insert(key, number);
        number
    }

    fn remove(&mut self, number: u32) -> Option<Box<Flow>> {
        let flow = self.flows[number as usize].take()?;
        self.table.remove(&(flow.route.guest, flow.route.remote));
        self.ledger.strike(number);
        self.ports.ended(number, &flow);
        self.free.push(number);
        Some(flow)
    }

    fn flow(&mut self, number: u32) -> Option<&mut Flow> {
        self.flows.get_mut(number as usize)?.as_deref_mut()
    }

    /// Gives a flow a turn at its time.
    fn queue(&mut self, number: u32) {
        if let Some(flow) = &mut self.flows[number as usize]
            && !std::mem::replace(&mut flow.is_queued, true)
        {
            self.ports.queue(flow.port, number);
        }
    }

    pub(super) fn ready(&mut self, number: u32, event: &Event, context: &mut Context<'_>) {
        let Some(Some(flow)) = self.flows.get_mut(number as usize) else { return };
        // An error is found by whoever reads or writes.
        flow.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        flow.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        if flow.syn.is_some() {
            self.connected(number, context);
        }
        self.queue(number);
    }

    /// The host has connected, or cannot.
    fn connected(&mut self, number: u32, context: &mut Context<'_>) {
        let Some(flow) = &mut self.flows[number as usize] else { return };
        let Some(stream) = &flow.stream else { return };
        let result = match stream.take_error() {
            Ok(None) => stream.peer_addr().map(drop),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
            _ => {}
        }
        if let Err(error) = result {
            return self.fail(number, error, context);
        }
        let (port, mac) = (flow.port, flow.route.mac);
        let Some(syn) = flow.syn.take() else { return };
        self.ports.opened(port);
        let packet = Inbound::kept(port, mac, &syn);
        let Ok(segment) = packet.and_then(|packet| Segment::parse(&packet)) else {
            return drop(self.remove(number));
        };
        let initial = Seq((context.random)() as u32);
        let mss = own_mss(context, &flow.route);
        flow.engine = Some(Connection::answer(context.now, &segment, initial, mss));
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        self.expire(context.now);
        self.tell_orphans(context);
        self.is_blocked = !self.orphans.is_empty();
        let mut left = TURNS;
        for _ in 0..self.ports.queued() {
            if context.cable.room() == 0 {
                self.is_blocked = true;
                return;
            }
            let Some(number) = self.ports.next() else { return };
            left = left.saturating_sub(self.turn(number, context));
            if left == 0 {
                return;
            }
        }
    }

    /// Gives a flow its turn; how many turns it was worth.
    fn turn(&mut self, number: u32, context: &mut Context<'_>) -> usize {
        let Some(flow) = self.flow(number) else { return 0 };
        flow.is_queued = false;
        if flow.syn.is_some() && flow.stream.is_none() {
            self.connect(number, context);
            return CONNECT_TURNS;
        }
        1 + (self.serve(number, context) / TURN_BYTES) as usize
    }

    /// Has a flow do what it can; how many bytes that moved between machine and host.
    fn serve(&mut self, number: u32, context: &mut Context<'_>) -> u64 {
        let Flows { flows, ports, scratch, timers, .. } = self;
        let Some(flow) = &mut flows[number as usize] else { return 0 };
        let before = flow.sent + flow.received;
        let turn = flow.serve(context, scratch, ports.is_rich(flow.port));
        let moved = flow.sent + flow.received - before;
        let Some(engine) = &flow.engine else { return moved };
        if flow.lingers.is_none() && engine.state() == (State::Closing { lingers: true }) {
            flow.lingers = Some(context.now);
            ports.lingers(flow.port, context.now, number);
        }
        let kept = engine.kept();
        ports.charge(flow.port, std::mem::replace(&mut flow.kept, kept), kept);
        heed(flow, number, context);
        if let Some(at) = flow.deadline()
            && flow.timer.is_none_or(|timer| at < timer)
        {
            flow.timer = Some(at);
            timers.push(Reverse((at, number)));
            // Those out of date are of up to two hours ahead, and a busy flow leaves some a second.
            if timers.len() > 2 * flows.len() + STALE_TIMERS {
                let timer = |number: u32| flows[number as usize].as_ref()?.timer;
                timers.retain(|Reverse((at, number))| timer(*number) == Some(*at));
            }
        }
        match turn {
            Turn::Idle => {}
            Turn::More => self.queue(number),
            Turn::Over => drop(self.remove(number)),
        }
        moved
    }

    /// Has flows whose time has come do what is due.
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
            let Some(engine) = &mut flow.engine else { continue };
            engine.expire(now);
            self.queue(number);
        }
    }

    /// Whether flows wait for room on the cable.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.ports.queued() > 0 && !self.is_blocked {
            return Some(Duration::ZERO);
        }
        self.timers.peek().map(|Reverse((at, _))| *at)
    }
}

/// The segment that the network's packets hold.
fn own_mss(context: &Context<'_>, route: &Route) -> u16 {
    let mtu = usize::from(context.config.mtu);
    mtu.saturating_sub(route.overhead()).max(64) as u16
}

/// Has the events of a flow's socket reported.
fn watch(flow: &mut Flow, number: u32, context: &Context<'_>) -> io::Result<()> {
    let Some(stream) = &mut flow.stream else { return Ok(()) };
    context.registry.register(stream, Kind::Tcp.token(number), EVENTS)
}

/// Has the events of a flow's socket say that it is readable, unless reading rests.
fn heed(flow: &mut Flow, number: u32, context: &Context<'_>) {
    let hears = flow.rests().is_none();
    let Some(stream) = flow.stream.as_mut().filter(|_| flow.hears != hears) else { return };
    let interest = if hears { EVENTS } else { Interest::WRITABLE };
    // Where that is refused, events come as before, and the next turn tries again.
    if context.registry.reregister(stream, Kind::Tcp.token(number), interest).is_ok() {
        flow.hears = hears;
    }
}

//! What machines send to other networks, and what comes back: the network's way out, through
//! sockets of the host.
//!
//! Nothing is forwarded as it is. Each protocol keeps a table of *flows*: what one machine says to
//! one address outside. A flow ends here, and goes on through a socket of the host ([`tcp`],
//! [`udp`], [`icmp`]). Where it may lead says [`policy`]; whose a packet is says [`classify`].

mod allowance;
mod classify;
pub(crate) mod context;
mod flow_table;
mod forward;
#[cfg(test)]
mod fuzz_tests;
mod host_socket;
mod host_stream;
mod icmp;
mod local_address;
mod neighbours;
mod outbound;
pub(crate) mod policy;
mod reassembly;
mod reflect;
mod tcp;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod tests;
mod turns;
mod udp;

use std::fs::File;
use std::io;
use std::time::Duration;

use mio::event::Event;
use smoltcp::wire::IpProtocol;
use trama_frame::VnetHeader;

use crate::config::Config;
use crate::dns::streams::Streams;
use crate::drop_reason::DropReason;
use crate::io::{Client, PortId};
use crate::packet::inbound::Inbound;
use crate::packet::{icmp as icmp_message, icmp_error};
use crate::report::{FlowRow, ForwardStatus, NatStatus};
use classify::Arrival;
use context::{Context, Kind};
use forward::{Forwards, reason};
use neighbours::Neighbours;
use reassembly::Reassembly;
use reflect::Reflector;

/// What became of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// It was the router's.
    Yes,
    /// It is none of the router's; nothing happened.
    Local,
    /// It was the last fragment of this frame, which is none of the router's.
    Whole(Vec<u8>),
}

/// All flows of a network.
#[derive(Default)]
pub(crate) struct Router {
    tcp: tcp::Flows,
    udp: udp::Flows,
    icmp: icmp::Flows,
    reassembly: Reassembly,
    forwards: Forwards,
    neighbours: Neighbours,
    reflector: Reflector,
    /// Machines that ask the gateway's DNS over TCP.
    streams: Streams,
}

impl Router {
    /// Follows the settings, at first and whenever they have changed.
    pub(crate) fn configure(&mut self, context: &Context<'_>) {
        self.forwards.configure(context);
        self.reflector.configure(context);
    }

    /// Keeps the journal of TCP flows in a file that outlives the process.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn open_journal(&mut self, file: File) -> io::Result<()> {
        self.tcp.open_journal(file)
    }

    /// DNS questions that came over TCP.
    pub(crate) fn take_questions(&mut self) -> Vec<(Client, Vec<u8>)> {
        self.streams.take_questions()
    }

    /// Answers a DNS question by the stream by which it came; without an answer, closes that.
    pub(crate) fn answer(&mut self, stream: u32, message: Option<&[u8]>) {
        self.streams.answer(stream, message);
    }

    /// Takes a frame with a packet for another network, or a fragment for this one.
    pub(crate) fn receive(
        &mut self,
        port: PortId,
        header: VnetHeader,
        frame: &[u8],
        context: &mut Context<'_>,
    ) -> Taken {
        let arrival = classify::parse(context.config, port, header, frame);
        // Where there is no way out, what is for the gateway is put together and DNS is served by
        // TCP, and that is all.
        let is_own = match &arrival {
            Ok(Arrival::Fragment(part)) => context.config.has(part.destination),
            Ok(Arrival::Packet(packet)) => classify::asks_dns(context.config, packet),
            _ => false,
        };
        if context.config.nat.is_none() && !is_own {
            return Taken::Local;
        }
        let result = match arrival {
            Ok(Arrival::Local) if self.neighbours.hear(port, frame, context) => {
                self.udp.machine_found();
                return Taken::Yes;
            }
            Ok(Arrival::Local) => return Taken::Local,
            Ok(Arrival::Packet(packet)) => self.handle(&packet, context),
            Ok(Arrival::Fragment(part)) => match self.reassemble(&part, context) {
                Ok(Some(whole)) => return Taken::Whole(whole),
                result => result.map(drop),
            },
            Ok(Arrival::Group(packet)) => self.reflector.ask(&packet, context),
            Err(reason) => Err(reason),
        };
        context.counters.received += 1;
        if let Err(reason) = result {
            context.counters.drop(reason);
        }
        Taken::Yes
    }

    /// Takes a whole packet for another network.
    fn handle(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        // The hop to the host is a router's: what would not survive it, does not (RFC 1812, 5.3.1).
        if packet.hop_limit <= 1 && !context.config.has(packet.destination) {
            return self.icmp.time_exceeded(packet, context);
        }
        match packet.protocol {
            IpProtocol::Tcp => self.tcp.handle(packet, context),
            IpProtocol::Udp => self.udp.handle(packet, context),
            _ if icmp_message::is_error(packet) => self.hear(packet, context),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.icmp.handle(packet, context),
            _ => Err(DropReason::UnknownProtocol),
        }
    }

    /// Has a flow draw the consequence of a machine's ICMP error.
    fn hear(&mut self, packet: &Inbound<'_>, context: &mut Context<'_>) -> Result<(), DropReason> {
        let heard = icmp_error::read(packet)?;
        match heard.protocol {
            IpProtocol::Tcp => self.tcp.hear(&heard),
            IpProtocol::Udp => self.udp.hear(&heard, context),
            _ => Err(DropReason::IcmpUnmatched),
        }
    }

    /// Takes a part of a packet; the whole goes to [`Router::handle`], or is a frame for the gateway's
    /// own services.
    fn reassemble(
        &mut self,
        part: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let packet = self.reassembly.take(context.now, part, context.counters)?;
        let Some(packet) = packet else { return Ok(None) };
        let packet = reassembly::whole(&packet, part).ok_or(DropReason::BadFragment)?;
        let is_shut = context.config.nat.is_none() && !classify::asks_dns(context.config, &packet);
        if is_shut || classify::is_local(context.config, &packet) {
            return Ok(Some(reassembly::frame(context.config.mac(), &packet)));
        }
        if !classify::may_send(context.config, &packet) {
            return Err(DropReason::ForeignSource);
        }
        self.handle(&packet, context).map(|()| None)
    }

    /// What somebody should be told of; each once.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = self.forwards.take_warnings();
        warnings.extend(self.udp.take_warnings());
        warnings.extend(self.icmp.take_warning());
        warnings.extend(self.reflector.take_warnings());
        warnings
    }

    /// All flows, for a report.
    pub(crate) fn flow_rows(&self, now: Duration) -> Vec<FlowRow> {
        self.tcp.rows(now).chain(self.udp.rows(now)).chain(self.icmp.rows(now)).collect()
    }

    /// How the settings' forwards fare.
    pub(crate) fn forward_rows(&self, config: &Config) -> Vec<ForwardStatus> {
        let rules = config.nat.iter().flat_map(|nat| &nat.forwards);
        rules
            .map(|rule| {
                let mut pending = self.forwards.pending().chain(self.udp.pending());
                let first = pending.find(|(name, _, _)| *name == rule.name);
                let pending = first.map(|(_, host, error)| format!("{host}: {}", reason(error)));
                ForwardStatus { name: rule.name.clone(), pending }
            })
            .collect()
    }

    /// How many flows there are: TCP, UDP, ICMP.
    pub(crate) fn census(&self) -> [usize; 3] {
        [self.tcp.len(), self.udp.len(), self.icmp.len()]
    }

    /// What passes, for a report.
    pub(crate) fn status(&self, config: &Config) -> Option<NatStatus> {
        config.nat.as_ref()?;
        let forwards = self.forward_rows(config);
        let pending = forwards.iter().filter(|forward| forward.pending.is_some()).count() as u64;
        let names = ["tcp", "udp", "icmp"].map(str::to_owned);
        let counts = self.census().map(|count| count as u64);
        Some(NatStatus {
            flows: names.into_iter().zip(counts).collect(),
            listening: forwards.len() as u64 - pending,
            pending,
        })
    }

    /// A socket of the host is ready.
    pub(crate) fn ready(&mut self, event: &Event, context: &mut Context<'_>) {
        match Kind::of(event.token()) {
            Some((Kind::Tcp, number)) => self.tcp.ready(number, event, context),
            Some((Kind::Udp, number)) => self.udp.ready(number, event, context),
            Some((Kind::Icmp, number)) => self.icmp.ready(number, event, context),
            Some((Kind::Forward, number)) => self.forwards.ready(number),
            Some((Kind::Reflect, number)) => self.reflector.ready(number),
            Some((Kind::Dns, number)) => self.streams.ready(number),
            None => {}
        }
    }

    /// Does what is due, and what waited for room on the cable.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) {
        self.forwards.poll(&mut self.neighbours, &mut self.tcp, context);
        self.tcp.poll(context);
        self.serve_dns(context);
        for failure in self.tcp.take_failures() {
            let packet = Inbound::kept(failure.port, failure.mac, &failure.packet);
            let answered =
                packet.and_then(|packet| self.icmp.unreachable(&packet, &failure.error, context));
            if let Err(reason) = answered {
                context.counters.drop(reason);
            }
        }
        self.udp.poll(&mut self.neighbours, context);
        self.icmp.poll(context);
        self.reflector.poll(context);
        self.reassembly.poll(context.now, context.counters);
    }

    /// Takes machines that have connected to the gateway's DNS; who is too many, is hung up on.
    fn serve_dns(&mut self, context: &mut Context<'_>) {
        for (client, socket) in std::mem::take(&mut self.tcp.dns_connections) {
            let token = |number| Kind::Dns.token(number);
            let opened = self.streams.open(context.now, context.registry, token, (client, socket));
            if let Err(reason) = opened {
                context.counters.drop(reason);
            }
        }
        self.streams.poll(context.now);
    }

    /// Whether flows wait for room on the cable.
    pub(crate) fn is_blocked(&self) -> bool {
        self.tcp.is_blocked()
            || self.udp.is_blocked
            || self.icmp.is_blocked
            || self.reflector.is_blocked
    }

    /// When [`Router::poll`] has something to do next.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        let flows = [self.tcp.deadline(), self.udp.deadline(), self.icmp.deadline()];
        let others = [self.forwards.deadline(now), self.reassembly.deadline()];
        let services = [self.reflector.deadline(), self.streams.deadline()];
        flows.into_iter().chain(others).chain(services).flatten().min()
    }
}

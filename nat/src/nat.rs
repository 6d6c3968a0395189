//! The NAT of one network: frames in, dispatched to the flows of each protocol; events of host
//! sockets in, frames out.

use std::fs::File;
use std::io;
use std::time::Duration;

use mio::event::Event;
use smoltcp::wire::IpProtocol;
use trama_frame::VnetHeader;

use crate::classify::{self, FrameClass};
use crate::context::{Context, TokenKind};
use crate::drop_reason::DropReason;
use crate::forward::{Forwards, errno_text};
use crate::io::{Client, PortMark};
use crate::neighbour_cache::NeighbourCache;
use crate::new_flows::NewFlows;
use crate::packet::inbound::Inbound;
use crate::packet::received::{self, Local};
use crate::packet::{icmp as icmp_packet, icmp_error};
use crate::reassembly::{self, Reassembly};
use crate::reflect::Reflector;
use crate::report::{FlowRow, ForwardStatus, NatStatus};
use crate::rules::Config;
use crate::{icmp, tcp, udp};

/// What became of a frame.
pub enum Handled<'a> {
    /// The NAT handled or dropped it, and counted it.
    Consumed,
    /// It is not the NAT's, and nothing happened.
    Local(Local<'a>),
    /// It was the last fragment of this frame, which is not the NAT's.
    Reassembled(Vec<u8>),
}

/// All flows of a network.
#[derive(Default)]
pub struct Nat {
    pub(crate) tcp: tcp::Flows,
    pub(crate) udp: udp::Flows,
    pub(crate) icmp: icmp::Flows,
    pub(crate) reassembly: Reassembly,
    pub(crate) forwards: Forwards,
    pub(crate) neighbours: NeighbourCache,
    pub(crate) reflector: Reflector,
    new_flows: NewFlows,
}

impl Nat {
    /// Applies the settings, at first and whenever they change.
    pub fn configure(&mut self, context: &Context<'_>) {
        self.forwards.configure(context);
        self.reflector.configure(context);
    }

    /// Keeps the journal of TCP flows in a file that outlives the process.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open_journal(&mut self, file: File) -> io::Result<()> {
        self.tcp.open_journal(file)
    }

    /// Takes the DNS queries that came over TCP.
    pub fn take_questions(&mut self) -> Vec<(Client, Vec<u8>)> {
        self.tcp.take_queries()
    }

    /// Answers a DNS query on its stream; without an answer, closes the stream.
    pub fn answer(&mut self, stream: u64, message: Option<&[u8]>) {
        self.tcp.answer(stream, message);
    }

    /// Handles a frame if it belongs to flows.
    pub fn receive<'a>(
        &mut self,
        port: PortMark,
        offload: VnetHeader,
        bytes: &'a [u8],
        context: &mut Context<'_>,
    ) -> Handled<'a> {
        let frame = received::parse(context.config.station.mac(), port, offload, bytes);
        let class = frame.and_then(|frame| classify::classify(context.config, frame));
        let result = match class {
            Ok(FrameClass::Local(frame)) => {
                let local = Local::from(frame);
                if !self.learn(port, &local, context) {
                    return Handled::Local(local);
                }
                Ok(())
            }
            Ok(FrameClass::Packet(packet)) => self.handle(&packet, context),
            Ok(FrameClass::Fragment(fragment)) => match self.reassemble(&fragment, context) {
                Ok(Some(whole)) => return Handled::Reassembled(whole),
                result => result.map(drop),
            },
            Ok(FrameClass::Group(packet)) => self.reflector.handle_query(&packet, context),
            Err(reason) => Err(reason),
        };
        context.counters.received += 1;
        if let Err(reason) = result {
            context.counters.drop_from(port, reason);
        }
        Handled::Consumed
    }

    /// Learns the MAC address of a guest that was asked for. Returns whether that is all that the
    /// frame is about.
    fn learn(&mut self, port: PortMark, local: &Local<'_>, context: &Context<'_>) -> bool {
        let Some(advertised) = local.advertised else { return false };
        let is_answer = self.neighbours.learn(port, advertised, context);
        if is_answer {
            self.udp.guest_resolved();
        }
        is_answer
    }

    /// Handles a whole packet for another network.
    fn handle(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let handled = self.dispatch(packet, context);
        if let Err(reason) = handled {
            context.events.note_refusal(context.now, packet, reason);
        }
        handled
    }

    fn dispatch(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        // The gateway is a router: it drops what a router would (RFC 1812, 5.3.1).
        if packet.hop_limit <= 1 && !context.config.station.has(packet.destination) {
            return self.icmp.time_exceeded(packet, context);
        }
        match packet.protocol {
            IpProtocol::Tcp => self.tcp.handle(packet, context),
            IpProtocol::Udp => self.udp.handle(packet, &mut self.new_flows, context),
            _ if icmp_packet::is_error(packet) => self.handle_icmp_error(packet, context),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                self.icmp.handle(packet, &mut self.new_flows, context)
            }
            _ => Err(DropReason::UnknownProtocol),
        }
    }

    /// Passes a guest's ICMP error to the flow that it is about.
    fn handle_icmp_error(
        &mut self,
        packet: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let error = icmp_error::read(packet)?;
        match error.protocol {
            IpProtocol::Tcp => self.tcp.handle_icmp_error(&error),
            IpProtocol::Udp => self.udp.handle_icmp_error(&error, context),
            _ => Err(DropReason::IcmpUnmatched),
        }
    }

    /// Adds a fragment. The whole packet goes to [`Nat::handle`], or is returned as a frame for the
    /// gateway's services.
    fn reassemble(
        &mut self,
        fragment: &Inbound<'_>,
        context: &mut Context<'_>,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let packet = self.reassembly.add(context.now, fragment, context.counters)?;
        let Some(packet) = packet else { return Ok(None) };
        let packet = reassembly::parse_whole(&packet, fragment).ok_or(DropReason::BadFragment)?;
        let without_nat =
            context.config.rules.is_none() && !classify::is_tcp_dns(context.config, &packet);
        if without_nat || classify::is_local(context.config, &packet) {
            return Ok(Some(reassembly::to_frame(context.config.station.mac(), &packet)));
        }
        if !classify::is_allowed_source(context.config, &packet) {
            return Err(DropReason::ForeignSource);
        }
        self.handle(&packet, context).map(|()| None)
    }

    /// Takes the warnings to log; each is returned once.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = self.forwards.take_warnings();
        warnings.extend(self.udp.take_warnings());
        warnings.extend(self.icmp.take_warning());
        warnings.extend(self.reflector.take_warnings());
        warnings
    }

    /// All flows, for a report.
    pub fn flow_rows(&self, now: Duration) -> Vec<FlowRow> {
        self.tcp.rows(now).chain(self.udp.rows(now)).chain(self.icmp.rows(now)).collect()
    }

    /// The state of each forward of the settings.
    pub fn forward_rows(&self, config: Config<'_>) -> Vec<ForwardStatus> {
        let rules = config.rules.iter().flat_map(|nat| &nat.forwards);
        rules
            .map(|rule| {
                let mut pending = self.forwards.pending().chain(self.udp.pending());
                let first = pending.find(|(name, _, _)| *name == rule.name);
                let pending =
                    first.map(|(_, host, error)| format!("{host}: {}", errno_text(error)));
                ForwardStatus { name: rule.name.clone(), pending }
            })
            .collect()
    }

    /// The number of flows: TCP, UDP, ICMP.
    pub fn census(&self) -> [usize; 3] {
        [self.tcp.len(), self.udp.len(), self.icmp.len()]
    }

    /// The state of the NAT, for a report.
    pub fn status(&self, config: Config<'_>) -> Option<NatStatus> {
        config.rules?;
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

    /// Handles an event of a host socket.
    pub fn ready(&mut self, event: &Event, context: &mut Context<'_>) {
        match TokenKind::of(event.token()) {
            Some((TokenKind::Tcp, number)) => self.tcp.ready(number, event, context),
            Some((TokenKind::Udp, number)) => self.udp.ready(number, event, context),
            Some((TokenKind::Icmp, number)) => self.icmp.ready(number, event, context),
            Some((TokenKind::Forward, number)) => self.forwards.ready(number),
            Some((TokenKind::Reflect, number)) => self.reflector.ready(number),
            None => {}
        }
    }

    /// Handles expired timers, and what waited for room on the cable. Called once in each pass of
    /// the event loop, after the pass's frames.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        self.forwards.poll(&mut self.neighbours, &mut self.tcp, context);
        self.tcp.poll(&mut self.new_flows, context);
        for failure in self.tcp.take_failures() {
            let packet = Inbound::reparse(failure.port, failure.mac, &failure.packet);
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
        self.new_flows.next_pass();
    }

    /// Whether flows wait for room on the cable.
    pub fn is_blocked(&self) -> bool {
        self.tcp.is_blocked()
            || self.udp.is_blocked
            || self.icmp.is_blocked
            || self.reflector.is_blocked
    }

    /// When [`Nat::poll`] has to be called next.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let flows = [self.tcp.deadline(), self.udp.deadline(), self.icmp.deadline()];
        let others = [self.forwards.deadline(now), self.reassembly.deadline()];
        flows.into_iter().chain(others).chain([self.reflector.deadline()]).flatten().min()
    }
}

#[cfg(test)]
mod tests;

//! What machines send to other networks, and what comes back: the network's way out, through
//! sockets of the host.
//!
//! Nothing is forwarded as it is. Each protocol keeps a table of *flows*: what one machine says to
//! one address outside. A flow ends here, and goes on through a socket of the host ([`tcp`],
//! [`udp`], [`icmp`]). Where it may lead says [`policy`]; what a packet is says [`inbound`].

mod icmp;
pub(crate) mod inbound;
pub(crate) mod policy;
mod tcp;
mod udp;

use std::time::Duration;

use mio::event::Event;
use mio::{Registry, Token};
use smoltcp::wire::IpProtocol;
use trama_frame::VnetHeader;

use crate::config::Config;
use crate::drop_reason::{Counters, DropReason};
use crate::gateway::Random;
use inbound::Inbound;
use policy::Policy;

/// The way to the network's machines.
pub(crate) trait Cable {
    /// Frames that [`Cable::send`] takes before there is no room.
    fn room(&self) -> usize;

    /// Queues a frame, the concatenation of `parts`.
    ///
    /// # Errors
    /// No room, or it is too long. It is not queued.
    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason>;
}

/// What flows work with.
pub(crate) struct Context<'a> {
    pub now: Duration,
    pub config: &'a Config,
    pub policy: &'a Policy,
    /// Knows the host's sockets. A flow's token is made by [`Kind::token`].
    pub registry: &'a Registry,
    pub cable: &'a mut dyn Cable,
    pub counters: &'a mut Counters,
    pub random: &'a mut Random,
}

/// Whose socket a token stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp = 1,
    Udp,
    Icmp,
    Forward,
}

impl Kind {
    const SHIFT: u32 = 32;

    /// The token of the flow with this number; greater than all others of the process.
    pub(crate) fn token(self, number: u32) -> Token {
        Token((self as usize) << Self::SHIFT | number as usize)
    }

    /// What a token stands for; `None` if it is none of a flow.
    pub(crate) fn of(token: Token) -> Option<(Kind, u32)> {
        let kind = [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Forward]
            .into_iter()
            .find(|kind| *kind as usize == token.0 >> Self::SHIFT)?;
        Some((kind, token.0 as u32))
    }
}

/// All flows of a network.
#[derive(Default)]
pub(crate) struct Router {
    tcp: tcp::Flows,
    udp: udp::Flows,
    icmp: icmp::Flows,
}

impl Router {
    /// Takes a packet for another network.
    pub(crate) fn handle(&mut self, packet: &Inbound<'_>, context: &mut Context<'_>) {
        let result = match packet.protocol {
            IpProtocol::Tcp => self.tcp.handle(packet, context),
            IpProtocol::Udp => self.udp.handle(packet, context),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.icmp.handle(packet, context),
            _ => Err(DropReason::UnknownProtocol),
        };
        if let Err(reason) = result {
            context.counters.drop(reason);
        }
    }

    /// A socket of the host is ready.
    pub(crate) fn ready(&mut self, event: &Event, context: &mut Context<'_>) {
        match Kind::of(event.token()) {
            Some((Kind::Tcp, number)) => self.tcp.ready(number, event, context),
            Some((Kind::Udp, number)) => self.udp.ready(number, event, context),
            Some((Kind::Icmp, number)) => self.icmp.ready(number, event, context),
            Some((Kind::Forward, _)) | None => {}
        }
    }

    /// Does what is due, and what waited for room on the cable.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) {
        self.tcp.poll(context);
        self.udp.poll(context);
        self.icmp.poll(context);
    }

    /// When [`Router::poll`] has something to do next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        [self.tcp.deadline(), self.udp.deadline(), self.icmp.deadline()].into_iter().flatten().min()
    }
}

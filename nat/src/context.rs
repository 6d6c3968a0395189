//! What flows work with.

use std::time::Duration;

use mio::{Registry, Token};
use trama_frame::VnetHeader;

use crate::cable::Cable;
use crate::drop_reason::{Counters, DropReason};
use crate::events::FlowEvents;
use crate::io::Random;
use crate::rules::Config;

/// The tokens of host sockets start here; smaller ones are free for the caller's own sockets.
pub const FIRST_TOKEN: usize = 1 << TokenKind::SHIFT;

/// Everything outside the flows that they use, lent for one call.
pub struct Context<'a> {
    /// The time since any fixed moment. It never goes back.
    pub now: Duration,
    /// The settings.
    pub config: Config<'a>,
    /// Where host sockets are registered, with tokens from [`FIRST_TOKEN`] on. Their events belong
    /// to [`Nat::ready`](crate::Nat::ready).
    pub registry: &'a Registry,
    /// Where frames for guests go.
    pub cable: &'a mut dyn Cable,
    /// Frames and drops are counted here.
    pub counters: &'a mut Counters,
    /// Events of flows are noted here.
    pub events: &'a mut FlowEvents,
    /// Source of initial sequence numbers and identifications.
    pub random: &'a mut Random,
}

impl Context<'_> {
    /// Sends a frame to a guest, and counts it.
    pub(crate) fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        self.cable.send(header, parts)?;
        self.counters.sent += 1;
        Ok(())
    }
}

/// The kind of socket that a token stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenKind {
    Tcp = 1,
    Udp,
    Icmp,
    Forward,
    Reflect,
}

impl TokenKind {
    const SHIFT: u32 = 32;

    /// The token of a socket.
    pub(crate) fn token(self, number: u32) -> Token {
        Token((self as usize) << Self::SHIFT | number as usize)
    }

    /// The kind and number of a token; `None` if it is not a flow's.
    pub(crate) fn of(token: Token) -> Option<(TokenKind, u32)> {
        let kind = [
            TokenKind::Tcp,
            TokenKind::Udp,
            TokenKind::Icmp,
            TokenKind::Forward,
            TokenKind::Reflect,
        ]
        .into_iter()
        .find(|kind| *kind as usize == token.0 >> Self::SHIFT)?;
        Some((kind, token.0 as u32))
    }
}

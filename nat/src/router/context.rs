//! What flows work with.

use std::time::Duration;

use mio::{Registry, Token};
use trama_frame::VnetHeader;

use crate::cable::Cable;
use crate::drop_reason::{Counters, DropReason};
use crate::io::Random;
use crate::rules::Config;

/// Everything outside a flow that it uses, lent for one call.
pub(crate) struct Context<'a> {
    pub now: Duration,
    pub config: Config<'a>,
    /// Where host sockets are registered, with a token from [`TokenKind::token`].
    pub registry: &'a Registry,
    pub cable: &'a mut dyn Cable,
    pub counters: &'a mut Counters,
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
    Dns,
}

impl TokenKind {
    const SHIFT: u32 = 32;

    /// The token of a socket. All are above the other tokens of the process.
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
            TokenKind::Dns,
        ]
        .into_iter()
        .find(|kind| *kind as usize == token.0 >> Self::SHIFT)?;
        Some((kind, token.0 as u32))
    }
}

//! What flows work with.

use std::time::Duration;

use mio::{Registry, Token};
use trama_frame::VnetHeader;

use super::policy::Policy;
use crate::cable::Cable;
use crate::config::Config;
use crate::drop_reason::{Counters, DropReason};
use crate::io::Random;

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

impl Context<'_> {
    /// Sends a frame to one of the network's machines, and counts it.
    pub(crate) fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason> {
        self.cable.send(header, parts)?;
        self.counters.sent += 1;
        Ok(())
    }
}

/// Whose socket a token stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp = 1,
    Udp,
    Icmp,
    Forward,
    Reflect,
    Dns,
}

impl Kind {
    const SHIFT: u32 = 32;

    /// The token of the flow with this number; greater than all others of the process.
    pub(crate) fn token(self, number: u32) -> Token {
        Token((self as usize) << Self::SHIFT | number as usize)
    }

    /// What a token stands for; `None` if it is none of a flow.
    pub(crate) fn of(token: Token) -> Option<(Kind, u32)> {
        let kind = [Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Forward, Kind::Reflect, Kind::Dns]
            .into_iter()
            .find(|kind| *kind as usize == token.0 >> Self::SHIFT)?;
        Some((kind, token.0 as u32))
    }
}

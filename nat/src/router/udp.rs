//! UDP flows.

use std::time::Duration;

use mio::event::Event;

use super::Context;
use super::inbound::Inbound;
use crate::drop_reason::DropReason;

/// All of a network's UDP flows.
#[derive(Default)]
pub(crate) struct Flows {}

impl Flows {
    pub(super) fn handle(
        &mut self,
        _packet: &Inbound<'_>,
        _context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        Err(DropReason::UnknownProtocol)
    }

    pub(super) fn ready(&mut self, _number: u32, _event: &Event, _context: &mut Context<'_>) {}

    pub(super) fn poll(&mut self, _context: &mut Context<'_>) {}

    pub(super) fn deadline(&self) -> Option<Duration> {
        None
    }
}

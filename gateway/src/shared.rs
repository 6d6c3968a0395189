//! What the services and the NAT have in common.

use std::time::Duration;

use mio::Registry;
use trama_nat::{Cable, Context, FlowEvents, Random};

use crate::config::Config;
use crate::drop_reason::Counters;
use crate::event::Events;

/// Settings, counters, events and the source of random numbers.
pub(crate) struct Shared {
    pub config: Config,
    pub counters: Counters,
    pub random: Random,
    pub events: Events,
    pub flow_events: FlowEvents,
}

impl Shared {
    /// Lends all of it to the NAT for one call.
    pub(crate) fn context<'a>(
        &'a mut self,
        now: Duration,
        registry: &'a Registry,
        cable: &'a mut dyn Cable,
    ) -> Context<'a> {
        let Shared { config, counters, random, flow_events: events, .. } = self;
        let (config, counters) = (config.nat(), &mut counters.frames);
        Context { now, config, registry, cable, counters, events, random }
    }
}

//! What the services and the NAT have in common.

use std::time::Duration;

use mio::Registry;
use trama_nat::{Cable, Context, Random};

use crate::config::Config;
use crate::drop_reason::Counters;

/// Settings, counters and the source of random numbers.
pub(crate) struct Shared {
    pub config: Config,
    pub counters: Counters,
    pub random: Random,
}

impl Shared {
    /// Lends all of it to the NAT for one call.
    pub(crate) fn context<'a>(
        &'a mut self,
        now: Duration,
        registry: &'a Registry,
        cable: &'a mut dyn Cable,
    ) -> Context<'a> {
        let Shared { config, counters, random } = self;
        let (config, counters) = (config.nat(), &mut counters.frames);
        Context { now, config, registry, cable, counters, random }
    }
}

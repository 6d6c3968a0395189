//! Frames that came by a tunnel do not leave by one. The host that sent them has a tunnel to the
//! other one itself, and three hosts with tunnels between all of them would be a loop.

use super::{Plan, Source};
use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::mac_table::PortIndex;

impl Plan {
    /// Drops the unicast frames of a burst from a tunnel that would leave by another one.
    #[cold]
    pub(crate) fn keep_from_tunnels<S: Source>(
        &mut self,
        source: &S,
        is_tunnel: impl Fn(PortIndex) -> bool,
        counters: &PortCounters,
    ) {
        let mut kept = 0;
        for place in 0..self.ports {
            let (to, frames) = self.unicast[place];
            if is_tunnel(to) {
                self.drop_counted(source, frames, DropReason::TunnelLocal, counters);
            } else {
                self.unicast[kept] = (to, frames);
                kept += 1;
            }
        }
        self.ports = kept;
    }
}

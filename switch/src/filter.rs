//! Which frames a port receives besides those for it: `promiscuous`, and frames with an unknown
//! destination.
//!
//! A port is checked here only if a burst has something to flood, or if a port of the network
//! listens to others' frames; all other frames went straight to their port.

use trama_frame::MacAddr;

use crate::forward::{FrameSet, Plan, Source, members};
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::types::{Promiscuous, Station};

/// A burst, sorted for the ports that it may go to.
pub(crate) struct EgressFilter {
    /// Frames for a group, for an unknown station, and for a known one.
    groups: FrameSet,
    unknown: FrameSet,
    known: FrameSet,
    /// Frames between guests of the network.
    between_guests: FrameSet,
}

impl EgressFilter {
    /// Sorts a burst that came from port `ingress`.
    pub(crate) fn new(plan: &Plan, ports: &[Option<Port>], ingress: PortIndex) -> EgressFilter {
        let is_outside = |index: PortIndex| {
            let port = ports.get(usize::from(index.0)).and_then(Option::as_ref);
            port.is_some_and(|port| port.settings.filter.is_outside)
        };
        let known = plan.known();
        let outward = plan.unicast().iter().filter(|(port, _)| is_outside(*port));
        let outward = outward.fold(0, |all, (_, frames)| all | frames);
        EgressFilter {
            groups: plan.flood & !plan.unknown,
            unknown: plan.unknown,
            known,
            between_guests: match is_outside(ingress) {
                true => 0,
                false => plan.unknown | (known & !outward),
            },
        }
    }

    /// Returns the frames that `port`, not the ingress port, receives if it carries their VLAN,
    /// besides its unicast frames.
    pub(crate) fn frames_for<S: Source>(&self, source: &S, port: &Port) -> FrameSet {
        let others = match port.settings.filter.promiscuous {
            Promiscuous::Deny => 0,
            Promiscuous::AllowVms => self.between_guests,
            Promiscuous::AllowAll => self.unknown | self.known,
        };
        self.groups | others | self.unknown_for(source, port)
    }

    /// Returns the frames of unknown destination that may be for the stations behind a port.
    fn unknown_for<S: Source>(&self, source: &S, port: &Port) -> FrameSet {
        let filter = &port.settings.filter;
        let stated = match filter.station {
            Station::Many => return self.unknown,
            Station::Known(mac) => Some(mac),
            Station::Learned => None,
        };
        // A guest limited to one source address was seen with no other.
        let seen = filter.only_source().is_none().then_some(&port.sources);
        if seen.is_some_and(|seen| seen.has_several() || (stated.is_none() && seen.is_empty())) {
            return self.unknown;
        }
        let is_own = |i: &usize| {
            let to = source.head(*i).first_chunk().copied().map(MacAddr);
            to.is_some_and(|to| stated == Some(to) || seen.is_some_and(|seen| seen.contains(to)))
        };
        members(self.unknown).filter(is_own).fold(0, |all, i| all | 1 << i)
    }
}

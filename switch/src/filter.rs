//! Who hears what beside the frames that are for it: `promiscuous`, and where frames go whose
//! destination nobody has learned.
//!
//! A port takes part in this only if a burst has something to flood, or if a port of the network
//! hears others' frames; everything else has gone straight to its port before.

use trama_frame::MacAddr;

use crate::forward::{FrameSet, Plan, Source, members};
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::types::{Promiscuous, Station};

/// A burst as seen from the ports that it may go to.
pub(crate) struct Audience {
    /// Frames for a group, and for one machine that nobody has learned, or somebody has.
    groups: FrameSet,
    unknown: FrameSet,
    known: FrameSet,
    /// What machines of the network send each other.
    among_machines: FrameSet,
}

impl Audience {
    /// A burst that came from port `ingress`.
    pub(crate) fn new(plan: &Plan, ports: &[Option<Port>], ingress: PortIndex) -> Audience {
        let is_outside = |index: PortIndex| {
            let port = ports.get(usize::from(index.0)).and_then(Option::as_ref);
            port.is_some_and(|port| port.settings.filter.is_outside)
        };
        let known = plan.known();
        let outward = plan.unicast().iter().filter(|(port, _)| is_outside(*port));
        let outward = outward.fold(0, |all, (_, frames)| all | frames);
        Audience {
            groups: plan.flood & !plan.unknown,
            unknown: plan.unknown,
            known,
            among_machines: match is_outside(ingress) {
                true => 0,
                false => plan.unknown | (known & !outward),
            },
        }
    }

    /// The frames that `port`, another than they came from, is to get if it carries their VLAN,
    /// beside those for it alone.
    pub(crate) fn due<S: Source>(&self, source: &S, port: &Port) -> FrameSet {
        let others = match port.settings.filter.promiscuous {
            Promiscuous::Deny => 0,
            Promiscuous::AllowVms => self.among_machines,
            Promiscuous::AllowAll => self.unknown | self.known,
        };
        self.groups | others | self.unknown_for(source, port)
    }

    /// The frames of unknown destination that may be for the machines behind a port.
    fn unknown_for<S: Source>(&self, source: &S, port: &Port) -> FrameSet {
        let filter = &port.settings.filter;
        let stated = match filter.station {
            Station::Many => return self.unknown,
            Station::Known(mac) => Some(mac),
            Station::Learned => None,
        };
        // A guest that may send from one address only has shown no other.
        let shown = filter.only_source().is_none().then_some(&port.sources);
        if shown.is_some_and(|shown| shown.are_several() || (stated.is_none() && shown.are_none()))
        {
            return self.unknown;
        }
        let is_own = |i: &usize| {
            let to = source.head(*i).first_chunk().copied().map(MacAddr);
            to.is_some_and(|to| stated == Some(to) || shown.is_some_and(|shown| shown.have(to)))
        };
        members(self.unknown).filter(is_own).fold(0, |all, i| all | 1 << i)
    }
}

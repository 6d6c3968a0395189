//! Mirrors: copies of a network's frames for an analyser, at one of its ports or on a VLAN (RSPAN).
//!
//! A mirror takes each frame once, wherever it selects it: as it enters, after the ingress port has
//! assigned its VLAN, or as it leaves. What it selects goes to the output port whatever VLANs that
//! carries, and leaves there tagged or not by the port's VLAN mode. The output port takes part in
//! nothing else: other frames do not go to it, and what it sends is dropped.
//!
//! A mirrored port leaves the straight path by the branches that a watched one takes (see
//! [`watch`](crate::watch)); so without a mirror no frame takes an instruction more.

pub(crate) mod types;

use std::sync::Arc;

use trama_frame::VlanId;
use trama_frame::vnet::PRIVATE_HEAD;

use crate::counters::MirrorCounters;
use crate::forward::{FrameSet, Plan, Source, members};
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::types::PortId;
use crate::vlan::VlanSet;
use crate::watch::{Filter, Glimpse};

use types::{MirrorSet, Mirrored};

/// Most mirrors of one network.
pub const MAX_MIRRORS: usize = MirrorSet::BITS as usize;

/// What to copy of a network's frames, and where to.
pub struct Mirror {
    /// Ports of which it copies the frames that enter; `None` stands for all.
    pub sources: Option<Vec<PortId>>,
    /// Ports of which it copies the frames that leave.
    pub destinations: Vec<PortId>,
    /// VLANs of which it copies frames.
    pub vlans: VlanSet,
    /// Which of all these it copies; all if `None`.
    pub filter: Option<Filter>,
    /// Where copies go.
    pub output: MirrorOutput,
    /// Most bytes of a copy, if it is cut.
    pub snaplen: Option<usize>,
    /// What it has done; this network is the only writer.
    pub counters: Arc<MirrorCounters>,
}

/// Where a mirror's copies go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MirrorOutput {
    /// To a port.
    Port(PortId),
    /// To each port that carries this VLAN, as frames of it.
    Vlan(VlanId),
}

/// The mirrors of a network.
#[derive(Default)]
pub(crate) struct Mirrors {
    list: Vec<Active>,
    /// The ID of the first frame of the burst that `done` is about.
    burst: u64,
}

struct Active {
    mirror: Mirror,
    /// The output port, if it is on the network.
    output: Option<PortIndex>,
    /// Frames of the burst that it has seen.
    done: FrameSet,
}

impl Mirrors {
    pub(crate) fn new(mirrors: Vec<Mirror>) -> Mirrors {
        let active = |mirror| Active { mirror, output: None, done: 0 };
        Mirrors { list: mirrors.into_iter().map(active).collect(), burst: 0 }
    }

    /// Returns how they take part in a port's frames.
    fn of(&self, port: PortId) -> Mirrored {
        let mut of = Mirrored::default();
        for (place, Active { mirror, .. }) in self.list.iter().enumerate() {
            let bit = |is_set| MirrorSet::from(is_set) << place;
            let is_source = mirror.sources.as_ref().is_none_or(|ports| ports.contains(&port));
            of.received |= bit(is_source);
            of.sent |= bit(mirror.destinations.contains(&port));
            of.is_output |= mirror.output == MirrorOutput::Port(port);
        }
        of
    }

    /// Returns a mirror with its output port, if that is on the network.
    pub(crate) fn get(&self, place: usize) -> Option<(&Mirror, Option<PortIndex>)> {
        self.list.get(place).map(|active| (&active.mirror, active.output))
    }

    /// Tells each port of the network how they take part in its frames. Returns the ports that
    /// became outputs, or ceased to be.
    pub(crate) fn tell(&mut self, ports: &mut [Option<Port>]) -> Vec<PortIndex> {
        self.list.iter_mut().for_each(|active| active.output = None);
        let mut changed = Vec::new();
        for (index, port) in (0..).map(PortIndex).zip(ports) {
            let Some(port) = port else { continue };
            if port.set_mirrored(self.of(port.id)) {
                changed.push(index);
            }
            for active in &mut self.list {
                if active.mirror.output == MirrorOutput::Port(port.id) {
                    active.output = Some(index);
                }
            }
        }
        changed
    }

    /// Returns those of `frames` that a mirror copies now: it has not seen them before in this
    /// burst, whose first frame has the ID `burst`.
    pub(crate) fn take<S: Source>(
        &mut self,
        place: usize,
        burst: u64,
        frames: FrameSet,
        (source, plan): (&S, &Plan),
    ) -> FrameSet {
        if self.burst != burst {
            self.burst = burst;
            self.list.iter_mut().for_each(|active| active.done = 0);
        }
        let Some(Active { mirror, done, .. }) = self.list.get_mut(place) else { return 0 };
        let new = frames & !*done;
        *done |= new;
        mirror.choose(new, source, plan)
    }

    /// Returns the places of the mirrors among `by` that would copy a frame, the only one of its
    /// burst.
    pub(crate) fn copying<S: Source>(&self, by: MirrorSet, source: &S, plan: &Plan) -> Vec<usize> {
        let copies = |place: &usize| {
            self.get(*place).is_some_and(|(mirror, _)| mirror.choose(1, source, plan) != 0)
        };
        members(by.into()).filter(copies).collect()
    }
}

impl Mirror {
    /// Returns those of `frames` that it copies.
    fn choose<S: Source>(&self, frames: FrameSet, source: &S, plan: &Plan) -> FrameSet {
        let mut chosen = 0;
        for (run, vlan) in plan.runs() {
            if run & frames != 0 && self.wants(vlan) {
                chosen |= run & frames;
            }
        }
        let Some(filter) = &self.filter else { return chosen };
        let passes = |i: &usize| {
            let head = source.head(*i);
            let head = &head[..head.len().min(PRIVATE_HEAD)];
            filter(&Glimpse { head, len: source.frame_len(*i), drop: None })
        };
        members(chosen).filter(passes).fold(0, |set, i| set | 1 << i)
    }

    /// Returns whether it copies frames of a VLAN. Its own copies are not copied again.
    fn wants(&self, vlan: VlanId) -> bool {
        self.vlans.contains(vlan) && self.output != MirrorOutput::Vlan(vlan)
    }
}

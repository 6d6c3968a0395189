//! The watches of a network.

use trama_frame::VlanTag;
use trama_frame::ethernet::TAG_LEN;
use trama_frame::retag::{self, start_len};
use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_virtqueue::Segment;

use super::queue::{Entry, Room, Writer};
use super::sampler::Sampler;
use super::types::{
    Burst, Egress, Glimpse, MAX_WATCHES, ReasonSet, Sampling, Seers, Sighting, WatchCount, WatchId,
    Ways,
};
use crate::drop_reason::DropReason;
use crate::forward::{FrameSet, Plan, Reasons, Source, members};
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::types::PortId;

/// Decides by a frame's beginning whether it is copied. Called on the worker.
pub type Filter = Box<dyn Fn(&Glimpse<'_>) -> bool + Send>;

/// What to copy of the frames at some ports of a network.
pub struct Watch {
    /// The ports; those that are not on the network are left out.
    pub ports: Vec<PortId>,
    /// The ways of which frames that pass are copied.
    pub frames: Ways,
    /// The ways of which dropped frames are copied, at the port where they are counted.
    pub dropped: Ways,
    /// Reasons for which they are.
    pub drops: ReasonSet,
    /// Most bytes copied of a frame.
    pub snaplen: usize,
    /// Which of all these are copied; all if `None`.
    pub filter: Option<Filter>,
    /// Which frames are looked at, of those that a port shows; all if `None`.
    pub sampling: Option<Sampling>,
    /// Where they are copied to.
    pub queue: Writer,
}

/// Frames of a burst at a port.
pub(crate) struct Sight<'a, S> {
    pub source: &'a S,
    pub plan: &'a Plan,
    pub burst: Burst,
    pub seen: Sighting,
    pub frames: FrameSet,
    /// Why those were dropped that were.
    pub reasons: &'a Reasons,
    /// The tags with which frames leave, where some change.
    pub tags: Option<&'a dyn Fn(usize) -> Option<VlanTag>>,
    /// Where frames that have entered leave, if they have.
    pub egress: Option<&'a dyn Fn(usize) -> Egress>,
}

impl<S: Source> Sight<'_, S> {
    /// Gives a frame that was dropped, as it entered, or that leaves with another tag.
    #[inline(never)]
    fn give_other(&self, i: usize, copying: &mut Copying<'_, '_>) {
        let (drop, len) = (self.reasons.get(i), self.source.frame_len(i));
        let (meta, tags) = match (drop, self.tags) {
            (None, Some(tags)) => (&self.plan.meta[i], tags),
            // Nothing of it may be read.
            _ if self.source.error(i).is_some() => {
                return copying.take(i, drop, &[0; HEADER], 0, &[], &[]);
            }
            // Its header may be what is wrong with it.
            _ => {
                return self.source.with_frame(i, |head, body| {
                    copying.take(i, drop, &[0; HEADER], len, head, body);
                });
            }
        };
        let (was_tagged, tag) = (meta.tag.is_some(), tags(i));
        let growth = start_len(tag.is_some()) as i16 - start_len(was_tagged) as i16;
        let header = meta.header.shifted(growth).to_bytes();
        let len = len.wrapping_add_signed(growth.into());
        let mut room = [0; TAG_LEN + PRIVATE_HEAD];
        self.source.with_frame(i, |head, body| {
            let head = retag::write(head, was_tagged, tag, &mut room);
            copying.take(i, drop, &header, len, head, body);
        });
    }
}

/// Copies frames of a burst into a queue.
struct Copying<'a, 'q> {
    room: &'a mut Room<'q>,
    filter: Option<&'a Filter>,
    snaplen: usize,
    captured: u64,
    lost: u64,
    /// Frames lost since the last one that was copied.
    missed: u64,
}

impl Copying<'_, '_> {
    /// Copies a frame unless the filter leaves it out.
    #[inline(always)]
    fn take(
        &mut self,
        i: usize,
        drop: Option<DropReason>,
        header: &[u8; HEADER],
        len: usize,
        head: &[u8],
        body: &[Segment<'_>],
    ) {
        if let Some(filter) = self.filter {
            let head = &head[..head.len().min(PRIVATE_HEAD)];
            if !filter(&Glimpse { head, len, drop }) {
                return;
            }
        }
        let entry = Entry { i, drop, missed: self.missed, header, len };
        if self.room.put(entry, head, body, self.snaplen) {
            self.captured += 1;
            self.missed = 0;
        } else {
            self.lost += 1;
            self.missed += 1;
        }
    }
}

/// The watches of a network, each at a place of its own.
#[derive(Default)]
pub(crate) struct Watches([Option<Box<Watching>>; MAX_WATCHES]);

/// A watch at work.
struct Watching {
    id: WatchId,
    watch: Watch,
    /// By port index; the watched ports alone count.
    counts: Vec<Option<Count>>,
}

/// What it did at one port.
struct Count {
    total: WatchCount,
    sampler: Option<Sampler>,
    /// Frames missed since the last one that was copied.
    missed: u64,
}

impl Watches {
    /// Adds a watch and tells its ports. Returns `false` if every place is taken.
    #[must_use]
    pub(crate) fn add(&mut self, id: WatchId, watch: Watch, ports: &mut [Option<Port>]) -> bool {
        let Some(place) = self.0.iter().position(Option::is_none) else { return false };
        let mut watching = Watching { id, watch, counts: Vec::new() };
        for (index, port) in ports.iter_mut().enumerate() {
            if let Some(port) = port
                && watching.watch.ports.contains(&port.id)
            {
                watching.see(place, index, port);
            }
        }
        self.0[place] = Some(Box::new(watching));
        true
    }

    /// Lets a watch see a port that came later. Returns whether there is such a watch.
    pub(crate) fn extend(&mut self, id: WatchId, index: PortIndex, port: &mut Port) -> bool {
        let Some(place) = self.place(id) else { return false };
        if let Some(watching) = &mut self.0[place] {
            watching.see(place, usize::from(index.0), port);
        }
        true
    }

    /// Ends a watch; returns its queue and what it did.
    pub(crate) fn remove(
        &mut self,
        id: WatchId,
        ports: &mut [Option<Port>],
    ) -> Option<(Writer, Vec<WatchCount>)> {
        let place = self.place(id)?;
        let watching = self.0[place].take()?;
        let rest = !(1 << place);
        for port in ports.iter_mut().flatten() {
            let Seers { received, sent } = port.seers;
            port.set_seers(Seers { received: received & rest, sent: sent & rest });
        }
        let counts = watching.counts.into_iter().flatten().map(|count| count.total).collect();
        Some((watching.watch.queue, counts))
    }

    fn place(&self, id: WatchId) -> Option<usize> {
        self.0.iter().position(|watching| watching.as_ref().is_some_and(|known| known.id == id))
    }

    /// Shows frames to the watches that see them.
    pub(crate) fn show<S: Source>(&mut self, sight: &Sight<'_, S>) {
        for place in members(sight.seen.seers.into()) {
            if let Some(Some(watching)) = self.0.get_mut(place) {
                watching.show(sight);
            }
        }
    }
}

impl Watching {
    fn see(&mut self, place: usize, index: usize, port: &mut Port) {
        let bit = |is_wanted| u16::from(is_wanted) << place;
        let (ways, Seers { received, sent }) = (self.watch.ways(), port.seers);
        port.set_seers(Seers {
            received: received | bit(ways.received),
            sent: sent | bit(ways.sent),
        });
        if self.counts.len() <= index {
            self.counts.resize_with(index + 1, || None);
        }
        let total = WatchCount { port: port.id, captured: 0, missed: 0 };
        let sampler = self.watch.sampling.map(|sampling| Sampler::new(sampling, port.id.0));
        self.counts[index] = Some(Count { total, sampler, missed: 0 });
    }

    fn show<S: Source>(&mut self, sight: &Sight<'_, S>) {
        let index = usize::from(sight.seen.index.0);
        let Some(Some(count)) = self.counts.get_mut(index) else { return };
        if let Some(sampler) = &mut count.sampler {
            let chosen = sampler.choose(sight.frames);
            // Each with a head of its own, which says where it leaves.
            for i in members(chosen) {
                let egress = sight.egress.map(|egress| egress(i)).unwrap_or_default();
                self.watch.copy(count, sight, Burst { egress, ..sight.burst }, 1 << i);
            }
        } else {
            self.watch.copy(count, sight, sight.burst, sight.frames);
        }
    }
}

impl Watch {
    /// The ways of which it looks at frames.
    fn ways(&self) -> Ways {
        let (frames, dropped) = (self.frames, self.dropped);
        let has_drops = self.drops != ReasonSet::NONE;
        Ways {
            received: frames.received || has_drops && dropped.received,
            sent: frames.sent || has_drops && dropped.sent,
        }
    }

    /// Copies those of a port's frames that are wanted.
    fn copy<S: Source>(
        &mut self,
        count: &mut Count,
        sight: &Sight<'_, S>,
        burst: Burst,
        shown: FrameSet,
    ) {
        let Watch { drops, filter, snaplen, queue, .. } = self;
        let (passing, dropped) =
            (self.frames.include(sight.seen.way), self.dropped.include(sight.seen.way));
        queue.write(burst, sight.seen, |room: &mut Room<'_>| {
            let (filter, snaplen, missed) = (filter.as_ref(), *snaplen, count.missed);
            let mut copying = Copying { room, filter, snaplen, captured: 0, lost: 0, missed };
            for i in members(shown) {
                match sight.reasons.get(i) {
                    Some(reason) if !dropped || !drops.contains(reason) => {}
                    None if !passing => {}
                    None if sight.tags.is_none() => {
                        let (header, len) = (sight.source.header(i), sight.source.frame_len(i));
                        sight.source.with_frame(i, |head, body| {
                            copying.take(i, None, &header, len, head, body);
                        });
                    }
                    _ => sight.give_other(i, &mut copying),
                }
            }
            let Copying { captured, lost, missed, .. } = copying;
            count.missed = missed;
            count.total.captured += captured;
            count.total.missed += lost;
        });
    }
}

//! The watches of a network.

use trama_frame::VlanTag;
use trama_frame::ethernet::TAG_LEN;
use trama_frame::retag::{self, start_len};
use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_virtqueue::Segment;

use super::queue::{Place, Room, Writer};
use super::types::{Burst, Glimpse, MAX_WATCHES, ReasonSet, Seers, Sighting, WatchCount, WatchId};
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
    /// Whether frames from the machine are copied.
    pub received: bool,
    /// Whether frames to the machine are copied.
    pub sent: bool,
    /// Whether frames that pass are copied.
    pub frames: bool,
    /// Reasons for which dropped frames are copied, at the port where they are counted.
    pub drops: ReasonSet,
    /// Most bytes copied of a frame.
    pub snaplen: usize,
    /// Which of all these are copied; all if `None`.
    pub filter: Option<Filter>,
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
}

impl<S: Source> Sight<'_, S> {
    /// Passes the virtio-net header of a frame, its beginning and the rest.
    #[inline(always)]
    fn with<R>(&self, i: usize, f: impl FnOnce(&[u8; HEADER], &[u8], &[Segment<'_>]) -> R) -> R {
        if self.reasons[i].is_some() {
            return self.with_dropped(i, f);
        }
        let Some(tags) = self.tags else {
            let header = self.source.header(i);
            return self.source.with_frame(i, |head, body| f(&header, head, body));
        };
        let meta = &self.plan.meta[i];
        let (was_tagged, tag) = (meta.tag.is_some(), tags(i));
        let growth = start_len(tag.is_some()) as i16 - start_len(was_tagged) as i16;
        let header = meta.header.shifted(growth).to_bytes();
        let mut room = [0; TAG_LEN + PRIVATE_HEAD];
        let retagged = |head: &[u8], body: &[Segment<'_>]| {
            f(&header, retag::write(head, was_tagged, tag, &mut room), body)
        };
        self.source.with_frame(i, retagged)
    }

    /// Passes a frame as it entered. Its header may be what is wrong with it.
    #[cold]
    fn with_dropped<R>(
        &self,
        i: usize,
        f: impl FnOnce(&[u8; HEADER], &[u8], &[Segment<'_>]) -> R,
    ) -> R {
        match self.source.error(i) {
            // Nothing of it may be read.
            Some(_) => f(&[0; HEADER], &[], &[]),
            None => self.source.with_frame(i, |head, body| f(&[0; HEADER], head, body)),
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
    /// Frames missed since the last one that was copied.
    missed: u64,
}

impl Watches {
    /// Adds a watch and tells its ports. Gives it back if every place is taken.
    pub(crate) fn add(
        &mut self,
        id: WatchId,
        watch: Watch,
        ports: &mut [Option<Port>],
    ) -> Result<(), Watch> {
        let Some(place) = self.0.iter().position(Option::is_none) else { return Err(watch) };
        let mut watching = Watching { id, watch, counts: Vec::new() };
        for (index, port) in ports.iter_mut().enumerate() {
            if let Some(port) = port
                && watching.watch.ports.contains(&port.id)
            {
                watching.see(place, index, port);
            }
        }
        self.0[place] = Some(Box::new(watching));
        Ok(())
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
        for (place, watching) in self.0.iter_mut().enumerate() {
            if sight.seen.seers & 1 << place != 0
                && let Some(watching) = watching
            {
                watching.show(sight);
            }
        }
    }
}

impl Watching {
    fn see(&mut self, place: usize, index: usize, port: &mut Port) {
        let bit = |is_wanted| u8::from(is_wanted) << place;
        let Seers { received, sent } = port.seers;
        port.set_seers(Seers {
            received: received | bit(self.watch.received),
            sent: sent | bit(self.watch.sent),
        });
        if self.counts.len() <= index {
            self.counts.resize_with(index + 1, || None);
        }
        let total = WatchCount { port: port.id, captured: 0, missed: 0 };
        self.counts[index] = Some(Count { total, missed: 0 });
    }

    fn show<S: Source>(&mut self, sight: &Sight<'_, S>) {
        let Watch { frames, drops, filter, snaplen, queue, .. } = &mut self.watch;
        let index = usize::from(sight.seen.index.0);
        let Some(Some(count)) = self.counts.get_mut(index) else { return };
        queue.write(sight.burst, sight.seen, |room: &mut Room<'_>| {
            for i in members(sight.frames) {
                let drop = sight.reasons[i];
                if !drop.map_or(*frames, |reason| drops.contains(reason)) {
                    continue;
                }
                sight.with(i, |header, head, body| {
                    let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
                    if let Some(filter) = filter {
                        let head = &head[..head.len().min(PRIVATE_HEAD)];
                        if !filter(&Glimpse { head, len, drop }) {
                            return;
                        }
                    }
                    let place = Place { i, drop, header, len, missed: count.missed };
                    if room.put(place, head, body, *snaplen) {
                        count.total.captured += 1;
                        count.missed = 0;
                    } else {
                        count.total.missed += 1;
                        count.missed += 1;
                    }
                });
            }
        });
    }
}

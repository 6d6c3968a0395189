//! The watches of a network.

use std::cell::RefCell;

use trama_frame::vnet::{LEN as HEADER, PRIVATE_HEAD};
use trama_virtqueue::Segment;

use super::{Glimpse, MAX_WATCHES, Seers, Watch, WatchCount, WatchId, Way, Writer};
use crate::drop_reason::DropReason;
use crate::forward::Source;
use crate::mac_table::PortIndex;
use crate::ports::Port;
use crate::time::Time;
use crate::types::PortId;

/// Where a frame was seen, and by which watches.
#[derive(Clone, Copy)]
pub(crate) struct Sighting {
    pub port: PortId,
    pub index: PortIndex,
    pub way: Way,
    pub seers: u8,
}

/// A frame at a port.
pub(crate) struct Frame<'a> {
    pub seen: Sighting,
    pub id: u64,
    pub queue: Option<u16>,
    pub time: Time,
    pub drop: Option<DropReason>,
    pub header: [u8; HEADER],
    pub len: usize,
    /// Its first bytes: at least the private ones.
    pub head: &'a [u8],
    /// The rest, where it was sent from.
    pub body: &'a [Segment<'a>],
}

/// The watches of a network, while a burst is switched.
pub(crate) struct View<'a> {
    pub watches: RefCell<&'a mut Watches>,
    /// The ID of the burst's first frame.
    pub first_id: u64,
    pub time: Time,
    /// The queue pair that the burst was received from.
    pub queue: Option<u16>,
    /// The port that it is delivered to, or that it came from.
    pub index: PortIndex,
}

impl View<'_> {
    /// Shows frame `i` of the burst in these pieces.
    pub(crate) fn show(
        &self,
        i: usize,
        seen: Sighting,
        header: &[u8; HEADER],
        (head, body): (&[u8], &[Segment<'_>]),
        drop: Option<DropReason>,
    ) {
        let len = head.len() + body.iter().map(Segment::len).sum::<usize>();
        let queue = self.queue.filter(|_| seen.way == Way::Received);
        let (id, time, header) = (self.first_id + i as u64, self.time, *header);
        let frame = Frame { seen, id, queue, time, drop, header, len, head, body };
        self.watches.borrow_mut().show(&frame);
    }

    /// Shows frame `i` of the burst as it entered, dropped.
    #[cold]
    pub(crate) fn show_dropped<S: Source>(
        &self,
        source: &S,
        i: usize,
        seen: Sighting,
        reason: DropReason,
    ) {
        let show = |head: &[u8], body: &[Segment<'_>]| {
            self.show(i, seen, &[0; HEADER], (head, body), Some(reason));
        };
        match source.error(i) {
            // Nothing of it may be read.
            Some(_) => show(&[], &[]),
            None => source.with_frame(i, show),
        }
    }
}

impl Frame<'_> {
    /// Copies the frame's beginning.
    pub(super) fn copy_to(&self, room: &mut [u8]) {
        let mut done = self.head.len().min(room.len());
        room[..done].copy_from_slice(&self.head[..done]);
        for segment in self.body {
            if done == room.len() {
                break;
            }
            done += segment.copy_to(&mut room[done..]);
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
        for port in ports.iter_mut().flatten() {
            let Seers { received, sent } = port.seers;
            port.set_seers(Seers {
                received: received & !(1 << place),
                sent: sent & !(1 << place),
            });
        }
        let counts = watching.counts.into_iter().flatten().map(|count| count.total).collect();
        Some((watching.watch.queue, counts))
    }

    fn place(&self, id: WatchId) -> Option<usize> {
        self.0.iter().position(|watching| watching.as_ref().is_some_and(|known| known.id == id))
    }

    /// Shows a frame to the watches that see it.
    fn show(&mut self, frame: &Frame<'_>) {
        for (place, watching) in self.0.iter_mut().enumerate() {
            if frame.seen.seers & 1 << place != 0
                && let Some(watching) = watching
            {
                watching.show(frame);
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

    fn show(&mut self, frame: &Frame<'_>) {
        let Watch { frames, drops, filter, snaplen, queue, .. } = &mut self.watch;
        let is_wanted = frame.drop.map_or(*frames, |reason| drops.contains(reason));
        let Some(Some(count)) = self.counts.get_mut(usize::from(frame.seen.index.0)) else {
            return;
        };
        if !is_wanted {
            return;
        }
        let head = &frame.head[..frame.head.len().min(PRIVATE_HEAD)];
        let glimpse = Glimpse { head, len: frame.len, drop: frame.drop };
        if filter.as_ref().is_some_and(|filter| !filter(&glimpse)) {
            return;
        }
        if queue.write(frame, count.missed, *snaplen) {
            count.total.captured += 1;
            count.missed = 0;
        } else {
            count.total.missed += 1;
            count.missed += 1;
        }
    }
}

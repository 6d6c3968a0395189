//! Frames in a bounded amount of memory.
//!
//! They are kept in segments of at most a sixteenth of it, the oldest of which goes when there is
//! no room. Captures share the segments: one that still writes what has gone from here holds it
//! until it is written.

use std::collections::VecDeque;
use std::sync::Arc;

use trama_frame::VnetHeader;
use trama_switch::watch::{Egress, Record, Way};
use trama_switch::{DropReason, Time};

use super::super::wanted::WatchedPort;

/// Least number of segments that a full ring has.
const SEGMENTS: usize = 16;
/// Most bytes of one, so that little goes at once.
const MAX_SEGMENT: usize = 1 << 20;
/// What a segment takes besides its frames: its lists, the counts of its users, and its place.
const SEGMENT: usize = size_of::<Segment>() + 3 * size_of::<usize>();

/// Frames that are kept together, oldest first.
#[derive(Default)]
pub(in crate::captures) struct Segment {
    heads: Vec<Head>,
    /// The beginnings of all frames, one after the other.
    bytes: Vec<u8>,
}

/// What is kept of a frame besides its bytes.
struct Head {
    port: Arc<WatchedPort>,
    id: u64,
    time: Time,
    missed: u64,
    len: u32,
    /// Where its bytes end in the segment; they begin at the end of the frame before.
    end: u32,
    queue: Option<u16>,
    way: Way,
    drop: Option<DropReason>,
}

impl Segment {
    /// Returns its frames with their ports.
    pub(in crate::captures) fn records(
        &self,
    ) -> impl Iterator<Item = (&Arc<WatchedPort>, Record<'_>)> {
        let mut begin = 0;
        self.heads.iter().map(move |head| {
            let end = head.end as usize;
            let bytes = &self.bytes[begin..end];
            begin = end;
            let record = Record {
                port: head.port.id,
                way: head.way,
                id: head.id,
                queue: head.queue,
                egress: Egress::Unknown,
                time: head.time,
                drop: head.drop,
                missed: head.missed,
                len: head.len as usize,
                // The checksum was filled in before.
                header: VnetHeader::default(),
                bytes,
            };
            (&head.port, record)
        })
    }

    fn push(&mut self, port: &Arc<WatchedPort>, record: &Record<'_>, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.heads.push(Head {
            port: Arc::clone(port),
            id: record.id,
            time: record.time,
            missed: record.missed,
            len: record.len as u32,
            end: self.bytes.len() as u32,
            queue: record.queue,
            way: record.way,
            drop: record.drop,
        });
    }

    /// Bytes that its frames need.
    fn used(&self) -> usize {
        self.heads.len() * size_of::<Head>() + self.bytes.len()
    }

    /// Bytes that it takes.
    fn memory(&self) -> usize {
        self.heads.capacity() * size_of::<Head>() + self.bytes.capacity() + SEGMENT
    }
}

/// The frames of the ring.
#[derive(Default)]
pub(in crate::captures) struct Store {
    limit: usize,
    full: VecDeque<Arc<Segment>>,
    /// Bytes that the full ones take.
    taken: usize,
    open: Segment,
}

impl Store {
    /// Sets how many bytes it may take; what does not fit is forgotten.
    pub(in crate::captures) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        if limit == 0 {
            *self = Store::default();
        }
        self.shrink();
    }

    /// Adds a frame, of which `bytes` are kept.
    pub(in crate::captures) fn push(
        &mut self,
        port: &Arc<WatchedPort>,
        record: &Record<'_>,
        bytes: &[u8],
    ) {
        self.open.push(port, record, bytes);
        if self.open.used() >= (self.limit / SEGMENTS).min(MAX_SEGMENT) {
            self.close();
        }
        self.shrink();
    }

    /// Returns all segments.
    pub(in crate::captures) fn all(&mut self) -> Vec<Arc<Segment>> {
        self.close();
        self.shrink();
        self.full.iter().cloned().collect()
    }

    fn close(&mut self) {
        if self.open.heads.is_empty() {
            return;
        }
        let mut segment = std::mem::take(&mut self.open);
        segment.heads.shrink_to_fit();
        segment.bytes.shrink_to_fit();
        self.taken += segment.memory();
        self.full.push_back(Arc::new(segment));
    }

    /// Bytes that it takes.
    pub(in crate::captures) fn memory(&self) -> usize {
        self.taken + self.open.memory()
    }

    fn shrink(&mut self) {
        while self.memory() > self.limit
            && let Some(oldest) = self.full.pop_front()
        {
            self.taken -= oldest.memory();
        }
    }
}

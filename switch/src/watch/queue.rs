//! The queue between a worker and the reader of a capture.
//!
//! A ring of bytes with one writer and one reader. What a burst adds is published at once: a
//! [`BurstHead`], then each frame's [`FrameHead`] and bytes, padded to [`ALIGN`]. None of these
//! wraps around: where the rest of the ring is too short, a filler takes it.
#![expect(unsafe_code, reason = "publishes memory that was written piece by piece")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};
use trama_frame::vnet::{LEN as HEADER, VnetHeader};
use trama_virtqueue::Segment;

use super::types::{Burst, Egress, Sighting, Way};
use crate::drop_reason::DropReason;
use crate::ports::signal;
use crate::time::Time;
use crate::types::PortId;

/// Alignment of everything in the queue, so that a filler's first word always fits.
const ALIGN: usize = 8;
/// Bytes before the frames of a burst.
const BURST: usize = 48;
/// Bytes before a frame's.
const FRAME: usize = 24;
/// Bits above the length in the first word of what is in the queue: a filler, or a burst's head.
const FILLER: u32 = 1 << 31;
const BURST_HEAD: u32 = 1 << 30;
/// Part of the queue after which the reader is woken.
const WAKE_PART: usize = 4;

/// The worker's end of a queue.
pub struct Writer {
    ring: Producer<u8>,
    wake: Arc<OwnedFd>,
    /// Bytes written since the reader was woken.
    unannounced: usize,
    capacity: usize,
}

/// The end of a queue that a capture reads.
pub struct Reader {
    ring: Consumer<u8>,
    wake: Arc<OwnedFd>,
    /// The head of the burst that is read.
    burst: [u8; BURST],
    /// The frame that was read last, with its head.
    bytes: Vec<u8>,
}

/// A frame as it passed a port, or was dropped there.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The port.
    pub port: PortId,
    /// Its way through the port.
    pub way: Way,
    /// The same for a frame where it entered and where it left.
    pub id: u64,
    /// The queue pair that it was received from, of a vhost-user port.
    pub queue: Option<u16>,
    /// Where it leaves, if it was sampled where it entered.
    pub egress: Egress,
    /// When its burst was taken, on the worker's clock.
    pub time: Time,
    /// Why it was dropped, if it was.
    pub drop: Option<DropReason>,
    /// Frames of this port that found no room since its last record.
    pub missed: u64,
    /// Length of the whole frame, in bytes.
    pub len: usize,
    /// Its virtio-net header: plain, if the frame was dropped where it entered.
    pub header: VnetHeader,
    /// Its first bytes.
    pub bytes: &'a [u8],
}

/// Makes a queue of about `bytes` bytes.
///
/// # Errors
/// The system is out of descriptors.
pub fn queue(bytes: usize) -> io::Result<(Writer, Reader)> {
    let capacity = bytes.max(BURST + FRAME).next_multiple_of(ALIGN);
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (producer, consumer) = RingBuffer::new(capacity);
    let writer = Writer { ring: producer, wake: Arc::clone(&wake), unannounced: 0, capacity };
    Ok((writer, Reader { ring: consumer, wake, burst: [0; BURST], bytes: Vec::new() }))
}

impl Drop for Writer {
    fn drop(&mut self) {
        signal(self.wake.as_fd());
    }
}

impl Writer {
    /// Adds the frames of a burst that `fill` puts into the room.
    pub(super) fn write(&mut self, burst: Burst, seen: Sighting, fill: impl FnOnce(&mut Room<'_>)) {
        let free = self.ring.slots();
        let Ok(mut chunk) = self.ring.write_chunk_uninit(free) else { return };
        let (first, second) = chunk.as_mut_slices();
        let mut room = Room { first, second, done: 0, at: 0, burst, seen, is_begun: false };
        fill(&mut room);
        let written = room.done + room.at;
        // SAFETY: `room` has written every byte of what it handed out.
        unsafe { chunk.commit(written) };
        self.announce(written);
    }

    /// Wakes the reader from time to time.
    fn announce(&mut self, size: usize) {
        self.unannounced += size;
        if self.unannounced * WAKE_PART >= self.capacity {
            self.unannounced = 0;
            signal(self.wake.as_fd());
        }
    }
}

/// A frame of a burst, for the queue.
pub(super) struct Entry<'a> {
    pub i: usize,
    pub drop: Option<DropReason>,
    pub header: &'a [u8; HEADER],
    /// Length of the frame, in bytes.
    pub len: usize,
    /// Frames of this port that found no room since the last one.
    pub missed: u64,
}

/// Free room of a queue.
pub(super) struct Room<'a> {
    /// The room up to the ring's end, then that from its beginning.
    first: &'a mut [MaybeUninit<u8>],
    second: &'a mut [MaybeUninit<u8>],
    /// Bytes of an earlier `first` that are used.
    done: usize,
    /// Bytes of `first` that are used.
    at: usize,
    burst: Burst,
    seen: Sighting,
    is_begun: bool,
}

impl Room<'_> {
    /// Adds a frame with up to `snaplen` of its bytes; returns `false` without room for it.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        entry: Entry<'_>,
        head: &[u8],
        body: &[Segment<'_>],
        snaplen: usize,
    ) -> bool {
        let Entry { i, drop, mut missed, header, len } = entry;
        let kept = len.min(snaplen);
        let size = (FRAME + kept).next_multiple_of(ALIGN);
        if !self.is_begun {
            if !self.begin(size, missed) {
                return false;
            }
            missed = 0;
        }
        let (Some(first), Some(rest)) = (header.first_chunk(), header.last_chunk()) else {
            return false;
        };
        // From here on, every byte is written.
        let Some(room) = self.take(size) else { return false };
        let (front, bytes) = room.split_at_mut(FRAME);
        // As whole words, as they are stored. Of what was missed within a burst, a byte is enough.
        let reason = drop.map_or(u8::MAX, |reason| reason as u8);
        let marks = [i as u8, reason, (size - FRAME - kept) as u8, missed as u8];
        let pair = |low: u32, high| u64::from(low) | u64::from(u32::from_le_bytes(high)) << 32;
        let words = [pair(size as u32, marks), pair(len as u32, *first), u64::from_le_bytes(*rest)];
        for (room, word) in front.chunks_exact_mut(8).zip(words) {
            room.write_copy_of_slice(&word.to_le_bytes());
        }
        // The padding; the frame overwrites what is not.
        if let Some(last) = bytes.last_chunk_mut::<ALIGN>() {
            last.write_copy_of_slice(&[0; ALIGN]);
        }
        let bytes = &mut bytes[..kept];
        let mut done = Segment::from(head).copy_to_uninit(bytes);
        for piece in body {
            done += piece.copy_to_uninit(&mut bytes[done..]);
        }
        // None, unless a frame is shorter than its source says.
        bytes[done..].fill(MaybeUninit::new(0));
        true
    }

    /// Adds the head of the burst, if there is room for it and for `more`.
    #[cold]
    fn begin(&mut self, more: usize, missed: u64) -> bool {
        let most = (self.first.len() - self.at).max(self.second.len());
        if most < BURST + more {
            return false;
        }
        let head = burst_head(self.burst, self.seen, missed);
        let Some(room) = self.take(BURST) else { return false };
        room.write_copy_of_slice(&head);
        self.is_begun = true;
        true
    }

    /// Takes the next `size` bytes in one piece.
    #[inline(always)]
    fn take(&mut self, size: usize) -> Option<&mut [MaybeUninit<u8>]> {
        if self.first.len() - self.at < size {
            self.wrap(size)?;
        }
        let start = self.at;
        self.at += size;
        Some(&mut self.first[start..start + size])
    }

    /// Goes on at the ring's beginning, if there is room.
    #[cold]
    fn wrap(&mut self, size: usize) -> Option<()> {
        if self.second.len() < size {
            return None;
        }
        let rest = &mut self.first[self.at..];
        let filler = rest.len() as u32 | FILLER;
        for word in rest.chunks_exact_mut(ALIGN) {
            word.write_copy_of_slice(&u64::from(filler).to_le_bytes());
        }
        self.done += self.first.len();
        (self.first, self.second) = (std::mem::take(&mut self.second), &mut []);
        self.at = 0;
        Some(())
    }
}

impl Reader {
    /// Returns the next record, if there is one.
    pub fn read(&mut self) -> Option<Record<'_>> {
        loop {
            let first = self.ring.read_chunk(4).ok()?;
            let word = u32::from_le_bytes(*first.as_slices().0.first_chunk()?);
            let size = (word & !(FILLER | BURST_HEAD)) as usize;
            let chunk = self.ring.read_chunk(size).ok()?;
            let bytes = chunk.as_slices().0;
            if word & BURST_HEAD != 0 {
                self.burst.copy_from_slice(bytes);
            } else if word & FILLER == 0 {
                self.bytes.clear();
                self.bytes.extend_from_slice(bytes);
                chunk.commit_all();
                break;
            }
            chunk.commit_all();
        }
        let record = decode(&self.burst, &self.bytes);
        // They were missed before the first frame of the burst.
        self.burst[MISSED..MISSED + 8].fill(0);
        record
    }

    /// Returns the descriptor that becomes readable when much waits, or when the watch has ended. A
    /// reader should look from time to time besides.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Returns whether the watch has ended and everything was read.
    pub fn is_over(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}

/// Where the head of a burst has the number of missed frames, and the port by which its frame
/// leaves.
const MISSED: usize = 32;
const EGRESS: usize = 40;
/// What the head of a burst says of that port.
const UNKNOWN: u8 = 0;
const ONE_PORT: u8 = 1;
const SEVERAL: u8 = 2;

/// Returns the head of a burst.
fn burst_head(burst: Burst, seen: Sighting, missed: u64) -> [u8; BURST] {
    let mut head = [0; BURST];
    head[..4].copy_from_slice(&(BURST as u32 | BURST_HEAD).to_le_bytes());
    head[4] = (seen.way == Way::Sent).into();
    head[6..8].copy_from_slice(&burst.queue.unwrap_or(u16::MAX).to_le_bytes());
    head[8..16].copy_from_slice(&seen.port.0.to_le_bytes());
    head[16..24].copy_from_slice(&burst.first_id.to_le_bytes());
    head[24..32].copy_from_slice(&burst.time.0.to_le_bytes());
    head[MISSED..MISSED + 8].copy_from_slice(&missed.to_le_bytes());
    let (kind, port) = match burst.egress {
        Egress::Unknown => (UNKNOWN, 0),
        Egress::Port(port) => (ONE_PORT, port.0),
        Egress::Several => (SEVERAL, 0),
    };
    head[5] = kind;
    head[EGRESS..].copy_from_slice(&port.to_le_bytes());
    head
}

/// Puts together what the heads of a burst and of its frame say.
fn decode<'a>(burst: &[u8; BURST], frame: &'a [u8]) -> Option<Record<'a>> {
    let (head, bytes) = frame.split_first_chunk::<FRAME>()?;
    let u64_at = |at: usize| Some(u64::from_le_bytes(*burst[at..].first_chunk()?));
    let queue = u16::from_le_bytes([burst[6], burst[7]]);
    Some(Record {
        port: PortId(u64_at(8)?),
        way: if burst[4] == 0 { Way::Received } else { Way::Sent },
        id: u64_at(16)? + u64::from(head[4]),
        queue: (queue != u16::MAX).then_some(queue),
        egress: match burst[5] {
            ONE_PORT => Egress::Port(PortId(u64_at(EGRESS)?)),
            SEVERAL => Egress::Several,
            _ => Egress::Unknown,
        },
        time: Time(u64_at(24)?),
        drop: DropReason::ALL.get(usize::from(head[5])).copied(),
        missed: u64_at(MISSED)? + u64::from(head[7]),
        len: u32::from_le_bytes(*head[8..].first_chunk()?) as usize,
        header: VnetHeader::from_bytes(head[12..].first_chunk()?),
        bytes: bytes.get(..bytes.len().checked_sub(usize::from(head[6]))?)?,
    })
}

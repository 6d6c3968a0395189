//! The queue between a worker and the reader of a capture.
//!
//! A ring of bytes with one writer and one reader. A record is a head of fixed size and the frame's
//! bytes, padded to [`ALIGN`]; it never wraps around: where the rest of the ring is too short, a
//! filler takes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};
use trama_frame::vnet::{LEN as HEADER, VnetHeader};

use super::Way;
use super::list::Frame;
use crate::drop_reason::DropReason;
use crate::ports::signal;
use crate::time::Time;
use crate::types::PortId;

/// Alignment of records, so that a filler's length always fits.
const ALIGN: usize = 8;
/// Bytes of a record before its frame.
const HEAD: usize = 64;
/// The bit in a record's length that marks a filler.
const FILLER: u32 = 1 << 31;
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
    /// The record that was read last.
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
    let capacity = bytes.max(2 * HEAD).next_multiple_of(ALIGN);
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (producer, consumer) = RingBuffer::new(capacity);
    let writer = Writer { ring: producer, wake: Arc::clone(&wake), unannounced: 0, capacity };
    Ok((writer, Reader { ring: consumer, wake, bytes: Vec::new() }))
}

impl Drop for Writer {
    fn drop(&mut self) {
        signal(self.wake.as_fd());
    }
}

impl Writer {
    /// Adds a record with up to `snaplen` bytes of the frame; returns `false` without room for it.
    pub(super) fn write(&mut self, frame: &Frame<'_>, missed: u64, snaplen: usize) -> bool {
        let kept = frame.len.min(snaplen);
        let size = (HEAD + kept).next_multiple_of(ALIGN);
        let Ok(mut chunk) = self.ring.write_chunk(size) else { return false };
        let (mut record, rest) = chunk.as_mut_slices();
        if !rest.is_empty() {
            let filler = record.len();
            record[..4].copy_from_slice(&(filler as u32 | FILLER).to_le_bytes());
            chunk.commit(filler);
            let Ok(whole) = self.ring.write_chunk(size) else { return false };
            chunk = whole;
            record = chunk.as_mut_slices().0;
        }
        let Some((head, room)) = record.split_first_chunk_mut::<HEAD>() else { return false };
        *head = encode(frame, size, kept, missed);
        frame.copy_to(&mut room[..kept]);
        chunk.commit_all();
        self.announce(size);
        true
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

impl Reader {
    /// Returns the next record, if there is one.
    pub fn next(&mut self) -> Option<Record<'_>> {
        let size = loop {
            let chunk = self.ring.read_chunk(4).ok()?;
            let mut length = [0; 4];
            length.iter_mut().zip(chunk.as_slices().0).for_each(|(to, from)| *to = *from);
            let length = u32::from_le_bytes(length);
            let size = (length & !FILLER) as usize;
            if length & FILLER == 0 {
                break size;
            }
            self.ring.read_chunk(size).ok()?.commit_all();
        };
        let chunk = self.ring.read_chunk(size).ok()?;
        self.bytes.clear();
        self.bytes.extend_from_slice(chunk.as_slices().0);
        chunk.commit_all();
        decode(&self.bytes)
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

/// Returns the head of a record.
fn encode(frame: &Frame<'_>, size: usize, kept: usize, missed: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(size as u32).to_le_bytes());
    head[4] = (frame.seen.way == Way::Sent).into();
    head[5] = frame.drop.map_or(u8::MAX, |reason| reason as u8);
    head[6..8].copy_from_slice(&frame.queue.unwrap_or(u16::MAX).to_le_bytes());
    head[8..16].copy_from_slice(&frame.seen.port.0.to_le_bytes());
    head[16..24].copy_from_slice(&frame.id.to_le_bytes());
    head[24..32].copy_from_slice(&frame.time.0.to_le_bytes());
    head[32..40].copy_from_slice(&missed.to_le_bytes());
    head[40..44].copy_from_slice(&(frame.len as u32).to_le_bytes());
    head[44..48].copy_from_slice(&(kept as u32).to_le_bytes());
    head[48..48 + HEADER].copy_from_slice(&frame.header);
    head
}

/// Does the reverse of [`encode`], and adds the bytes behind.
fn decode(record: &[u8]) -> Option<Record<'_>> {
    let (head, bytes) = record.split_first_chunk::<HEAD>()?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(*head[at..].first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*head[at..].first_chunk()?));
    let queue = u16::from_le_bytes([head[6], head[7]]);
    Some(Record {
        port: PortId(u64_at(8)?),
        way: if head[4] == 0 { Way::Received } else { Way::Sent },
        id: u64_at(16)?,
        queue: (queue != u16::MAX).then_some(queue),
        time: Time(u64_at(24)?),
        drop: DropReason::ALL.get(usize::from(head[5])).copied(),
        missed: u64_at(32)?,
        len: u32_at(40)? as usize,
        header: VnetHeader::from_bytes(head[48..].first_chunk()?),
        bytes: bytes.get(..u32_at(44)? as usize)?,
    })
}

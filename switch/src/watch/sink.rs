//! The way to a watched port: its device, and what became of each frame.

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::Segment;

use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::forward::{FrameSet, Reasons};
use crate::ports::{Sink, Unsent};

/// Passes frames on to a device and notes which it takes.
pub(crate) struct NotingSink<'a> {
    device: &'a mut dyn Sink,
    /// The frame of the burst that is delivered.
    frame: usize,
    /// Frames that were taken, at least in part.
    pub taken: FrameSet,
    /// Why others were refused, at least in part.
    pub refused: Reasons,
    /// What was taken and could not be sent.
    pub unsent: Unsent,
}

impl<'a> NotingSink<'a> {
    pub(crate) fn new(device: &'a mut dyn Sink) -> NotingSink<'a> {
        NotingSink { device, frame: 0, taken: 0, refused: Reasons::NONE, unsent: Unsent::default() }
    }
}

impl Sink for NotingSink<'_> {
    #[inline(always)]
    fn begin(&mut self, frame: usize) {
        self.frame = frame;
    }

    fn expect(&mut self, frames: usize) {
        self.device.expect(frames);
    }

    fn put(
        &mut self,
        header: &[u8; HEADER],
        head: &[u8],
        body: &[Segment<'_>],
    ) -> Result<(), DropReason> {
        self.device.put(header, head, body)?;
        self.taken |= 1 << self.frame;
        Ok(())
    }

    fn counted_at<'c>(&'c self, receiver: &'c PortCounters) -> &'c PortCounters {
        self.device.counted_at(receiver)
    }

    fn note_refused(&mut self, reason: DropReason) {
        // Counted at the sender's port, by the device.
        if reason != DropReason::MemoryHole {
            self.refused.add(1 << self.frame, reason);
        }
    }

    fn finish(&mut self) -> Unsent {
        let unsent = self.device.finish();
        self.unsent.merge(&unsent);
        unsent
    }
}

//! The way to a watched port: its device, and what became of each frame.

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::Segment;

use super::types::NO_REASONS;
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
    /// Frames that were refused, at least in part, and why.
    pub refused: FrameSet,
    pub reasons: Reasons,
}

impl<'a> NotingSink<'a> {
    pub(crate) fn new(device: &'a mut dyn Sink) -> NotingSink<'a> {
        NotingSink { device, frame: 0, taken: 0, refused: 0, reasons: NO_REASONS }
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

    fn count_refused(&mut self, reason: DropReason, receiver: &PortCounters) {
        self.device.count_refused(reason, receiver);
        // Counted at the sender's port, by the device.
        if reason != DropReason::MemoryHole {
            self.refused |= 1 << self.frame;
            self.reasons[self.frame] = Some(reason);
        }
    }

    fn finish(&mut self) -> Unsent {
        self.device.finish()
    }
}

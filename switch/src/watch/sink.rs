//! The way to a watched port: its device, and the watches that see what it gets.

use trama_frame::vnet::LEN as HEADER;
use trama_virtqueue::Segment;

use super::list::{Sighting, View};
use crate::counters::PortCounters;
use crate::drop_reason::DropReason;
use crate::forward::Source;
use crate::ports::{Sink, Unsent};

/// Passes frames on to a device and shows them to watches.
pub(crate) struct CopyingSink<'a, 'w, S> {
    pub device: &'a mut dyn Sink,
    pub source: &'a S,
    /// The frame of the burst that is delivered.
    pub frame: usize,
    /// Where frames are seen that the device takes.
    pub seen: Sighting,
    /// Where frames are seen that it refuses: at the port where they are counted.
    pub dropped: Sighting,
    pub view: &'a View<'w>,
}

impl<S: Source> Sink for CopyingSink<'_, '_, S> {
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
        self.view.show(self.frame, self.seen, header, (head, body), None);
        Ok(())
    }

    fn count_refused(&self, reason: DropReason, receiver: &PortCounters) {
        self.device.count_refused(reason, receiver);
        if reason != DropReason::MemoryHole {
            self.view.show_dropped(self.source, self.frame, self.dropped, reason);
        }
    }

    fn finish(&mut self) -> Unsent {
        self.device.finish()
    }
}

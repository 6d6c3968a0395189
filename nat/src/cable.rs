//! The way to the network's guests, as the flows see it.

use trama_frame::VnetHeader;

use crate::drop_reason::DropReason;

/// A way to the network's guests.
pub(crate) trait Cable {
    /// Frames that [`Cable::send`] takes before there is no room.
    fn room(&mut self) -> usize;

    /// Queues a frame, the concatenation of `parts`.
    ///
    /// # Errors
    /// No room, or it is too long. It is not queued.
    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason>;
}

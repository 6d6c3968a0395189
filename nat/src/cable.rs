//! The path from flows to guests.

use trama_frame::VnetHeader;

use crate::drop_reason::DropReason;

/// Takes frames for guests: the sending half of the link to a switch.
pub trait Cable {
    /// Frames that [`Cable::send`] has room for.
    fn room(&mut self) -> usize;

    /// Queues a frame, the concatenation of `parts`.
    ///
    /// # Errors
    ///
    /// There is no room, or the frame is too long. It is not queued.
    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason>;
}

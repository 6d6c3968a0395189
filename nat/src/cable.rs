//! The path from flows to the guests.

use trama_frame::VnetHeader;

use crate::drop_reason::DropReason;

/// The sending half of the gateway's link to the switch.
pub(crate) trait Cable {
    /// Frames that [`Cable::send`] has room for.
    fn room(&mut self) -> usize;

    /// Queues a frame, the concatenation of `parts`.
    ///
    /// # Errors
    ///
    /// There is no room, or the frame is too long. It is not queued.
    fn send(&mut self, header: &VnetHeader, parts: &[&[u8]]) -> Result<(), DropReason>;
}

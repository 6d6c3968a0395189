//! Frames: what would happen to one, and which was dropped last.

use trama_switch::DropReason;

use super::Daemon;
use crate::explain::Explained;
use crate::last_drops::LastDrop;

impl Daemon {
    /// Says what would happen to a frame; `None` if the port does not run.
    pub(crate) fn explain(&self, port: &str, on: Option<&str>, frame: &[u8]) -> Option<Explained> {
        self.lock().data_plane.explain(port, on, frame)
    }

    /// Returns the last frame that was dropped at a port.
    pub(crate) fn last_drop(&self, port: &str, reason: Option<DropReason>) -> Option<LastDrop> {
        self.lock().data_plane.last_drop(port, reason)
    }
}

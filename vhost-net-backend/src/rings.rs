//! The interface between a session and the device that it drives.

use std::fmt::Display;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use trama_frame::MacAddr;
use trama_virtqueue::{CountFrames, GuestMemory, RingFds, RingSetup};

/// Why the device refused a request; a whole sentence for the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RingsError(String);

impl RingsError {
    /// Makes an error with this reason.
    pub fn new(reason: impl Display) -> RingsError {
        RingsError(reason.to_string())
    }
}

/// The rings of one device, as the vhost-user protocol sets them up.
///
/// Each call returns when it has taken effect: after [`Rings::stop`] the device does not access the
/// ring, after [`Rings::set_memory`] it does not access the old map. Ring indices are those of
/// vhost: 2n is the driver's receive ring, 2n + 1 its transmit ring.
///
/// An error ends the connection; [`Rings::disconnected`] follows.
pub trait Rings: Send + 'static {
    /// Sets the features that the driver acknowledged (see [`crate::features`]). All rings are
    /// stopped at that time.
    ///
    /// # Errors
    /// The device cannot work with these features.
    fn set_features(&mut self, features: u64) -> Result<(), RingsError>;
    /// Replaces the memory map; started rings continue with the new one.
    ///
    /// # Errors
    /// The device cannot use the new map: a started ring lies outside it, for example.
    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingsError>;
    /// Starts a stopped ring.
    ///
    /// # Errors
    /// The ring does not exist or cannot be used as set up.
    fn start(&mut self, index: usize, setup: RingSetup, fds: RingFds) -> Result<(), RingsError>;
    /// Stops a started ring and returns the index at which it resumes.
    ///
    /// # Errors
    /// The ring does not exist or is not started.
    fn stop(&mut self, index: usize) -> Result<u16, RingsError>;
    /// Replaces the call descriptor of a started ring and writes to the new one at once: the driver
    /// may have missed a call through the old one.
    ///
    /// # Errors
    /// The device cannot use the descriptor.
    fn set_call(&mut self, index: usize, call: Option<OwnedFd>) -> Result<(), RingsError>;
    /// Replaces the kick descriptor of a started ring.
    ///
    /// # Errors
    /// The device cannot use the descriptor.
    fn set_kick(&mut self, index: usize, kick: Option<OwnedFd>) -> Result<(), RingsError>;
    /// Announces to the network that the station is reached here now: a guest has migrated to this
    /// frontend. A device without a network ignores it.
    ///
    /// # Errors
    /// The device is gone.
    fn announce(&mut self, _station: MacAddr) -> Result<(), RingsError> {
        Ok(())
    }
    /// The session's thread begins to work for its frontend, or has done. A device may note that,
    /// to know afterwards whose request it was that crashed the process.
    fn working(&mut self, _is_working: bool) {}
    /// The frontend has disconnected: the device drops its memory and descriptors.
    fn disconnected(&mut self);
    /// Counts the frames that the driver receives. The memory that they are written to may be the
    /// driver's first use of it; see [`trama_virtqueue::MemoryLimits`].
    fn received(&self) -> Option<Arc<dyn CountFrames>> {
        None
    }
    /// An eventfd that becomes readable when the rings break; [`Rings::broken`] then has the
    /// reason.
    fn fault_event(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Returns what is wrong with the rings, if anything; the session then closes the connection.
    fn broken(&mut self) -> Option<RingsError> {
        None
    }
}

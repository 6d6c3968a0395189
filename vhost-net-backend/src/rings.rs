//! What a session drives: the port behind the protocol.

use std::fmt::Display;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use trama_virtqueue::{GuestMemory, RingSetup};

/// The notification descriptors of one ring.
#[derive(Debug, Default)]
pub struct RingFds {
    /// The driver writes to it after it has put buffers on the ring; `None`: the ring is polled.
    pub kick: Option<OwnedFd>,
    /// The device writes to it after it has used buffers of the ring; `None`: the driver polls.
    pub call: Option<OwnedFd>,
}

/// Why the port refused; a whole sentence for the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RingsError(String);

impl RingsError {
    /// From whatever can say what happened.
    pub fn new(reason: impl Display) -> RingsError {
        RingsError(reason.to_string())
    }
}

/// The rings of one device, as the vhost-user protocol moves them.
///
/// Each call returns when it has taken effect: after [`Rings::stop`] nothing touches the ring,
/// after [`Rings::set_memory`] nothing touches the old map. Ring indices are those of vhost:
/// 2n is the driver's receive ring, 2n + 1 its transmit ring.
///
/// An error ends the connection; [`Rings::disconnected`] follows.
pub trait Rings: Send + 'static {
    /// What the driver acknowledged (see [`crate::features`]). All rings are stopped.
    fn set_features(&mut self, features: u64) -> Result<(), RingsError>;
    /// A new memory map; started rings go on in it.
    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), RingsError>;
    /// Starts a stopped ring.
    fn start(&mut self, index: usize, setup: RingSetup, fds: RingFds) -> Result<(), RingsError>;
    /// Stops a started ring and says at which index it resumes.
    fn stop(&mut self, index: usize) -> Result<u16, RingsError>;
    /// Replaces the call descriptor of a started ring and calls by it: a call just made through the
    /// old one may have gone unseen.
    fn set_call(&mut self, index: usize, call: Option<OwnedFd>) -> Result<(), RingsError>;
    /// Replaces the kick descriptor of a started ring.
    fn set_kick(&mut self, index: usize, kick: Option<OwnedFd>) -> Result<(), RingsError>;
    /// The frontend is gone: everything it brought is to be dropped.
    fn disconnected(&mut self);
    /// An eventfd that becomes readable when the rings break; [`Rings::broken`] then tells why.
    fn fault_event(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// What is wrong with the rings, if anything: the connection is then closed.
    fn broken(&mut self) -> Option<String> {
        None
    }
}

//! Errors, worded for the reader of a report.

use std::io;
use std::path::PathBuf;

use trama_virtqueue::DriverError;

/// What the generator returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a measurement has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be established.
    #[error("{}: {reason}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause and a remedy.
        reason: String,
    },
    /// The backend refused a request, or did not answer.
    #[error("{}: {step}: {error}", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// The request.
        step: &'static str,
        /// The error of the vhost library.
        error: vhost::Error,
    },
    /// The device violated the ring protocol.
    #[error("port {port}: {error}")]
    Ring {
        /// Index of the port.
        port: usize,
        /// The violation.
        error: DriverError,
    },
    /// The load is inconsistent or does not fit the ports.
    #[error("the load cannot be generated: {0}")]
    Load(String),
    /// The switch does not forward frames.
    #[error("the switch does not forward frames: {0}")]
    NotForwarded(String),
    /// The null device could not be started.
    #[error("null device: {0}")]
    NullDevice(String),
    /// The thread cannot be pinned.
    #[error("core {core}: {error}; choose one that this process may use")]
    Core {
        /// The core.
        core: usize,
        /// The system's error.
        error: rustix::io::Errno,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

//! What goes wrong, as sentences for the person who reads the report.

use std::io;
use std::path::PathBuf;

use trama_virtqueue::DriverError;

/// What the generator returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection came about.
    #[error("{}: {reason}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The backend refused a request, or did not answer.
    #[error("{}: {step}: {error}", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// The request.
        step: &'static str,
        /// What came back.
        error: vhost::Error,
    },
    /// The device broke the rules of a ring.
    #[error("port {port}: {error}")]
    Ring {
        /// Index of the port.
        port: usize,
        /// The rule.
        error: DriverError,
    },
    /// The load contradicts itself or does not fit the ports.
    #[error("the load cannot be generated: {0}")]
    Load(String),
    /// The switch does not carry frames.
    #[error("the switch does not carry frames: {0}")]
    NotCarried(String),
    /// The null device could not be started.
    #[error("null device: {0}")]
    NullDevice(String),
    /// The thread cannot be pinned.
    #[error("core {core}: {error}; choose one that this process may use")]
    Core {
        /// The core.
        core: usize,
        /// What the system said.
        error: rustix::io::Errno,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

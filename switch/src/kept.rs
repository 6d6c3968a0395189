//! What counters and MAC tables in kept memory have in common.

use std::io;

/// Why memory that another process has kept cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// The system refused a call.
    #[error(transparent)]
    System(io::Error),
    /// It is something else.
    #[error("the memory holds something that is not {what}")]
    NotThis {
        /// What was expected.
        what: &'static str,
    },
    /// Its layout differs.
    #[error("the memory holds {what} of another version of trama")]
    OtherLayout {
        /// What it holds.
        what: &'static str,
    },
    /// It ends too early.
    #[error("the memory is too short for the {what} in it")]
    Short {
        /// What it holds.
        what: &'static str,
    },
}

impl From<io::Error> for KeptError {
    fn from(error: io::Error) -> KeptError {
        KeptError::System(error)
    }
}

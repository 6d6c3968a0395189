//! Why a request has no result.

use std::fmt;

/// A failure. Displayed as a sentence with its remedy, or empty if the exit status says it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No daemon listens.
    Unreachable(String),
    /// The daemon refuses.
    Refused {
        /// What is wrong and what to do.
        message: String,
        /// The exit status for `tramactl`.
        exit: u8,
    },
    /// The connection was lost, or there is no answer in time. Whether the request was carried out
    /// is not known.
    Unanswered(String),
    /// Anything else: something failed on the client's side.
    Other(String),
}

impl Failed {
    /// The exit status for `tramactl`.
    pub fn exit(&self) -> u8 {
        match self {
            Failed::Refused { exit, .. } => *exit,
            Failed::Unreachable(_) | Failed::Unanswered(_) | Failed::Other(_) => 1,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failed::Unreachable(message)
        | Failed::Unanswered(message)
        | Failed::Refused { message, .. }
        | Failed::Other(message)) = self;
        f.write_str(message)
    }
}

impl From<String> for Failed {
    fn from(message: String) -> Failed {
        Failed::Other(message)
    }
}

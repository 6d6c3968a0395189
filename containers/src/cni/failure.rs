//! Errors in the form of the specification, section 5.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use trama_client::Failed;

/// Codes of the specification.
pub(super) const VERSION: u32 = 1;
pub(super) const UNSUPPORTED: u32 = 2;
pub(super) const NO_CONTAINER: u32 = 3;
pub(super) const ENVIRONMENT: u32 = 4;
pub(super) const INPUT: u32 = 5;
pub(super) const DECODING: u32 = 6;
pub(super) const CONFIG: u32 = 7;
pub(super) const TRY_AGAIN: u32 = 11;
pub(super) const NOT_AVAILABLE: u32 = 50;
pub(super) const LIMITED: u32 = 51;
/// The daemon refuses.
pub(super) const REFUSED: u32 = 100;
/// The interface cannot be made.
pub(super) const FAILED: u32 = 101;
/// The attachment is not as it was made.
pub(super) const DIFFERENT: u32 = 102;

/// An error of a plug-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The code.
    pub code: u32,
    /// What kind of error it is.
    #[serde(default)]
    pub msg: String,
    /// What is wrong, and what to do.
    #[serde(default)]
    pub details: String,
}

impl Failure {
    pub(super) fn new(code: u32, details: impl Display) -> Failure {
        let msg = match code {
            VERSION => "incompatible CNI version",
            UNSUPPORTED => "unsupported field in the network configuration",
            NO_CONTAINER => "the container does not exist",
            ENVIRONMENT => "invalid environment variables",
            INPUT => "input or output failed",
            DECODING => "cannot decode the input",
            CONFIG => "invalid network configuration",
            TRY_AGAIN | NOT_AVAILABLE => "tramad is not available",
            LIMITED => "the network's gateway does not answer",
            REFUSED => "tramad refuses",
            DIFFERENT => "the attachment is not as it was made",
            _ => "cannot attach the container",
        };
        Failure { code, msg: msg.to_owned(), details: details.to_string() }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Failure {
        let code = match &failed {
            Failed::Unreachable(_) | Failed::Unanswered(_) => TRY_AGAIN,
            Failed::Refused { .. } => REFUSED,
            Failed::Other(_) => FAILED,
        };
        Failure::new(code, failed)
    }
}

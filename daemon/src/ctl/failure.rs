//! Why a transaction is refused.

use crate::Fault;
use crate::state::QueryError;

/// Why a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong and what to do; empty where the exit status says it all.
    pub message: String,
    /// The exit status for `tramactl`.
    pub exit: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure { message, exit: 1 }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::from(fault.to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        Failure::from(error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

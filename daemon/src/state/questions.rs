//! Questions to the gateways of networks.

use std::time::Duration;

use trama_gateway::question::Row;

use super::Daemon;
use crate::gateway::{AskError, Pending};

/// Time limit for a gateway's answer; 65,000 rows take a fraction of it.
const ANSWER: Duration = Duration::from_secs(5);

/// Why a network's gateway gives no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no network of this name.
    #[error("there is no network {0:?}")]
    NoNetwork(String),
    /// The network of this name has no gateway.
    #[error("network {0} has no gateway")]
    NoGateway(String),
    /// The network of this name has no NAT.
    #[error("network {0} has no NAT, and so no flows")]
    NoNat(String),
    /// The gateway does not answer.
    #[error("network {network}: {error}")]
    NoAnswer {
        /// The network's name.
        network: String,
        /// The reason.
        error: AskError,
    },
}

impl Daemon {
    /// Asks the gateway of a network; blocks for up to five seconds.
    ///
    /// # Errors
    /// There is no such network, it has no gateway, or the gateway does not answer.
    pub fn ask<R: Row>(&self, network: &str) -> Result<Vec<R>, QueryError> {
        // The lock is released: other callers need not wait for this answer.
        let answer = self.begin_to_ask(network)?.wait(ANSWER);
        answer.map_err(|error| QueryError::NoAnswer { network: network.to_owned(), error })
    }

    /// Asks the gateway of a network, without waiting for the answer.
    ///
    /// # Errors
    /// There is no such network, or it has no gateway.
    pub(crate) fn begin_to_ask<R: Row>(&self, network: &str) -> Result<Pending<R>, QueryError> {
        let inner = self.lock();
        let running = inner.data_plane.networks.get(network);
        let running = running.ok_or_else(|| QueryError::NoNetwork(network.to_owned()))?;
        let gateway = running.gateway.as_ref();
        Ok(gateway.ok_or_else(|| QueryError::NoGateway(network.to_owned()))?.ask())
    }
}

//! Questions to the gateways of networks.

use std::time::{Duration, Instant};

use trama_api::transaction::{Kind, NotRunning};
use trama_gateway::question::Row;
use trama_gateway::report::ForwardStatus;

use super::Daemon;
use crate::added_forwards::Added;
use crate::gateway::{AskError, Pending};

/// Time limit for a gateway's answer; 65,000 rows take a fraction of it.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a change waits for a gateway that starts, to hear whether its forwards listen.
const START: Duration = Duration::from_secs(2);
/// Between two looks at whether it has started.
const PAUSE: Duration = Duration::from_millis(10);

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

    /// Returns those of these forwards that do not listen, with the reasons. A gateway that has not
    /// started after two seconds is not waited for: its log and `forward list` have the rest.
    pub(crate) fn not_listening(&self, forwards: &[Added]) -> Vec<NotRunning> {
        let until = Instant::now() + START;
        let mut found = Vec::new();
        for Added { network, labels } in forwards {
            while !self.has_gateway_process(network) && Instant::now() < until {
                std::thread::sleep(PAUSE);
            }
            let rows: Vec<ForwardStatus> = self.ask(network).unwrap_or_default();
            let own = rows.into_iter().filter(|row| labels.contains(&row.name));
            found.extend(own.filter_map(|row| {
                let reason = format!(
                    "forward {} does not listen: {}; it is tried again every few seconds",
                    row.name, row.pending?
                );
                Some(NotRunning { kind: Kind::Network, name: network.clone(), runs: true, reason })
            }));
        }
        found
    }

    fn has_gateway_process(&self, network: &str) -> bool {
        let inner = self.lock();
        let running = inner.data_plane.networks.get(network);
        let gateway = running.and_then(|network| network.gateway.as_ref());
        gateway.is_some_and(|gateway| gateway.status().process.is_some())
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

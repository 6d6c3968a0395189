//! Addresses that the daemon chooses for a port that is attached.
//!
//! A choice is made in the transaction that adds the port, so no two ports get the same. The
//! network's DHCP knows of it only when its gateway has the new settings. An address that a client
//! has been given until then is changed for another.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trama_api::attach::Request;
use trama_gateway::report::LeaseRow;

use super::Api;
use crate::config::derived::free_addresses::Leased;
use crate::config::derived::running::written_name;
use crate::config::model::{Config, Mode};
use crate::ctl::Failure;
use crate::gateway::AskError;
use crate::state::{QueryError, TransactError, TransactOptions};

/// How long a gateway may take to start.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a gateway that does not run yet is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// How often an address is changed for another.
const TRIES: usize = 8;

/// Gives a port its addresses in a draft. Returns those that it states itself.
///
/// # Errors
/// The port is gone, or no address is free.
pub(super) fn hold(
    config: &mut Config,
    name: &str,
    leased: &Leased,
) -> Result<Vec<IpAddr>, Failure> {
    let gone = || format!("port {name} has ended meanwhile; attach it again");
    let port = config.port(name).ok_or_else(gone)?;
    let (stated, chosen) = (port.addresses.clone(), config.free_addresses(port, leased)?);
    let port = config.ports.iter_mut().find(|port| port.name == name).ok_or_else(gone)?;
    port.addresses.extend(chosen);
    Ok(stated)
}

impl Api {
    /// Asks what DHCP clients of a request's network have; blocks for a few seconds at most.
    pub(super) fn leased(&self, request: &Request) -> Result<Leased, Failure> {
        let config = self.daemon.config();
        let network = config.network(written_name(&request.network));
        // A guest of mode `nat` is alone with its DHCP server.
        if !network.is_some_and(|network| network.has_dhcp() && network.mode != Mode::Nat) {
            return Ok(Leased::default());
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match self.daemon.ask::<LeaseRow>(&request.network) {
                Ok(rows) => return Ok(Leased::of(&rows)),
                Err(QueryError::NoNetwork(_) | QueryError::NoGateway(_)) => {
                    return Ok(Leased::default());
                }
                Err(QueryError::NoAnswer { error: AskError::Gone, .. })
                    if Instant::now() < until =>
                {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until DHCP leaves the addresses alone that were chosen for a port, besides those that
    /// it states, and chooses others in place of those that a client was given meanwhile.
    pub(super) fn settle(&self, request: &Request, stated: &[IpAddr]) -> Result<(), Failure> {
        let name = &request.port;
        for _ in 0..TRIES {
            // The question follows the new settings.
            let leased = self.leased(request)?;
            let config = self.daemon.config();
            let addresses = config.port(name).map_or(&[][..], |port| &port.addresses);
            let is_lost = |it: &&IpAddr| leased.held.contains(it) && !stated.contains(it);
            if !addresses.iter().any(|address| is_lost(&address)) {
                return Ok(());
            }
            let options = TransactOptions { dry_run: false, save: true };
            let changed = self.daemon.transact(options, |config| {
                if let Some(port) = config.ports.iter_mut().find(|port| port.name == *name) {
                    port.addresses.retain(|address| stated.contains(address));
                }
                hold(config, name, &leased)
            });
            changed.map_err(|error| match error {
                TransactError::Edit(failure) => failure,
                other => other.to_string().into(),
            })?;
        }
        let message = format!(
            "DHCP clients of network {} take each address that is chosen; attach it again",
            request.network
        );
        Err(message.into())
    }
}

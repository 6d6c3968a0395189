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
use crate::config::model::{Config, Mode, Port};
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
    let port = config.port(name).ok_or_else(|| gone(name))?;
    let (stated, chosen) = (port.addresses.clone(), config.free_addresses(port, leased)?);
    port_mut(config, name)?.addresses.extend(chosen);
    Ok(stated)
}

/// Chooses others in place of those of a port's addresses that DHCP clients have, except for those
/// that it states itself. Returns whether there were such.
fn change_lost(
    config: &mut Config,
    name: &str,
    stated: &[IpAddr],
    leased: &Leased,
) -> Result<bool, Failure> {
    let is_lost = |address: &IpAddr| leased.held.contains(address) && !stated.contains(address);
    let port = port_mut(config, name)?;
    if !port.addresses.iter().any(is_lost) {
        return Ok(false);
    }
    port.addresses.retain(|address| !is_lost(address));
    hold(config, name, leased)?;
    Ok(true)
}

fn port_mut<'a>(config: &'a mut Config, name: &str) -> Result<&'a mut Port, Failure> {
    let port = config.ports.iter_mut().find(|port| port.name == name);
    port.ok_or_else(|| gone(name))
}

/// Says that a port has ended while it was being attached.
pub(super) fn gone(name: &str) -> Failure {
    format!("port {name} has ended meanwhile; attach it again").into()
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
        for _ in 0..TRIES {
            // The question follows the new settings.
            let leased = self.leased(request)?;
            let options = TransactOptions { dry_run: false, save: true };
            let changed = self
                .daemon
                .transact(options, |config| change_lost(config, &request.port, stated, &leased));
            let changed = changed.map_err(|error| match error {
                TransactError::Edit(failure) => failure,
                other => other.to_string().into(),
            })?;
            if !changed.result {
                return Ok(());
            }
        }
        let message = format!(
            "DHCP clients of network {} take each address that is chosen; attach it again",
            request.network
        );
        Err(message.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_a_client_got_meanwhile_is_changed_for_another() {
        let text = "[[network]]\nname = \"n\"\nsubnet = [\"10.1.0.0/24\", \"fd00::/64\"]\n\
                    [[port]]\nname = \"p\"\nnetwork = \"n\"\ntype = \"tap\"\n";
        let mut config = parse(text, "").unwrap();
        let addresses = |config: &Config| {
            let texts = config.ports[0].addresses.iter().map(ToString::to_string);
            texts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(hold(&mut config, "p", &Leased::default()), Ok(Vec::new()));
        assert_eq!(addresses(&config), "10.1.0.254 fd00::1fff");
        let held: [IpAddr; 2] = [[10, 1, 0, 254].into(), [10, 1, 0, 253].into()];
        let leased = Leased { held: held.into(), ..Leased::default() };
        assert_eq!(change_lost(&mut config, "p", &[], &leased), Ok(true));
        assert_eq!(addresses(&config), "fd00::1fff 10.1.0.252", "the other one stays");
        assert_eq!(change_lost(&mut config, "p", &[], &leased), Ok(false));
        config.ports[0].addresses = held.into();
        assert_eq!(change_lost(&mut config, "p", &held, &leased), Ok(false), "it states them");
        assert_eq!(change_lost(&mut config, "q", &[], &leased), Err(gone("q")));
    }
}

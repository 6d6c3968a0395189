//! The plug-in for Docker: a network driver of dockerd, as libnetwork's API for remote drivers has
//! it. `docs/docker.md` has what is configured.
//!
//! dockerd posts JSON to a Unix socket, one request for each step in a container's life, and may
//! repeat one whose answer it did not get. `Plugin::answer` carries a request out; `server.rs`
//! has the socket. This program keeps nothing: what a later request needs is in the columns
//! `external_ids` of networks and ports, so that it, `tramad` and dockerd may each restart.

mod endpoint;
mod network;
mod server;
mod types;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trama_api::folders::control_sockets;
use trama_client::{Daemon, Failed};

use self::types::{CreateEndpoint, CreateNetwork, OfEndpoint, OfNetwork};

pub use self::server::{ListenError, listen, serve};

/// How long the daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Digits that an ID of Docker has at least; it has 64.
const LEAST_ID: usize = 16;

/// The plug-in, for one daemon.
pub struct Plugin {
    daemon: Daemon,
    /// Held while a network is made or removed: two of Docker may stand for one of trama.
    networks: Mutex<()>,
}

/// Why a request has no result.
#[derive(Debug, PartialEq)]
enum Refusal {
    /// There is no such request.
    Unknown,
    /// Its body is not understood.
    Malformed(String),
    /// It cannot be carried out.
    Failed(String),
}

impl<F: Into<Failed>> From<F> for Refusal {
    fn from(failed: F) -> Refusal {
        Refusal::Failed(failed.into().to_string())
    }
}

impl Plugin {
    /// The plug-in for the daemon that `tramactl` finds, too.
    pub fn new() -> Plugin {
        let daemon = Daemon { sockets: control_sockets(None), timeout: TIMEOUT };
        Plugin { daemon, networks: Mutex::default() }
    }

    /// Carries out the request that was posted to a path.
    fn answer(&self, path: &str, body: &[u8]) -> Result<Value, Refusal> {
        let method = match path {
            "/Plugin.Activate" => return Ok(json!({"Implements": ["NetworkDriver"]})),
            path => path.strip_prefix("/NetworkDriver.").ok_or(Refusal::Unknown)?,
        };
        let daemon = &self.daemon;
        match method {
            "GetCapabilities" => {
                return Ok(json!({"Scope": "local", "ConnectivityScope": "local"}));
            }
            "CreateNetwork" => {
                let request: CreateNetwork = parse(body)?;
                let _one_at_a_time = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
                network::create(daemon, &request)?;
            }
            "DeleteNetwork" => {
                let request: OfNetwork = parse(body)?;
                let _one_at_a_time = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
                network::delete(daemon, &request.network)?;
            }
            "CreateEndpoint" => {
                let request: CreateEndpoint = parse(body)?;
                return Ok(endpoint::create(daemon, &request)?);
            }
            "Join" => return Ok(endpoint::join(daemon, &parse::<OfEndpoint>(body)?)?),
            "DeleteEndpoint" => endpoint::delete(daemon, &parse::<OfEndpoint>(body)?)?,
            "ProgramExternalConnectivity" => {
                endpoint::publish(daemon, &parse::<OfEndpoint>(body)?)?;
            }
            "RevokeExternalConnectivity" => {
                endpoint::withdraw(daemon, &parse::<OfEndpoint>(body)?)?;
            }
            "EndpointOperInfo" => return Ok(json!({"Value": {}})),
            // The port stays until DeleteEndpoint. Addresses of networks that swarms share, and
            // other hosts, are no concern of a local driver.
            "Leave" | "AllocateNetwork" | "FreeNetwork" | "DiscoverNew" | "DiscoverDelete" => {}
            _ => return Err(Refusal::Unknown),
        }
        Ok(json!({}))
    }
}

impl Default for Plugin {
    fn default() -> Plugin {
        Plugin::new()
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Malformed(format!("body: {error}")))
}

/// Checks an ID of Docker, of which names are made.
fn check_id(field: &str, id: &str) -> Result<(), String> {
    if id.len() >= LEAST_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!(
        "{field} {id:?} is no ID of Docker, which has {LEAST_ID} hexadecimal digits or more"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A plug-in whose daemon does not run.
    fn alone() -> Plugin {
        let sockets = vec!["/nonexistent/control.sock".into()];
        Plugin { daemon: Daemon { sockets, timeout: TIMEOUT }, networks: Mutex::default() }
    }

    #[test]
    fn what_needs_no_daemon_is_answered_without_one() {
        let plugin = alone();
        let answer = |path: &str| plugin.answer(path, b"");
        assert_eq!(answer("/Plugin.Activate"), Ok(json!({"Implements": ["NetworkDriver"]})));
        for kind in ["Leave", "AllocateNetwork", "FreeNetwork", "DiscoverNew", "DiscoverDelete"] {
            assert_eq!(answer(&format!("/NetworkDriver.{kind}")), Ok(json!({})), "{kind}");
        }
        for path in ["/", "/Plugin.Deactivate", "/NetworkDriver.", "/IpamDriver.RequestPool"] {
            assert_eq!(answer(path), Err(Refusal::Unknown), "{path}");
        }
    }

    #[test]
    fn an_id_is_one_of_docker() {
        assert_eq!(check_id("EndpointID", "0123456789abcdef"), Ok(()));
        for wrong in
            ["", "0123456789abcde", "0123456789abcdeg", "../../../../../etc", "é23456789abcdef"]
        {
            assert!(check_id("EndpointID", wrong).unwrap_err().contains("EndpointID"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(
            body in r#"[\[\]{}:,"a-z0-9_./ ]{0,64}"#,
            value in r#"(|[0-9a-f]{0,64}|10\.7\.0\.[0-9]{1,3}(/[0-9]{1,3})?)"#,
            kind in prop_oneof![
                Just("CreateNetwork"), Just("DeleteNetwork"), Just("CreateEndpoint"), Just("Join"),
                Just("DeleteEndpoint"), Just("ProgramExternalConnectivity"),
                Just("RevokeExternalConnectivity"),
            ],
        ) {
            let plugin = alone();
            let path = format!("/NetworkDriver.{kind}");
            prop_assert!(plugin.answer(&path, body.as_bytes()).is_err());
            let known = json!({
                "NetworkID": value, "EndpointID": value, "Options": {"names": value},
                "Interface": {"Address": value, "MacAddress": value},
                "IPv4Data": [{"Pool": value, "Gateway": value}],
            });
            // Only one without published ports needs no daemon.
            let result = plugin.answer(&path, known.to_string().as_bytes());
            prop_assert!(result.is_err() || kind == "ProgramExternalConnectivity");
        }
    }
}

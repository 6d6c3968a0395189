//! `POST /v1/attach`: a client hands over a device or socket, which becomes an ephemeral port.

use std::os::fd::OwnedFd;

use trama_api::attach::{Attached, Request};
use trama_api::transaction::VERSION;

use super::Api;
use super::passed::Passed;
use crate::config::derived::running::written_name;
use crate::config::model::{Config, Network};
use crate::ctl::{self, Failure};
use crate::handed;
use crate::state::TransactError;

/// Reads the body of a request.
pub(super) fn read_request(body: &[u8]) -> Result<Request, String> {
    let not_understood =
        |error: &dyn std::fmt::Display| format!("the request is not understood: {error}");
    let mut json = serde_json::Deserializer::from_slice(body);
    let request: Request =
        serde_path_to_error::deserialize(&mut json).map_err(|error| not_understood(&error))?;
    json.end().map_err(|error| not_understood(&error))?;
    match request.version {
        VERSION => Ok(request),
        other => Err(format!(
            "the request speaks version {other} of the API, this tramad {} version {VERSION}; use \
             the tramactl that came with it",
            env!("CARGO_PKG_VERSION")
        )),
    }
}

impl Api {
    /// Attaches the device that was passed with a request. If its client has gone away by the end,
    /// nothing is left of it.
    pub(super) fn attach(&self, request: &Request, passed: &Passed) -> Result<Attached, Failure> {
        let fd = only(passed.take())?;
        let handed = handed::identify(fd)?;
        let ifname = handed.ifname().to_owned();
        let mut command = vec!["add-port".to_owned(), request.network.clone()];
        command.push(request.port.clone());
        command.extend(request.columns.iter().cloned());
        let calls = ctl::parse(&[command])?;
        let snapshot = self.snapshot(&calls)?;
        let committed = self.daemon.attach(handed, |config| {
            *config = ctl::run(&calls, config.clone(), &snapshot)?.config;
            Ok(request.port.clone())
        });
        let committed = committed.map_err(|error: TransactError<Failure>| match error {
            TransactError::Edit(failure) => failure,
            other => other.to_string().into(),
        })?;
        let port = committed.result;
        if let Some(fault) = committed.not_running.into_iter().find(|it| it.name == port) {
            self.daemon.detach(&port);
            return Err(fault.reason.into());
        }
        if passed.is_abandoned() {
            self.daemon.detach(&port);
            return Err("the client has gone away".to_owned().into());
        }
        let config = self.daemon.config();
        let network = network_of(&config, &request.network);
        let mtu = network.map_or(0, |network| network.mtu);
        let dns = network.filter(|network| network.has_gateway()).map(dns_of);
        let dns = dns.unwrap_or_default();
        let (addresses, gateways, socket) = (Vec::new(), Vec::new(), None);
        Ok(Attached { port, ifname, mtu, dns, addresses, gateways, socket })
    }
}

fn network_of<'a>(config: &'a Config, name: &str) -> Option<&'a Network> {
    config.network(written_name(name))
}

fn dns_of(network: &Network) -> Vec<std::net::IpAddr> {
    network.subnets().into_iter().map(|subnet| network.well_known(subnet).dns).collect()
}

/// Returns the descriptor of a request, which has exactly one.
fn only(fds: Vec<OwnedFd>) -> Result<OwnedFd, String> {
    let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|fds| match fds.len() {
        0 => {
            "no descriptor came with the request; pass the device's with its first byte \
              (SCM_RIGHTS), as tramactl attach does"
        }
        _ => "more than one descriptor came with the request; pass the device's alone",
    })?;
    Ok(fd)
}

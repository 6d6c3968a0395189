//! `POST /v1/attach`: a client hands over a device or socket, or asks for a socket; it becomes an
//! ephemeral port.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use trama_api::attach::{Attached, Device, Request};

use super::passed::Passed;
use super::{Api, lease};
use crate::config::derived::addresses::WellKnown;
use crate::config::derived::free_addresses::Leased;
use crate::config::model::{Config, Interface, Network};
use crate::ctl::{self, Failure};
use crate::events::By;
use crate::handed;
use crate::state::TransactError;

impl Api {
    /// Attaches what a request names. If its client has gone away by the end, nothing is left of
    /// it.
    pub(super) fn attach(
        &self,
        request: &Request,
        passed: &Passed,
        by: By,
    ) -> Result<Attached, Failure> {
        let handed = match request.device {
            Device::Descriptor => Some(only(passed.take())?),
            Device::VhostUser => none(&passed.take())?,
        };
        let handed = handed.map(handed::identify).transpose()?;
        let calls = ctl::parse(&commands(request))?;
        let snapshot = self.snapshot(&calls)?;
        let leased = if request.lease { self.leased(request)? } else { Leased::default() };
        let mut stated = Vec::new();
        let edit = |config: &mut Config| {
            *config = ctl::run(&calls, config.clone(), &snapshot)?.config;
            if request.lease {
                stated = lease::hold(config, &request.port, &leased)?;
            }
            Ok(request.port.clone())
        };
        let (ifname, committed) = match handed {
            Some(handed) => (handed.ifname().to_owned(), self.daemon.attach(handed, edit)),
            None => (String::new(), self.daemon.attach_socket(edit)),
        };
        let committed = committed.map_err(|error: TransactError<Failure>| match error {
            TransactError::Edit(failure) => failure,
            other => other.to_string().into(),
        })?;
        let port = committed.result;
        let fault = committed.not_running.into_iter().find(|it| it.name == port);
        let settled = match fault {
            Some(fault) => Err(fault.reason.into()),
            None if request.lease => self.settle(request, &stated),
            None => Ok(()),
        };
        let config = self.daemon.config();
        let done = settled.and_then(|()| attached(&config, &port, ifname));
        if done.is_err() || passed.is_abandoned() {
            self.daemon.detach(&port);
            done?;
            return Err("the client has gone away".to_owned().into());
        }
        self.daemon.events.changed("changed", by, &committed.steps);
        done
    }
}

/// The commands that add the port.
fn commands(request: &Request) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut add = words(&["add-port", &request.network, &request.port]);
    add.extend(request.columns.iter().cloned());
    match request.device {
        Device::Descriptor => vec![add],
        Device::VhostUser => {
            vec![add, words(&["set", "Interface", &request.port, "type=vhost-user"])]
        }
    }
}

/// Says how a port was attached.
fn attached(config: &Config, name: &str, ifname: String) -> Result<Attached, Failure> {
    let port = config.port(name).ok_or_else(|| lease::gone(name))?;
    let network = port.network.as_deref().and_then(|name| config.network(name));
    let subnets = network.map(Network::subnets).unwrap_or_default();
    let known = |pick: fn(WellKnown) -> IpAddr, network: &Network| {
        subnets.iter().map(|subnet| pick(network.well_known(*subnet))).collect()
    };
    let dns = network.filter(|it| it.has_gateway()).map(|it| known(|known| known.dns, it));
    let gateways = network.filter(|it| it.has_nat()).map(|it| known(|known| known.gateway, it));
    let with_prefix = |address: &IpAddr| {
        let subnet = subnets.iter().find(|subnet| subnet.contains(address));
        let with_prefix = subnet.map(|subnet| IpNet::new(*address, subnet.prefix_len()));
        with_prefix.and_then(Result::ok).unwrap_or_else(|| IpNet::from(*address))
    };
    let socket = match &port.interface {
        Interface::VhostUser(device) => Some(config.daemon.folders.socket(name, &device.path)),
        _ => None,
    };
    Ok(Attached {
        port: name.to_owned(),
        ifname,
        mtu: network.map_or(0, |network| network.mtu),
        dns: dns.unwrap_or_default(),
        addresses: port.addresses.iter().map(with_prefix).collect(),
        gateways: gateways.unwrap_or_default(),
        socket,
    })
}

/// Checks that no descriptor came with a request.
fn none(fds: &[OwnedFd]) -> Result<Option<OwnedFd>, String> {
    match fds {
        [] => Ok(None),
        _ => {
            Err("a descriptor came with the request for a vhost-user socket; pass none".to_owned())
        }
    }
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

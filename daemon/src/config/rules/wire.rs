//! Rules for byte streams and datagrams: where their sockets are.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::check::Check;
use super::name::quoted;
use super::port::{Claims, Protocol};
use crate::config::model::wire::{Dgram, Place, Stream};
use crate::config::model::{Port, Role};

/// Most connections of a stream port.
const MAX_CONNECTIONS: u16 = 64;

impl Check {
    /// The path of a socket that the port alone has.
    pub(super) fn own_path(&mut self, path: PathBuf, claims: &mut Claims<'_>) {
        if !self.socket_path("path", &path) {
            return;
        }
        match claims.sockets.get(&path).cloned() {
            Some(other) => {
                let message = format!("{} is taken by {other}", quoted(&path));
                self.problem("path", message, "give each its own socket");
            }
            None => {
                claims.sockets.insert(path, format!("{}.path", self.path()));
            }
        }
    }

    /// An address that the port alone has.
    fn own_address(
        &mut self,
        key: &'static str,
        (protocol, address): (Protocol, SocketAddr),
        claims: &mut Claims<'_>,
    ) {
        self.real_port(key, address);
        let owner = format!("{}.{key}", self.path());
        if let Some(other) = claims.internet.insert((protocol, address), owner) {
            let message = format!("{address} is taken by {other}");
            self.problem(key, message, "give each its own address or port");
        }
    }

    fn real_port(&mut self, key: &'static str, address: SocketAddr) {
        if address.port() == 0 {
            self.problem(key, format!("{address} has no port"), "use a port from 1 to 65535");
        }
    }

    /// `place` is where the device's socket is in the end.
    pub(super) fn stream(&mut self, device: &Stream, place: Place, claims: &mut Claims<'_>) {
        match (place, device.role) {
            (Place::Path(path), _) => self.own_path(path, claims),
            (Place::Address(address), Role::Server) => {
                self.own_address("address", (Protocol::Tcp, address), claims);
            }
            (Place::Address(address), Role::Client) => self.real_port("address", address),
        }
        if !(1..=MAX_CONNECTIONS).contains(&device.connections) {
            let message = format!("{} is out of range", device.connections);
            self.problem("connections", message, format!("use 1 to {MAX_CONNECTIONS}"));
        } else if device.connections > 1 && device.role == Role::Client {
            let remedy = r#"remove it, or set role = "server""#;
            self.problem("connections", "a client has one connection", remedy);
        }
    }

    /// Several connections are several guests.
    pub(super) fn one_guest(&mut self, port: &Port) {
        let remedy = "remove it, or set connections = 1";
        if port.connections() > 1 && port.mac.is_some() {
            self.problem("mac", "is that of one guest, and each connection has one", remedy);
        }
        if port.connections() > 1 && !port.addresses.is_empty() {
            let message = "are those of one guest, and each connection has one";
            self.problem("addresses", message, remedy);
        }
    }

    /// `device` has its paths in the end.
    pub(super) fn dgram(&mut self, device: &Dgram, claims: &mut Claims<'_>) {
        match device {
            Dgram::Unix { path, peer } => {
                self.own_path(path.clone(), claims);
                if let Some(peer) = peer
                    && self.socket_path("peer", peer)
                    && peer == path
                {
                    let remedy = "give the path of the other end's socket";
                    self.problem("peer", "is the port's own socket", remedy);
                }
            }
            Dgram::Udp { local, remote } => {
                self.own_address("local", (Protocol::Udp, *local), claims);
                self.real_port("remote", *remote);
                if local.is_ipv4() != remote.is_ipv4() {
                    let message = format!("{remote} is of another version of IP than local");
                    self.problem("remote", message, "use two addresses of one version");
                }
            }
        }
    }
}

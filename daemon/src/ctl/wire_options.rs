//! The options of stream and datagram interfaces, and back.

use std::net::SocketAddr;

use super::failure::Failure;
use super::options_reader::{Options, Reader};
use crate::config::model::Role;
use crate::config::model::wire::{Dgram, Place, Stream};

/// The options that a stream interface may have, in the order of help texts.
pub(super) const STREAM: &str =
    "path, address, role, connections, socket-owner, socket-group, socket-mode";
/// The same of a datagram interface.
pub(super) const DGRAM: &str = "path, peer, local, remote, socket-owner, socket-group, socket-mode";

pub(super) fn describe_stream(device: &Stream, options: &mut Options) {
    let mut put = |key: &str, value: String| options.insert(key.to_owned(), value);
    match &device.place {
        Place::Path(path) if path.as_os_str().is_empty() => {}
        Place::Path(path) => drop(put("path", path.display().to_string())),
        Place::Address(address) => drop(put("address", address.to_string())),
    }
    put("role", device.role.to_string());
    if device.connections != 1 {
        put("connections", device.connections.to_string());
    }
}

pub(super) fn describe_dgram(device: &Dgram, options: &mut Options) {
    let mut put = |key: &str, value: String| options.insert(key.to_owned(), value);
    match device {
        Dgram::Unix { path, peer } => {
            if !path.as_os_str().is_empty() {
                put("path", path.display().to_string());
            }
            if let Some(peer) = peer {
                put("peer", peer.display().to_string());
            }
        }
        Dgram::Udp { local, remote } => {
            put("local", local.to_string());
            put("remote", remote.to_string());
        }
    }
}

impl Reader<'_> {
    pub(super) fn stream(&mut self) -> Result<Stream, Failure> {
        let path = self.options.remove("path");
        let place = match self.address("address")? {
            Some(_) if path.is_some() => {
                return Err(self.conflict("address", "path").into());
            }
            Some(address) => Place::Address(address),
            None => Place::Path(path.unwrap_or_default().into()),
        };
        let role = self.role()?.unwrap_or(Role::Server);
        let connections = self.number("connections")?.unwrap_or(1);
        Ok(Stream { place, role, connections })
    }

    pub(super) fn dgram(&mut self) -> Result<Dgram, Failure> {
        let (path, peer) = (self.options.remove("path"), self.options.remove("peer"));
        match (self.address("local")?, self.address("remote")?) {
            (None, None) => {
                let (path, peer) = (path.unwrap_or_default().into(), peer.map(Into::into));
                Ok(Dgram::Unix { path, peer })
            }
            (Some(_), Some(_)) if path.is_some() => Err(self.conflict("local", "path").into()),
            (Some(_), Some(_)) if peer.is_some() => Err(self.conflict("local", "peer").into()),
            (Some(local), Some(remote)) => Ok(Dgram::Udp { local, remote }),
            (Some(_), None) => Err(self.incomplete("local", "remote").into()),
            (None, Some(_)) => Err(self.incomplete("remote", "local").into()),
        }
    }

    fn address(&mut self, key: &str) -> Result<Option<SocketAddr>, Failure> {
        let Some(text) = self.options.remove(key) else { return Ok(None) };
        let remedy = "write it as 127.0.0.1:5555 or [::1]:5555";
        let parsed = text.parse().map_err(|_| self.problem(key, &text, remedy))?;
        Ok(Some(parsed))
    }

    fn conflict(&self, key: &str, other: &str) -> String {
        format!(
            "Interface {}: options:{key} and options:{other} exclude each other; remove one of \
             them",
            self.port
        )
    }

    fn incomplete(&self, key: &str, other: &str) -> String {
        format!(
            "Interface {}: options:{key} needs options:{other} as well; write it as \
             127.0.0.1:5555",
            self.port
        )
    }
}

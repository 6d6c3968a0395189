//! Paths and access of ports' sockets.

use std::path::PathBuf;

use trama_api::folders::Folders;
use trama_vhost_net_backend::access::GROUP_MODE;

use crate::config::model::socket::{SocketAccess, SocketMode};
use crate::config::model::wire::{Dgram, Place, Stream};
use crate::config::model::{
    Attached, AttachedKind, Config, DaemonConfig, Interface, Port, Role, VhostUser,
};

impl Config {
    /// Fills in what the ports' sockets inherit from the daemon: path, group and mode.
    pub(super) fn place_sockets(&self, ports: &mut [Port]) {
        let folders = &self.daemon.folders;
        for port in ports {
            match &mut port.interface {
                Interface::VhostUser(device) => {
                    device.path = folders.socket(&port.name, &device.path);
                }
                Interface::Stream(device) => {
                    device.place = folders.place(&port.name, &device.place);
                }
                Interface::Dgram(device) => *device = folders.ends(&port.name, device),
                _ => {}
            }
            if port.interface.makes_socket() == MakesSocket::Yes {
                port.socket = port.socket.or(&self.daemon);
            }
        }
    }
}

/// Whether the daemon makes a socket with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MakesSocket {
    Yes,
    /// The other side makes it, or there is none.
    No,
    /// It makes one with an address of IP.
    NoFile,
}

impl Interface {
    /// The file of its socket, which the daemon or the other side makes; `None` if it has none.
    pub(crate) fn socket_file(&self, port: &str, folders: &Folders) -> Option<PathBuf> {
        match self {
            Interface::VhostUser(VhostUser { path, .. })
            | Interface::Stream(Stream { place: Place::Path(path), .. })
            | Interface::Dgram(Dgram::Unix { path, .. }) => Some(folders.socket(port, path)),
            Interface::Attached(Attached { kind: AttachedKind::VhostUser, place, .. }) => {
                Some(place.into())
            }
            _ => None,
        }
    }

    /// Whether the daemon makes a socket with a file for it.
    pub(crate) fn makes_socket(&self) -> MakesSocket {
        match self {
            Interface::Stream(Stream { place: Place::Address(_), .. })
            | Interface::Dgram(Dgram::Udp { .. }) => MakesSocket::NoFile,
            Interface::VhostUser(VhostUser { role: Role::Server, .. })
            | Interface::Stream(Stream { role: Role::Server, .. })
            | Interface::Dgram(_) => MakesSocket::Yes,
            _ => MakesSocket::No,
        }
    }
}

/// The places of sockets whose paths are relative or not stated.
pub(crate) trait PlaceSockets {
    fn place(&self, port: &str, place: &Place) -> Place;
    fn ends(&self, port: &str, device: &Dgram) -> Dgram;
}

impl PlaceSockets for Folders {
    fn place(&self, port: &str, place: &Place) -> Place {
        match place {
            Place::Path(path) => Place::Path(self.socket(port, path)),
            address => address.clone(),
        }
    }

    fn ends(&self, port: &str, device: &Dgram) -> Dgram {
        match device {
            Dgram::Unix { path, peer } => Dgram::Unix {
                path: self.socket(port, path),
                peer: peer.as_ref().map(|peer| self.socket(port, peer)),
            },
            udp => udp.clone(),
        }
    }
}

impl SocketAccess {
    /// The access in force. A group that is named may connect, whatever the umask.
    fn or(&self, daemon: &DaemonConfig) -> SocketAccess {
        let group = self.group.as_ref().or(daemon.socket_group.as_ref()).cloned();
        let of_group = group.as_ref().map(|_| SocketMode(GROUP_MODE));
        let mode = self.mode.or(daemon.socket_mode).or(of_group);
        SocketAccess { owner: self.owner.clone(), group, mode }
    }
}

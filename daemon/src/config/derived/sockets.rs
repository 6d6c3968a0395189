//! Paths and access of ports' sockets.

use trama_vhost_net_backend::access::GROUP_MODE;

use crate::config::model::socket::{SocketAccess, SocketMode};
use crate::config::model::{Config, DaemonConfig, Interface, Port, Role};

impl Config {
    /// Fills in what the ports' sockets inherit from the daemon: path, group and mode.
    pub(super) fn place_sockets(&self, ports: &mut [Port]) {
        for port in ports {
            let Interface::VhostUser(device) = &mut port.interface else { continue };
            device.path = self.daemon.folders.socket(&port.name, &device.path);
            if device.role == Role::Server {
                port.socket = port.socket.or(&self.daemon);
            }
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

//! Which users may connect to a port's socket: keys of a port, and their defaults of the daemon.

use serde::{Serialize, Serializer};
use trama_vhost_net_backend::access::GROUP_MODE;

use super::model::{Config, DaemonConfig, Interface, Port, Role, VhostUser};
use super::validate::Check;

/// Owner, group and mode of a socket that we make; `None` = the daemon's own, and its umask's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SocketAccess {
    /// The user, by name or number.
    pub owner: Option<String>,
    /// The group, by name or number.
    pub group: Option<String>,
    /// The permission bits.
    pub mode: Option<SocketMode>,
}

/// Permission bits, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl std::fmt::Display for SocketMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for SocketMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Config {
    /// Puts in what ports leave to defaults of the daemon: where sockets are and whose.
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
    /// What is in force: a group that is named may connect, whatever the umask.
    fn or(&self, daemon: &DaemonConfig) -> SocketAccess {
        let group = self.group.as_ref().or(daemon.socket_group.as_ref()).cloned();
        let of_group = group.as_ref().map(|_| SocketMode(GROUP_MODE));
        let mode = self.mode.or(daemon.socket_mode).or(of_group);
        SocketAccess { owner: self.owner.clone(), group, mode }
    }

    /// The keys that are set, with the values that are names.
    fn stated(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        let owner = self.owner.as_deref().map(|name| ("socket-owner", Some(name)));
        let group = self.group.as_deref().map(|name| ("socket-group", Some(name)));
        let mode = self.mode.map(|_| ("socket-mode", None));
        owner.into_iter().chain(group).chain(mode)
    }
}

impl Check {
    /// The users that may connect to a port's socket.
    pub(super) fn socket_access(&mut self, port: &Port) {
        let makes_it =
            matches!(port.interface, Interface::VhostUser(VhostUser { role: Role::Server, .. }));
        for (key, name) in port.socket.stated() {
            if !makes_it {
                let message = r#"with role = "client" the VMM makes the socket"#;
                let remedy = "remove it, and let the daemon's user write the VMM's socket";
                self.problem(key, message, remedy);
            }
            self.account(key, name);
        }
    }

    /// The name or the number of a user or group.
    pub(super) fn account(&mut self, key: &'static str, name: Option<&str>) {
        let Some(name) = name else { return };
        // What is no number is looked up, when a socket is made. The greatest means "unchanged".
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let fits = name.parse().is_ok_and(|number: u32| number != u32::MAX);
        let bad = name.is_empty() || name.contains(|c: char| c == ':' || c.is_control());
        if bad || (is_number && !fits) {
            let message = format!("{name:?} is not the name of an account");
            self.problem(key, message, "use a name, or its number in quotes");
        }
    }
}

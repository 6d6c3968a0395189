//! Options of a session.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use trama_virtqueue::MemoryLimits;

use crate::access::Access;
use crate::device::DeviceSettings;
use crate::features;
use crate::keeper::ConnectionKeeper;
use crate::link_watch::LinkWatch;
use crate::socket::{OwnSockets, Sockets};

/// The side of a vhost-user socket that the backend takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The session listens on the socket, the frontend connects.
    Server,
    /// The frontend listens (QEMU `server=on`, libvirt `mode='server'`), the session connects.
    Client,
}

impl Role {
    /// Both roles.
    pub const ALL: [Role; 2] = [Role::Server, Role::Client];

    /// Returns its word in configurations and commands.
    pub fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a role is server (the backend listens) or client (the backend connects)")]
pub struct ParseRoleError;

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Role, ParseRoleError> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or(ParseRoleError)
    }
}

/// See [`SessionOptions::spacing`].
const SPACING: Duration = Duration::from_millis(40);

/// Options of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The Unix socket.
    pub path: PathBuf,
    /// Which side listens.
    pub role: Role,
    /// Pairs of rings that a frontend may use (1 to 128).
    pub queue_pairs: u16,
    /// What a frontend may read, and the largest MTU that a VMM may tell its guest; see
    /// [`crate::Session::set_device`].
    pub device: DeviceSettings,
    /// The features that may be offered, a mask of [`features::ALL`].
    pub features: u64,
    /// Whether the cable is in; see [`crate::Session::set_cable`].
    pub cable: bool,
    /// Which users may connect, if the session listens.
    pub access: Access,
    /// Makes the session's sockets.
    pub sockets: Arc<dyn Sockets>,
    /// Least time between the beginnings of two connections that a listening session serves, and,
    /// beyond a burst of 64, between two changes of the memory table. Beyond a burst of 64 for each
    /// pair of rings and 64 more, a twentieth of it passes between two requests. A frontend that
    /// does any of these again and again takes processor time from other ports.
    pub spacing: Duration,
    /// How much memory a frontend may share; see [`crate::Session::set_memory_limits`].
    pub memory: MemoryLimits,
    /// Keeps connections beyond the end of this process; `None`: each ends with it.
    pub keeper: Option<Arc<dyn ConnectionKeeper>>,
    /// Is told of connections; `None`: nothing is.
    pub watch: Option<Arc<dyn LinkWatch>>,
}

impl SessionOptions {
    /// Default options: one pair of rings, MTU 1500, no MAC address, all features, cable plugged
    /// in, sockets made in this process, at most 25 connections a second, no limits of memory, no
    /// keeper, no watch.
    pub fn new(path: impl Into<PathBuf>, role: Role) -> SessionOptions {
        let path = path.into();
        let device = DeviceSettings { mtu: 1500, mac: None };
        let (features, access) = (features::ALL, Access::default());
        let sockets = Arc::new(OwnSockets);
        SessionOptions {
            path,
            role,
            queue_pairs: 1,
            device,
            features,
            cable: true,
            access,
            sockets,
            spacing: SPACING,
            memory: MemoryLimits::default(),
            keeper: None,
            watch: None,
        }
    }
}

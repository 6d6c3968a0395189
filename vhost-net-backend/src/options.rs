//! What a session is told when it starts.

use std::path::PathBuf;

use crate::access::Access;
use crate::device::DeviceSettings;
use crate::features;

/// Who makes the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We listen on the socket, the frontend connects.
    Server,
    /// The frontend listens (QEMU `server=on`, libvirt `mode='server'`), we connect.
    Client,
}

/// What a session is told.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The Unix socket.
    pub path: PathBuf,
    /// Who makes the connection.
    pub role: Role,
    /// Pairs of rings that a frontend may use (1 to 128).
    pub queue_pairs: u16,
    /// What a frontend may read, and the largest MTU that a VMM may tell its guest; see
    /// [`crate::Session::set_device`].
    pub device: DeviceSettings,
    /// What may be offered, a mask of [`features::ALL`].
    pub features: u64,
    /// Whether the cable is in; see [`crate::Session::set_cable`].
    pub cable: bool,
    /// Which users may connect, where we listen.
    pub access: Access,
}

impl SessionOptions {
    /// One pair of rings, 1500 bytes, no address, all features.
    pub fn new(path: impl Into<PathBuf>, role: Role) -> SessionOptions {
        let path = path.into();
        let device = DeviceSettings { mtu: 1500, mac: None };
        let (features, access) = (features::ALL, Access::default());
        SessionOptions { path, role, queue_pairs: 1, device, features, cable: true, access }
    }
}

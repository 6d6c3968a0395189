//! Options of a session.

use std::path::PathBuf;

use crate::access::Access;
use crate::device::DeviceSettings;
use crate::features;

/// Which side connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The session listens on the socket, the frontend connects.
    Server,
    /// The frontend listens (QEMU `server=on`, libvirt `mode='server'`), the session connects.
    Client,
}

/// Options of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The Unix socket.
    pub path: PathBuf,
    /// Which side connects.
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
}

impl SessionOptions {
    /// Default options: one pair of rings, MTU 1500, no MAC address, all features, cable plugged
    /// in.
    pub fn new(path: impl Into<PathBuf>, role: Role) -> SessionOptions {
        let path = path.into();
        let device = DeviceSettings { mtu: 1500, mac: None };
        let (features, access) = (features::ALL, Access::default());
        SessionOptions { path, role, queue_pairs: 1, device, features, cable: true, access }
    }
}

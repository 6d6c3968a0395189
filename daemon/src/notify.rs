//! Reports the daemon's state to systemd (`sd_notify(3)`), if systemd asks for it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket that the service manager listens on.
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Interval at which to report that the daemon is alive, if the manager expects it.
    pub watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET` and `WATCHDOG_USEC`; without them, sends nothing.
    pub fn from_environment() -> Self {
        let socket = std::env::var("NOTIFY_SOCKET").ok().and_then(|path| open(&path));
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        // Half the time, as systemd advises, so that one late message does not end the daemon.
        let watchdog = micros.map(|micros: u64| Duration::from_micros((micros / 2).max(1000)));
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// Returns whether a service manager listens.
    pub fn has_manager(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends one state, such as `READY=1`.
    pub fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            tracing::warn!("service manager: {error}");
        }
    }
}

fn open(path: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    };
    Some((UnixDatagram::unbound().ok()?, address.ok()?))
}

//! A session: one thread that keeps a frontend connected.

use std::path::PathBuf;

use crate::features;
use crate::rings::Rings;

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
    /// The largest MTU, in bytes, that a VMM may tell its guest.
    pub mtu: u16,
    /// What may be offered, a mask of [`features::ALL`].
    pub features: u64,
}

impl SessionOptions {
    /// One pair of rings, 1500 bytes, all features.
    pub fn new(path: impl Into<PathBuf>, role: Role) -> SessionOptions {
        SessionOptions {
            path: path.into(),
            role,
            queue_pairs: 1,
            mtu: 1500,
            features: features::ALL,
        }
    }
}

/// Why a session could not be started; says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {}

/// What a session is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Waits for a frontend to connect.
    Listening,
    /// Looks for a frontend that listens.
    Connecting,
    /// Has a frontend.
    Connected,
    /// Has ended.
    Stopped,
}

/// A session at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    /// What it does.
    pub state: SessionState,
    /// Why the last connection ended, or why none comes about, unless it was a plain disconnect.
    pub last_error: Option<String>,
    /// How many connections there have been.
    pub connects: u64,
    /// What the driver has acknowledged; 0 without a driver.
    pub features: u64,
    /// Pairs of rings of which both run.
    pub queue_pairs_active: u16,
}

/// A running session. Dropping it stops it.
pub struct Session {
    handle: SessionHandle,
}

/// Looks at a session and closes its connection; usable from any thread.
#[derive(Clone)]
pub struct SessionHandle {}

impl Session {
    /// Starts a session.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn spawn(options: SessionOptions, rings: impl Rings) -> Result<Session, SessionError> {
        let _ = (options, rings);
        Ok(Session { handle: SessionHandle {} })
    }

    /// The session at this moment.
    pub fn status(&self) -> SessionStatus {
        self.handle.status()
    }

    /// A handle that outlives this value's borrow.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// Closes the connection, ends the thread and removes the socket file that it made.
    pub fn stop(self) {}
}

impl SessionHandle {
    /// The session at this moment.
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            state: SessionState::Stopped,
            last_error: None,
            connects: 0,
            features: 0,
            queue_pairs_active: 0,
        }
    }

    /// Closes the connection, if there is one; the frontend sees a disconnect and may come back.
    pub fn kick_out(&self, reason: &str) {
        let _ = reason;
    }
}

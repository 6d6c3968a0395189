//! The socket on which root approves what `tramad` may ask for.
//!
//! `tramactl`, run by root, sends the words of each command here before it sends the command to
//! `tramad`. Only root (and the user that runs the helper) can connect.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use trama_vhost_net_backend::{Access, Listening, OwnSockets, SocketError, SocketFile, Sockets};

use crate::rules::Rules;

/// How long one that connects may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between tries to listen.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest command in bytes.
const LONGEST: u64 = 64 << 10;

/// The listening socket.
pub(crate) struct Approvals {
    socket: std::os::unix::net::UnixListener,
    _file: Arc<dyn SocketFile>,
}

impl Approvals {
    /// Listens on `path`, for the helper's user alone.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn listen(path: &Path) -> Result<Approvals, SocketError> {
        let access = Access { mode: Some(0o600), ..Access::default() };
        let Listening { listener, file, .. } = listen(path, &access)?;
        Ok(Approvals { socket: listener, _file: file })
    }

    /// Serves one that has connected.
    pub(crate) fn serve(&self, rules: &mut Rules) {
        // One that went away again is no concern.
        let _ = self.try_serve(rules);
    }

    fn try_serve(&self, rules: &mut Rules) -> io::Result<()> {
        let (mut stream, _) = self.socket.accept()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        if !peer.is_root() && peer != geteuid() {
            return Ok(());
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut command = String::new();
        (&stream).take(LONGEST).read_to_string(&mut command)?;
        rules.approve(&command);
        stream.write_all(b"approved\n")
    }
}

/// Listens; waits for a moment if another helper still does, which is about to end with its daemon.
fn listen(path: &Path, access: &Access) -> Result<Listening, SocketError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match OwnSockets.listen(path, access) {
            Err(SocketError::InUse(_)) if Instant::now() < until => std::thread::sleep(PAUSE),
            made => return made,
        }
    }
}

impl AsFd for Approvals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

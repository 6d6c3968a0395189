//! The control socket: created unless another daemon listens there, and removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use trama_vhost_net_backend::{Access, bind};

use crate::Fault;

/// The listening control socket. Dropping it removes its file.
pub struct ControlSocket {
    path: PathBuf,
    /// Identifies the daemon's own file: another daemon's must not be removed.
    identity: Identity,
}

/// Device, inode and time of change; the inode number alone may soon be reused.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

impl ControlSocket {
    /// Creates the socket for the users of `access`, which may do everything, and its directory if
    /// that is missing. Replaces the socket of a daemon that has died.
    ///
    /// # Errors
    /// The socket cannot be made there; the fault says why.
    pub fn bind(path: &Path, access: &Access) -> Result<(Self, UnixListener), Fault> {
        let shown = path.display();
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(
                |error| Fault::plain(format!("{}: cannot be made: {error}", directory.display())),
            )?;
        }
        remove_stale(path)?;
        let error = |error: io::Error| {
            let remedy = "set another path as daemon.control, or run as its owner";
            Fault::new(format!("{shown}: {error}"), remedy)
        };
        let listener = bind(path, access).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        let identity = identity(path).map_err(error)?;
        Ok((Self { path: path.to_owned(), identity }, listener))
    }

    /// Leaves the file to another process, which removes it.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|found| found == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{}: {error}", self.path.display());
        }
    }
}

/// Removes a socket without a listener; any other file there is an error.
fn remove_stale(path: &Path) -> Result<(), Fault> {
    let shown = path.display();
    let failed = |error: io::Error| Fault::plain(format!("{shown}: {error}"));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Fault::new(format!("{shown}: is there and not a socket"), "move it away"));
        }
        Ok(_) => {}
    }
    match listens(path) {
        Ok(true) => {
            let message = format!("{shown}: another tramad listens there");
            Err(Fault::new(message, "stop it first"))
        }
        Ok(false) => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Returns whether a process listens at a Unix socket. One that takes no connections is not waited
/// for.
///
/// # Errors
/// There is no such socket, or it may not be connected to.
pub(crate) fn listens(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        // It has as many waiting already as it takes.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const OWN: Access = Access { owner: None, group: None, mode: Some(0o660) };

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let (socket, listener) = ControlSocket::bind(&path, &OWN).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let refused = ControlSocket::bind(&path, &OWN).err().unwrap().to_string();
        assert!(refused.contains("another tramad listens there; stop it first"), "{refused}");
        drop(listener);
        let (second, _listener) = ControlSocket::bind(&path, &OWN).unwrap();
        drop(socket);
        assert!(path.exists(), "a dead daemon's guard removes nobody else's socket");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let refused = ControlSocket::bind(&path, &OWN).err().unwrap().to_string();
        assert!(refused.contains("is there and not a socket; move it away"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        let blocked = path.join("deeper/control.sock");
        fs::write(&path, "").unwrap();
        let refused = ControlSocket::bind(&blocked, &OWN).err().unwrap().to_string();
        assert!(refused.contains("cannot be made"), "{refused}");
    }
}

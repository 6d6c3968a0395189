//! The Unix socket: never replaces another file or live socket, and removes only its own.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::access::{Access, BoundSocket, identity};

/// Bytes that fit in `sun_path` with its terminating zero.
const MAX_PATH: usize = 107;
/// Length of the listen queue, as the standard library has it.
const BACKLOG: i32 = 128;

/// Why a socket cannot be made; the text has the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit in a socket address.
    #[error("{}: the path has {} bytes, a socket's may have at most {MAX_PATH}; choose a shorter one",
        .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Another kind of file is there.
    #[error("{}: a file that is not a socket exists there; remove it or choose another path",
        .0.display())]
    NotASocket(PathBuf),
    /// Another process listens there.
    #[error("{}: another process listens on this socket; stop it or choose another path",
        .0.display())]
    InUse(PathBuf),
    /// The directory does not exist.
    #[error("{}: the directory does not exist; create it first", .0.display())]
    NoDirectory(PathBuf),
    /// No permission.
    #[error("{}: no permission to create a socket there; change the directory's owner or mode",
        .0.display())]
    Permission(PathBuf),
    /// Anything else.
    #[error("{}: {error}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A socket file that this process made. Dropping it removes the file if it is still the same.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    made: BoundSocket,
}

impl SocketFile {
    /// Identity of the file.
    pub(crate) fn made(&self) -> BoundSocket {
        self.made
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.made.identity) {
            // The process may have lost its permission on the directory; then the file stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Checks the path before there is a socket to connect to.
pub(crate) fn check_path(path: &Path) -> Result<(), SocketError> {
    if path.as_os_str().as_bytes().len() > MAX_PATH {
        return Err(SocketError::TooLong(path.into()));
    }
    Ok(())
}

/// Makes a listening socket at `path`, where no file is. Owner, group and mode are set before a
/// connection is possible.
///
/// # Errors
/// The socket cannot be made, or its owner, group or mode cannot be set; no socket is left there.
pub fn bind(path: &Path, access: &Access) -> io::Result<UnixListener> {
    bind_and_stat(path, access).map(|(listener, _)| listener)
}

fn bind_and_stat(path: &Path, access: &Access) -> io::Result<(UnixListener, BoundSocket)> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    match access.apply(path).and_then(|file| Ok((file, rustix::net::listen(&socket, BACKLOG)?))) {
        Ok((file, ())) => Ok((socket.into(), file)),
        Err(error) => {
            // The first error matters more than a failure to remove it.
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Listens on `path`. Replaces a socket file on which no process listens any more.
pub(crate) fn listen(
    path: &Path,
    access: &Access,
) -> Result<(UnixListener, SocketFile), SocketError> {
    check_path(path)?;
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SocketError::NoDirectory(path.into()),
        // Setting owner, group or mode failed, which has its own message.
        io::ErrorKind::PermissionDenied if error.get_ref().is_none() => {
            SocketError::Permission(path.into())
        }
        io::ErrorKind::AddrInUse => SocketError::InUse(path.into()),
        _ => SocketError::System { path: path.into(), error },
    };
    remove_stale(path).map_err(explain)??;
    let (listener, made) = bind_and_stat(path, access).map_err(explain)?;
    let file = SocketFile { path: path.into(), made };
    listener.set_nonblocking(true).map_err(explain)?;
    Ok((listener, file))
}

/// Removes a socket file that refuses connections.
fn remove_stale(path: &Path) -> io::Result<Result<(), SocketError>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Ok(Err(SocketError::NotASocket(path.into())));
        }
        Ok(_) => {}
    }
    match try_connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Ok(_) | Err(_) => return Ok(Err(SocketError::InUse(path.into()))),
    }
    Ok(Ok(()))
}

/// Connects without waiting: a listener whose queue is full is an error.
pub(crate) fn try_connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

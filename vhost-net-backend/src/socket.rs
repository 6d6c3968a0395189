//! The Unix socket: never replaces another file or live socket, and removes only its own.
//!
//! [`Sockets`] makes them: in this process, or in one that has the permissions that this one lacks.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::access::{Access, BoundSocket, explain_denied, identity, restricted_access};

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
    /// The process that makes the sockets refused; its text has the place and the remedy.
    #[error("{0}")]
    Refused(String),
}

/// Makes the sockets of sessions.
pub trait Sockets: fmt::Debug + Send + Sync {
    /// Listens on `path`. Replaces a socket file on which no process listens any more.
    ///
    /// # Errors
    /// The socket cannot be made.
    fn listen(&self, path: &Path, access: &Access) -> Result<Listening, SocketError>;

    /// Connects to `path` without waiting.
    ///
    /// # Errors
    /// No connection can be made; the text says why.
    fn connect(&self, path: &Path) -> Result<UnixStream, String>;
}

/// A listening socket; non-blocking.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub listener: UnixListener,
    /// Its file.
    pub file: Arc<dyn SocketFile>,
    /// A note for the log if not every user may connect.
    pub note: Option<String>,
}

/// The file of a listening socket. Dropping it removes the file if it is still the same.
pub trait SocketFile: fmt::Debug + Send + Sync {
    /// Changes owner, group and mode of the file; what `access` leaves open becomes what it was
    /// when the file was made.
    ///
    /// # Errors
    /// They cannot be set, or the file was replaced.
    fn set_access(&self, access: &Access) -> io::Result<()>;
}

/// Makes sockets in this process.
#[derive(Clone, Copy, Default, Debug)]
pub struct OwnSockets;

impl Sockets for OwnSockets {
    fn listen(&self, path: &Path, access: &Access) -> Result<Listening, SocketError> {
        let (listener, file) = listen(path, access)?;
        Ok(Listening { listener, file: Arc::new(file), note: restricted_access(path) })
    }

    fn connect(&self, path: &Path) -> Result<UnixStream, String> {
        try_connect(path).map_err(|error| explain_connect(path, &error))
    }
}

/// A socket file that this process made.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    made: BoundSocket,
}

/// Takes over the socket file at `path`, which another process has made: it is removed when the
/// returned value is dropped, if it is still the same.
///
/// # Errors
/// There is no socket.
pub fn take_over(path: &Path) -> io::Result<Arc<dyn SocketFile>> {
    let made = Access::default().apply(path)?;
    Ok(Arc::new(OwnFile { path: path.to_owned(), made }))
}

impl OwnFile {
    /// Whether the file is still there, and not another process's that has taken the path.
    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.made.identity)
    }
}

impl SocketFile for OwnFile {
    fn set_access(&self, access: &Access) -> io::Result<()> {
        if !self.is_there() {
            return Err(io::Error::other(
                "the socket was removed or replaced; unplug the cable and plug it in again to \
                 create a new one",
            ));
        }
        access.or(self.made.access).apply(&self.path).map(drop)
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.is_there() {
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
    bind_and_stat(path, access, SocketType::STREAM).map(|(listener, _)| listener.into())
}

/// Makes a socket of this type, which listens if it can.
fn bind_and_stat(
    path: &Path,
    access: &Access,
    kind: SocketType,
) -> io::Result<(OwnedFd, BoundSocket)> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let listen = || match kind {
        SocketType::DGRAM => Ok(()),
        _ => rustix::net::listen(&socket, BACKLOG),
    };
    match access.apply(path).and_then(|file| Ok((file, listen()?))) {
        Ok((file, ())) => Ok((socket, file)),
        Err(error) => {
            // The first error matters more than a failure to remove it.
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

fn listen(path: &Path, access: &Access) -> Result<(UnixListener, OwnFile), SocketError> {
    let (socket, file) = make(path, access, SocketType::STREAM)?;
    let (listener, path) = (UnixListener::from(socket), path.to_owned());
    let nonblocking = listener.set_nonblocking(true);
    nonblocking.map_err(|error| SocketError::System { path, error })?;
    Ok((listener, file))
}

/// A Unix socket for datagrams.
#[derive(Debug)]
pub struct BoundDatagrams {
    /// The socket.
    pub socket: OwnedFd,
    /// Its file.
    pub file: Arc<dyn SocketFile>,
    /// A note for the log if not every user may send to it.
    pub note: Option<String>,
}

/// Makes a Unix socket for datagrams at `path`. Replaces a socket file that no process has any
/// more.
///
/// # Errors
/// The socket cannot be made.
pub fn bind_datagrams(path: &Path, access: &Access) -> Result<BoundDatagrams, SocketError> {
    let (socket, file) = make(path, access, SocketType::DGRAM)?;
    Ok(BoundDatagrams { socket, file: Arc::new(file), note: restricted_access(path) })
}

fn make(path: &Path, access: &Access, kind: SocketType) -> Result<(OwnedFd, OwnFile), SocketError> {
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
    let (socket, made) = bind_and_stat(path, access, kind).map_err(explain)?;
    Ok((socket, OwnFile { path: path.into(), made }))
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
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            match fs::remove_file(path) {
                // The one that made it was about to remove it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Ok(_) | Err(_) => return Ok(Err(SocketError::InUse(path.into()))),
    }
    Ok(Ok(()))
}

/// Connects without waiting: a listener whose queue is full is an error.
fn try_connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn explain_connect(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the frontend has not created its socket yet".into(),
        io::ErrorKind::ConnectionRefused => "no frontend listens on the socket".into(),
        io::ErrorKind::PermissionDenied => explain_denied(path),
        io::ErrorKind::WouldBlock => "the frontend does not accept connections".into(),
        _ => format!("cannot connect: {error}"),
    }
}

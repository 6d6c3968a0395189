//! Starts a keeper, and finds one that runs.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::geteuid;
use trama_sandbox::{Mode, spawn_as};

use crate::channel::limit_waiting;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Starts the process of a keeper that listens at `path`; it outlives this one. `channel` is the
/// keeper's end of a channel to its first switch, for which others that connect wait. `user`: the
/// user and group that it has in the place of this process's.
///
/// # Errors
/// A keeper listens there already, the socket cannot be made, or the process not be started.
pub fn spawn(
    path: &Path,
    mode: Mode,
    channel: OwnedFd,
    user: Option<(u32, u32)>,
) -> io::Result<Child> {
    let listener = listen_at(path)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("trama:keeper").args(["keeper", "--sandbox", mode.name()]);
    // A process group of its own: a terminal's interrupt goes to the daemon alone.
    command.stdin(Stdio::from(listener)).stdout(Stdio::from(channel)).process_group(0);
    let Some((owner, group)) = user else { return command.spawn() };
    lchown(path, Some(owner), Some(group))?;
    spawn_as(&mut command, (owner, group))
}

/// Makes the socket at which a keeper listens, for this user alone. Replaces that of a keeper that
/// has ended.
///
/// # Errors
/// A keeper listens there, another file is there, or the system refuses.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    if connect_to(path)?.is_some() {
        let text = format!("{}: a keeper listens there already", path.display());
        return Err(io::Error::new(ErrorKind::AddrInUse, text));
    }
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let socket = open_socket()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // No connection is made before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Connects to the keeper that listens at `path`; `None` if no keeper does.
///
/// # Errors
/// A process of another user listens there, or the system refuses.
pub fn connect_to(path: &Path) -> io::Result<Option<OwnedFd>> {
    let socket = open_socket()?;
    limit_waiting(&socket)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let owner = socket_peercred(&socket)?.uid;
    if owner != geteuid() && !owner.is_root() {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("{}: a process of user {owner} listens there", path.display()),
        ));
    }
    Ok(Some(socket))
}

fn open_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

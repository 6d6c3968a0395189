//! The channel to the helper process.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, socketpair,
};
use trama_keeper::wire::{Message, receive, send};

use crate::request::{Answer, LONGEST, Reply, Request};

/// How long an answer may take: the slowest requests write to a disk.
const PATIENCE: Duration = Duration::from_secs(30);

const ENDED: &str = "the helper has ended; tramad --take-over replaces it without a gap, as does \
                     systemctl restart trama for the service";

/// A running helper. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    /// `None` after a failure: a late answer would be taken for that of the next request.
    socket: Mutex<Option<OwnedFd>>,
    /// `None` if another process has started it: a stand-in is a child of its helper.
    process: Mutex<Option<Child>>,
}

impl Client {
    /// Starts the helper: `program` with the argument `helper`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(crate) fn start(program: &Path) -> io::Result<Client> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // A process group of its own: a terminal's interrupt goes to the daemon alone.
        let process = Command::new(program)
            .arg0("trama:helper")
            .arg("helper")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Client::new(ours, Some(process))
    }

    /// Connects to the socket at which a service manager starts helpers.
    ///
    /// # Errors
    /// No such socket is there, or it is not for this process's user.
    pub(crate) fn connect(path: &Path) -> io::Result<Client> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Client::new(socket, None)
    }

    /// Uses the helper at the other end of a channel, which has started this process.
    ///
    /// # Errors
    /// It is no socket.
    pub(crate) fn at(socket: OwnedFd) -> io::Result<Client> {
        Client::new(socket, None)
    }

    fn new(socket: OwnedFd, process: Option<Child>) -> io::Result<Client> {
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        Ok(Client { socket: Mutex::new(Some(socket)), process: Mutex::new(process) })
    }

    /// Returns a descriptor that reports a hang-up when the helper has ended; `None` if it has.
    pub(crate) fn end_event(&self) -> Option<OwnedFd> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.as_ref()?.try_clone().ok()
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Answer {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = socket.as_ref() else {
            return Err(ENDED.into());
        };
        let asked =
            send(open, request, fds, LONGEST).and_then(|()| receive::<Reply>(open, LONGEST));
        match asked {
            Ok(Some(Message { body: Reply::Refused(text), .. })) => Err(text),
            Ok(Some(Message { body, fds })) => Ok((body, fds)),
            Ok(None) => {
                *socket = None;
                Err(ENDED.into())
            }
            Err(error) => {
                *socket = None;
                let is_closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                Err(match is_closed.contains(&error.kind()) {
                    true => ENDED.into(),
                    false => format!(
                        "the helper does not answer: {error}; tramad --take-over replaces it"
                    ),
                })
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The helper ends when its channel closes.
        *self.socket.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(process) = self.process.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = process.wait();
        }
    }
}

//! The channel to the helper process.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with, socketpair,
};
use trama_keeper::wire::{Message, receive, send};

use crate::request::{Answer, LONGEST, Reply, Request};

/// How long an answer may take: the slowest requests write to a disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take once this process ends, and the end of the helper's process after
/// that of its channel.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks at what is awaited at the end.
const PAUSE: Duration = Duration::from_millis(5);

const ENDED: &str = "the helper has ended; tramad --take-over replaces it without a gap, as does \
                     systemctl restart trama for the service";

/// A running helper. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    /// `None` after a failure: a late answer would be taken for that of the next request.
    socket: Mutex<Option<OwnedFd>>,
    /// The same, to break it off while a request waits for its answer.
    handle: OwnedFd,
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
        let handle = socket.try_clone()?;
        Ok(Client { socket: Mutex::new(Some(socket)), handle, process: Mutex::new(process) })
    }

    /// Returns a descriptor that reports a hang-up when the helper has ended; `None` if it has.
    pub(crate) fn end_event(&self) -> Option<OwnedFd> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.as_ref()?.try_clone().ok()
    }

    /// Waits no longer than two seconds for answers from now on, nor for that of a request that
    /// waits already: this process ends, and a helper that hangs must not delay it.
    pub(crate) fn hurry(&self) {
        let _ = set_socket_timeout(&self.handle, Timeout::Recv, Some(GRACE));
        let _ = set_socket_timeout(&self.handle, Timeout::Send, Some(GRACE));
        let is_free = || !matches!(self.socket.try_lock(), Err(TryLockError::WouldBlock));
        if !within_grace(is_free) {
            let _ = shutdown(&self.handle, Shutdown::Both);
        }
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
        let _ = shutdown(&self.handle, Shutdown::Both);
        if let Some(process) = self.process.get_mut().unwrap_or_else(PoisonError::into_inner)
            && !within_grace(|| !matches!(process.try_wait(), Ok(None)))
        {
            // It hangs. What it still had to do is lost with this process.
            let _ = process.kill();
        }
    }
}

/// Waits until `holds`, for the time of grace at most; returns whether it does.
fn within_grace(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + GRACE;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_hangs_delays_the_end_by_its_grace_alone() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        // It reads nothing, and does not end with its channel.
        let mut hung = Command::new("sleep");
        let hung = hung.arg("1000").stdin(Stdio::from(theirs)).spawn().unwrap();
        let client = Client::new(ours, Some(hung)).unwrap();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| client.ask(&Request::Started, &[]));
            // Until that request has the channel.
            while client.socket.try_lock().is_ok() {
                std::thread::yield_now();
            }
            client.hurry();
            assert!(client.ask(&Request::End { hands_over: false }, &[]).is_err());
            assert!(waits.join().unwrap().is_err());
        });
        drop(client);
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    }
}

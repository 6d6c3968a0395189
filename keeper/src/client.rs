//! The switch's side of its channel to the keeper.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen,
    shutdown, socket_with,
};
use rustix::process::geteuid;
use trama_sandbox::Mode;

use crate::request::{Claim, LONGEST, Reply, Request, VERSION};
use crate::wire::{Message, receive_into, send};

/// How long an answer may take, and how long the previous switch may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A channel to the keeper. Clones share it; it closes with the last one, and the keeper then takes
/// the switch for dead.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Channel>);

#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    /// Held from a request to its answer.
    asking: Mutex<()>,
    /// Whether an answer did not come: a late one would be taken for that of the next request.
    is_broken: AtomicBool,
    /// Readable when this switch must freeze, and when the previous one is gone.
    events: OnceLock<[OwnedFd; 2]>,
    /// The process, if this one has started it.
    process: Mutex<Option<Child>>,
}

/// How a switch has attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Whether another switch was attached before, so that there may be something to resume.
    pub resumes: bool,
    /// How many switches were attached before.
    pub restarts: u64,
    /// The process of the switch that still runs; [`Keeper::go`] ends it.
    pub previous: Option<i32>,
    /// What of the keeper's sandbox is not in force, each with its reason.
    pub missing: Vec<String>,
}

/// Why a switch cannot attach.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another switch is attached.
    #[error("another switch runs already, as process {pid}")]
    Busy {
        /// Its process.
        pid: i32,
    },
    /// The keeper is of another version.
    #[error("the keeper that runs speaks version {keeper} of its protocol, this program {VERSION}")]
    Version {
        /// The version that the keeper speaks.
        keeper: u32,
    },
    /// The keeper does not answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// An entry.
#[derive(Debug)]
pub struct Kept {
    /// Its value.
    pub value: Vec<u8>,
    /// Its descriptors, in the order in which they were put.
    pub fds: Vec<OwnedFd>,
}

/// A connection of a frontend that goes on.
#[derive(Debug)]
pub struct Resumed {
    /// The value that [`Keeper::relay`] was given.
    pub value: Vec<u8>,
    /// The messages arrive here: first those that made the state, then new ones.
    pub stream: UnixStream,
    /// How many messages are of the past. Their replies go nowhere.
    pub messages: usize,
}

impl Keeper {
    /// Connects to the keeper that listens at `path`; `None` if no keeper does.
    ///
    /// # Errors
    /// A process of another user listens there, or the system refuses.
    pub fn find(path: &Path) -> io::Result<Option<Keeper>> {
        let socket = open_socket()?;
        // Connecting waits, too, if many wait already.
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
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
        Ok(Some(Keeper(Arc::new(Channel {
            socket,
            asking: Mutex::default(),
            is_broken: AtomicBool::new(false),
            events: OnceLock::new(),
            process: Mutex::default(),
        }))))
    }

    /// Starts a keeper that listens at `path`, and connects to it. It is a child of this process
    /// and outlives it.
    ///
    /// # Errors
    /// A keeper listens there already, the socket cannot be made, or the process not be started.
    pub fn start(path: &Path, mode: Mode) -> io::Result<Keeper> {
        let listener = listen_at(path)?;
        // A process group of its own: a terminal's interrupt goes to the daemon alone.
        let process = Command::new("/proc/self/exe")
            .arg0("trama:keeper")
            .args(["keeper", "--sandbox", mode.name()])
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let keeper = Keeper::find(path)?.ok_or(ErrorKind::ConnectionRefused)?;
        *keeper.process() = Some(process);
        Ok(keeper)
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches this process as the switch, or as its successor.
    ///
    /// # Errors
    /// Another switch is attached that `claim` does not replace, or the keeper is of another
    /// version.
    pub fn attach(&self, claim: Claim) -> Result<Attached, AttachError> {
        let request = Request::Attach { version: VERSION, claim };
        let answer = self.ask(&request, &[], |reply, fds| match reply {
            Reply::Attached { restarts, previous, missing } => {
                let events: [OwnedFd; 2] =
                    fds.try_into().map_err(|_| io::Error::other("an answer lacks descriptors"))?;
                let _ = self.0.events.set(events);
                Ok(Ok(Attached { resumes: restarts > 0, restarts, previous, missing }))
            }
            Reply::Busy { pid } => Ok(Err(AttachError::Busy { pid })),
            Reply::Version { version } => Ok(Err(AttachError::Version { keeper: version })),
            other => Err(unexpected(&other)),
        });
        answer?
    }

    /// Keeps an entry: at most [`LONGEST_VALUE`](crate::LONGEST_VALUE) bytes and
    /// [`MOST_DESCRIPTORS`](crate::wire::MOST_DESCRIPTORS) descriptors. Replaces that with the same
    /// key. When this returns, the entry outlives the process.
    ///
    /// # Errors
    /// The keeper refuses for want of room or of descriptors, or does not answer; the text says
    /// which. What was kept before stays.
    pub fn put(&self, key: &str, value: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.ask(&Request::Put { key, value }, fds, expect_ok)
    }

    /// Returns an entry, which stays kept; `None` if there is none.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn get(&self, key: &str) -> io::Result<Option<Kept>> {
        self.ask(&Request::Get { key }, &[], |reply, fds| match reply {
            Reply::Kept { value } => Ok(Some(Kept { value: value.to_vec(), fds })),
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        })
    }

    /// Drops an entry, if there is one; once the previous switch is gone, if that still runs.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        self.ask(&Request::Remove { key }, &[], expect_ok)
    }

    /// Drops all entries that this switch has neither got nor put, and all connections that it has
    /// neither relayed nor resumed; returns their keys.
    ///
    /// # Errors
    /// The previous switch still runs, or the keeper does not answer.
    pub fn settle(&self) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            let (dropped, more) = self.ask(&Request::Settle, &[], |reply, _| match reply {
                Reply::Settled { dropped, more } => Ok((dropped, more)),
                other => Err(unexpected(&other)),
            })?;
            all.extend(dropped);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Tells the previous switch to freeze and returns when it is gone; at once, if there is none.
    /// Other requests may be made meanwhile.
    ///
    /// # Errors
    /// It does not end within 30 seconds, or the keeper does not answer.
    pub fn go(&self) -> io::Result<()> {
        let is_gone = self.ask(&Request::Go, &[], |reply, _| match reply {
            Reply::Going { is_gone } => Ok(is_gone),
            other => Err(unexpected(&other)),
        })?;
        let Some([_, gone]) = self.0.events.get().filter(|_| !is_gone) else { return Ok(()) };
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = "the previous switch does not end; end its process";
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            let ends = PollFlags::RDHUP;
            let mut fds = [PollFd::new(gone, PollFlags::IN), PollFd::new(&self.0.socket, ends)];
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if !fds[1].revents().is_empty() {
                return Err(ended());
            }
        }
    }

    /// Keeps the connection of a frontend. Returns the stream on which its messages arrive and
    /// replies are sent. [`Keeper::done`] must follow each message. Replaces the connection with
    /// the same key, which is closed.
    ///
    /// # Errors
    /// The keeper refuses or does not answer; the connection is closed.
    pub fn relay(&self, key: &str, value: &[u8], frontend: UnixStream) -> io::Result<UnixStream> {
        let request = Request::Relay { key, value };
        self.ask(&request, &[frontend.as_fd()], |reply, fds| match reply {
            Reply::Relayed => stream_of(fds),
            other => Err(unexpected(&other)),
        })
    }

    /// Goes on with the connection of a frontend; `None` if there is none.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn resume(&self, key: &str) -> io::Result<Option<Resumed>> {
        self.ask(&Request::Resume { key }, &[], |reply, fds| match reply {
            Reply::Resumed { value, messages } => {
                let stream = stream_of(fds)?;
                Ok(Some(Resumed { value: value.to_vec(), stream, messages }))
            }
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        })
    }

    /// A message was served and its reply, if it has one, written to the stream. Does not wait.
    ///
    /// # Errors
    /// The channel is closed.
    pub fn done(&self, key: &str) -> io::Result<()> {
        send(&self.0.socket, &Request::Done { key }, &[], LONGEST)
    }

    /// Closes the connection of a frontend, if there is one. Replies that were written reach it.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn close(&self, key: &str) -> io::Result<()> {
        self.ask(&Request::Close { key }, &[], expect_ok)
    }

    /// A descriptor that becomes readable when this switch must hand over: it stops its workers and
    /// ends. `None` before it has attached.
    pub fn freeze_event(&self) -> Option<BorrowedFd<'_>> {
        self.0.events.get().map(|[freeze, _]| freeze.as_fd())
    }

    /// Tells the keeper that this switch is gone, before the process is: the kernel first frees its
    /// memory, which takes long if that is much. What it has kept stays.
    pub fn leave(&self) {
        // Closed already if the keeper has ended.
        let _ = shutdown(&self.0.socket, Shutdown::Both);
    }

    /// Forgets that this switch was told to hand over, as the one that asked for it is gone.
    /// Returns whether it was told.
    pub fn forget_freeze(&self) -> bool {
        let freeze = self.freeze_event();
        freeze.is_some_and(|event| rustix::io::read(event, &mut [0; 8]).is_ok())
    }

    /// Drops everything and ends the keeper; if another switch is attached, that one goes on with
    /// all of it instead.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn end(&self) -> io::Result<()> {
        let is_last = self.ask(&Request::End, &[], |reply, _| match reply {
            Reply::Ended { is_last } => Ok(is_last),
            other => Err(unexpected(&other)),
        })?;
        if is_last && let Some(mut process) = self.process().take() {
            process.wait()?;
        }
        Ok(())
    }

    /// Sends a request and reads its answer.
    fn ask<T>(
        &self,
        request: &Request<'_>,
        fds: &[BorrowedFd<'_>],
        read: impl FnOnce(Reply<'_>, Vec<OwnedFd>) -> io::Result<T>,
    ) -> io::Result<T> {
        let _asking = self.0.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_broken.load(Ordering::Relaxed) {
            return Err(ended());
        }
        // A request that is not sent has no answer.
        send(&self.0.socket, request, fds, LONGEST).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => ended(),
            _ => error,
        })?;
        let mut bytes = vec![0; LONGEST];
        let answer = match receive_into::<Reply<'_>>(&self.0.socket, &mut bytes) {
            Ok(Some(Message { body: Reply::Refused(text), .. })) => {
                return Err(io::Error::other(text.to_owned()));
            }
            Ok(Some(Message { body, fds })) => return read(body, fds),
            Ok(None) => ended(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => ended(),
            Err(error) => io::Error::other(format!("the keeper does not answer: {error}")),
        };
        self.0.is_broken.store(true, Ordering::Relaxed);
        Err(answer)
    }
}

fn open_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Makes the socket at which a keeper listens, for this user alone. Replaces that of a keeper that
/// has ended.
///
/// # Errors
/// A keeper listens there, another file is there, or the system refuses.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    if Keeper::find(path)?.is_some() {
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

fn expect_ok(reply: Reply<'_>, _: Vec<OwnedFd>) -> io::Result<()> {
    match reply {
        Reply::Ok => Ok(()),
        other => Err(unexpected(&other)),
    }
}

fn stream_of(fds: Vec<OwnedFd>) -> io::Result<UnixStream> {
    let stream = fds.into_iter().next().map(UnixStream::from);
    stream.ok_or_else(|| io::Error::other("an answer lacks its stream"))
}

fn unexpected(reply: &Reply<'_>) -> io::Error {
    io::Error::other(format!("unexpected answer of the keeper: {reply:?}"))
}

fn ended() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the keeper has ended")
}

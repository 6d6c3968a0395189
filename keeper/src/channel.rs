//! The channel to a keeper: requests and their answers, one at a time.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::request::{Claim, LONGEST, Reply, Request, VERSION};
use crate::wire::{Message, receive_into, send};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the previous switch may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// How a switch has attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Whether another switch was attached before, so that there may be something to resume.
    pub resumes: bool,
    /// How many switches were attached before.
    pub restarts: u64,
    /// The process of the switch that still runs; [`Keeper::go`](crate::Keeper::go) ends it.
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

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) socket: OwnedFd,
    /// Held from a request to its answer.
    asking: Mutex<()>,
    /// Whether an answer did not come: a late one would be taken for that of the next request.
    is_broken: AtomicBool,
    /// Readable when this switch must freeze, and when the previous one is gone.
    pub(crate) events: OnceLock<[OwnedFd; 2]>,
}

/// Sets how long a socket waits: connecting waits, too, if many wait already.
pub(crate) fn limit_waiting(socket: &OwnedFd) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(set_socket_timeout(socket, Timeout::Send, Some(PATIENCE))?)
}

impl Channel {
    /// Makes a channel to a keeper that is yet to be started; also returns the keeper's end.
    pub(crate) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        limit_waiting(&ours)?;
        Ok((Channel::new(ours), theirs))
    }

    /// The channel over a socket that is connected to a keeper.
    pub(crate) fn new(socket: OwnedFd) -> Channel {
        Channel {
            socket,
            asking: Mutex::default(),
            is_broken: AtomicBool::new(false),
            events: OnceLock::new(),
        }
    }

    /// Attaches this process.
    pub(crate) fn attach(&self, claim: Claim) -> Result<Attached, AttachError> {
        let request = Request::Attach { version: VERSION, claim };
        let answer = self.ask(&request, &[], |reply, fds| match reply {
            Reply::Attached { restarts, previous, missing } => {
                let events: [OwnedFd; 2] =
                    fds.try_into().map_err(|_| io::Error::other("an answer lacks descriptors"))?;
                let _ = self.events.set(events);
                Ok(Ok(Attached { resumes: restarts > 0, restarts, previous, missing }))
            }
            Reply::Busy { pid } => Ok(Err(AttachError::Busy { pid })),
            Reply::Version { version } => Ok(Err(AttachError::Version { keeper: version })),
            other => Err(unexpected(&other)),
        });
        answer?
    }

    /// Keeps an entry.
    pub(crate) fn put(&self, key: &str, value: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.ask(&Request::Put { key, value }, fds, expect_ok)
    }

    /// Drops what this switch has not claimed; returns the keys.
    pub(crate) fn settle(&self) -> io::Result<Vec<String>> {
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

    /// Waits until the previous switch is gone.
    pub(crate) fn wait_until_gone(&self) -> io::Result<()> {
        let Some([_, gone]) = self.events.get() else { return Ok(()) };
        let until = Instant::now() + ENDING;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = "the previous switch does not end; end its process";
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            let ends = PollFlags::RDHUP;
            let mut fds = [PollFd::new(gone, PollFlags::IN), PollFd::new(&self.socket, ends)];
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

    /// Closes it in both directions.
    pub(crate) fn leave(&self) {
        // Closed already if the keeper has ended.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask<T>(
        &self,
        request: &Request<'_>,
        fds: &[BorrowedFd<'_>],
        read: impl FnOnce(Reply<'_>, Vec<OwnedFd>) -> io::Result<T>,
    ) -> io::Result<T> {
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(ended());
        }
        // A request that is not sent has no answer.
        send(&self.socket, request, fds, LONGEST).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => ended(),
            _ => error,
        })?;
        let mut bytes = vec![0; LONGEST];
        let answer = match receive_into::<Reply<'_>>(&self.socket, &mut bytes) {
            Ok(Some(Message { body: Reply::Refused(text), .. })) => {
                return Err(io::Error::other(text.to_owned()));
            }
            Ok(Some(Message { body, fds })) => return read(body, fds),
            Ok(None) => ended(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => ended(),
            Err(error) => io::Error::other(format!("the keeper does not answer: {error}")),
        };
        self.is_broken.store(true, Ordering::Relaxed);
        Err(answer)
    }
}

pub(crate) fn expect_ok(reply: Reply<'_>, _: Vec<OwnedFd>) -> io::Result<()> {
    match reply {
        Reply::Ok => Ok(()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn unexpected(reply: &Reply<'_>) -> io::Error {
    io::Error::other(format!("unexpected answer of the keeper: {reply:?}"))
}

fn ended() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the keeper has ended")
}

//! The switch's side of its channel to the keeper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use trama_sandbox::Mode;

use crate::channel::{AttachError, Attached, Channel, expect_ok, limit_waiting, unexpected};
use crate::copies::Copies;
use crate::request::{Claim, LONGEST, Reply, Request};
use crate::start::{connect_to, spawn};
use crate::wire::send;

/// A channel to the keeper. Clones share it; it closes with the last one, and the keeper then takes
/// the switch for dead.
#[derive(Clone, Debug)]
pub struct Keeper(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    /// The channel to the keeper that runs now.
    channel: Mutex<Arc<Channel>>,
    /// As what this switch has attached.
    pub(crate) claim: OnceLock<Claim>,
    /// Whether another switch still serves.
    pub(crate) is_successor: AtomicBool,
    /// The entries, for a keeper in the place of this one.
    copies: Mutex<Copies>,
    /// The process, if this one has started it.
    process: Mutex<Option<Child>>,
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
        Ok(connect_to(path)?.map(|socket| Keeper::over(Channel::new(socket))))
    }

    /// Uses a connection to a keeper that another process has made.
    ///
    /// # Errors
    /// It is no socket.
    pub fn on(socket: OwnedFd) -> io::Result<Keeper> {
        limit_waiting(&socket)?;
        Ok(Keeper::over(Channel::new(socket)))
    }

    /// Starts a keeper that listens at `path`, and attaches as its first switch. It is a child of
    /// this process and outlives it.
    ///
    /// # Errors
    /// A keeper listens there already, the socket cannot be made, or the process not be started.
    pub fn start(path: &Path, mode: Mode, claim: Claim) -> io::Result<(Keeper, Attached)> {
        Keeper::start_by(claim, |channel| spawn(path, mode, channel, None).map(Some))
    }

    /// The same; `start` starts the keeper, with its end of a channel, and returns the process if
    /// it is a child of this one.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_by(
        claim: Claim,
        start: impl FnOnce(OwnedFd) -> io::Result<Option<Child>>,
    ) -> io::Result<(Keeper, Attached)> {
        let (channel, theirs) = Channel::pair()?;
        let process = start(theirs)?;
        let keeper = Keeper::over(channel);
        *keeper.process() = process;
        let attached = keeper.attach(claim).map_err(io::Error::other)?;
        // Others may connect from now on.
        keeper.settle()?;
        Ok((keeper, attached))
    }

    fn over(channel: Channel) -> Keeper {
        Keeper(Arc::new(Shared {
            channel: Mutex::new(Arc::new(channel)),
            claim: OnceLock::new(),
            is_successor: AtomicBool::new(false),
            copies: Mutex::default(),
            process: Mutex::default(),
        }))
    }

    pub(crate) fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> MutexGuard<'_, Arc<Channel>> {
        self.0.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> Arc<Channel> {
        self.current().clone()
    }

    pub(crate) fn copies(&self) -> MutexGuard<'_, Copies> {
        self.0.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches this process as the switch, or as its successor.
    ///
    /// # Errors
    /// Another switch is attached that `claim` does not replace, or the keeper is of another
    /// version.
    pub fn attach(&self, claim: Claim) -> Result<Attached, AttachError> {
        let attached = self.channel().attach(claim)?;
        let _ = self.0.claim.set(claim);
        self.0.is_successor.store(attached.previous.is_some(), Ordering::Relaxed);
        Ok(attached)
    }

    /// Keeps an entry: at most [`LONGEST_VALUE`](crate::LONGEST_VALUE) bytes and
    /// [`MOST_DESCRIPTORS`](crate::wire::MOST_DESCRIPTORS) descriptors. Replaces that with the same
    /// key. When this returns, the entry outlives the process.
    ///
    /// # Errors
    /// The keeper refuses for want of room or of descriptors, or does not answer; the text says
    /// which. What was kept before stays.
    pub fn put(&self, key: &str, value: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Locked first: a new keeper is given either this entry or the one before it.
        let mut copies = self.copies();
        self.channel().put(key, value, fds)?;
        copies.insert(key, value, fds);
        Ok(())
    }

    /// Returns an entry, which stays kept; `None` if there is none.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn get(&self, key: &str) -> io::Result<Option<Kept>> {
        let mut copies = self.copies();
        let kept = self.channel().ask(&Request::Get { key }, &[], |reply, fds| match reply {
            Reply::Kept { value } => Ok(Some(Kept { value: value.to_vec(), fds })),
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        })?;
        if let Some(Kept { value, fds }) = &kept {
            copies.insert(key, value, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
        }
        Ok(kept)
    }

    /// Drops an entry, if there is one; once the previous switch is gone, if that still runs.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        let mut copies = self.copies();
        copies.remove(key);
        self.channel().ask(&Request::Remove { key }, &[], expect_ok)
    }

    /// Drops all entries that this switch has neither got nor put, and all connections that it has
    /// neither relayed nor resumed; returns their keys.
    ///
    /// # Errors
    /// The previous switch still runs, or the keeper does not answer.
    pub fn settle(&self) -> io::Result<Vec<String>> {
        self.channel().settle()
    }

    /// Tells the previous switch to freeze and returns when it is gone; at once, if there is none.
    /// Other requests may be made meanwhile.
    ///
    /// # Errors
    /// It does not end within 10 seconds, or the keeper does not answer.
    pub fn go(&self) -> io::Result<()> {
        let channel = self.channel();
        let is_gone = channel.ask(&Request::Go, &[], |reply, _| match reply {
            Reply::Going { is_gone } => Ok(is_gone),
            other => Err(unexpected(&other)),
        })?;
        if !is_gone {
            channel.wait_until_gone()?;
        }
        self.0.is_successor.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the connection of a frontend. Returns the stream on which its messages arrive and
    /// replies are sent. [`Keeper::done`] must follow each message. Replaces the connection with
    /// the same key, which is closed.
    ///
    /// # Errors
    /// The keeper refuses or does not answer; the connection is closed.
    pub fn relay(&self, key: &str, value: &[u8], frontend: UnixStream) -> io::Result<UnixStream> {
        let request = Request::Relay { key, value };
        self.channel().ask(&request, &[frontend.as_fd()], |reply, fds| match reply {
            Reply::Relayed => stream_of(fds),
            other => Err(unexpected(&other)),
        })
    }

    /// Goes on with the connection of a frontend; `None` if there is none.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn resume(&self, key: &str) -> io::Result<Option<Resumed>> {
        self.channel().ask(&Request::Resume { key }, &[], |reply, fds| match reply {
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
        send(&self.channel().socket, &Request::Done { key }, &[], LONGEST)
    }

    /// Closes the connection of a frontend, if there is one. Replies that were written reach it.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn close(&self, key: &str) -> io::Result<()> {
        self.channel().ask(&Request::Close { key }, &[], expect_ok)
    }

    /// A descriptor that becomes readable when this switch must hand over: it stops its workers and
    /// ends. `None` before it has attached.
    pub fn freeze_event(&self) -> Option<OwnedFd> {
        self.channel().events.get().and_then(|[freeze, _]| freeze.try_clone().ok())
    }

    /// A descriptor that reports a hang-up (`POLLRDHUP`) when the keeper has ended.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn end_event(&self) -> io::Result<OwnedFd> {
        self.channel().socket.try_clone()
    }

    /// Returns whether another switch is attached, too: if this one serves, that is its successor.
    pub fn is_followed(&self) -> bool {
        let answer = self.channel().ask(&Request::Followed, &[], |reply, _| match reply {
            Reply::Followed { is_followed } => Ok(is_followed),
            other => Err(unexpected(&other)),
        });
        // An older keeper cannot tell, and one that has ended has no other switch.
        answer.unwrap_or(false)
    }

    /// Tells the keeper that this switch is gone, before the process is: the kernel first frees its
    /// memory, which takes long if that is much. What it has kept stays.
    pub fn leave(&self) {
        self.channel().leave();
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
        let is_last = self.channel().ask(&Request::End, &[], |reply, _| match reply {
            Reply::Ended { is_last } => Ok(is_last),
            other => Err(unexpected(&other)),
        })?;
        if is_last && let Some(mut process) = self.process().take() {
            process.wait()?;
        }
        Ok(())
    }
}

fn stream_of(fds: Vec<OwnedFd>) -> io::Result<UnixStream> {
    let stream = fds.into_iter().next().map(UnixStream::from);
    stream.ok_or_else(|| io::Error::other("an answer lacks its stream"))
}

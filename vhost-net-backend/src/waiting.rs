//! Frontends that connect while another one is served: a VM that was started twice, or a successor
//! that connects before the old one has disconnected. They wait for their turn, in order. The log
//! and the status show them, as the frontends themselves cannot tell why they get no answer. The
//! session's keeper has copies of their connections, for the next process.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::keeper::ConnectionKeeper;
use crate::peer::Peer;

/// Most frontends that are accepted to wait; others stay in the listen queue. Each takes a
/// descriptor of this process.
const MAX_WAITING: usize = 8;

/// The frontends that have connected to a session's socket and are not served yet.
pub(crate) struct Waiting<'a> {
    /// `None` for a session that is the client.
    listener: Option<&'a UnixListener>,
    /// Whether no more are accepted until the next one is served.
    paused: bool,
    queue: VecDeque<UnixStream>,
    /// Keeps them under the path of the session's socket.
    keeper: Option<(&'a dyn ConnectionKeeper, &'a Path)>,
    /// How many the keeper has.
    kept: usize,
}

impl<'a> Waiting<'a> {
    /// No frontends, of a session that is the client.
    pub(crate) fn none() -> Waiting<'a> {
        Waiting { listener: None, paused: false, queue: VecDeque::new(), keeper: None, kept: 0 }
    }

    /// Those that connect to a listener, and first those that waited for an earlier process.
    pub(crate) fn at(
        listener: &'a UnixListener,
        keeper: Option<&'a dyn ConnectionKeeper>,
        path: &'a Path,
    ) -> Waiting<'a> {
        let queue: VecDeque<_> =
            keeper.map(|keeper| keeper.resume_waiting(path)).unwrap_or_default().into();
        let (kept, keeper) = (queue.len(), keeper.map(|keeper| (keeper, path)));
        Waiting { listener: Some(listener), paused: false, queue, keeper, kept }
    }

    /// Gives the keeper copies of those that wait.
    pub(crate) fn keep(&mut self) {
        if let Some((keeper, path)) = self.keeper.filter(|_| self.kept + self.queue.len() > 0) {
            let fds: Vec<_> = self.queue.iter().map(AsFd::as_fd).collect();
            keeper.keep_waiting(path, &fds);
            self.kept = fds.len();
        }
    }

    /// The listener while there is room.
    fn open(&self) -> Option<&'a UnixListener> {
        self.listener.filter(|_| !self.paused && self.queue.len() < MAX_WAITING)
    }

    /// Adds what to poll: the listener, and the waiting connections.
    pub(crate) fn watch<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        fds.extend(self.open().map(|listener| PollFd::new(listener, PollFlags::IN)));
        // A hang-up is reported without a flag.
        fds.extend(self.queue.iter().map(|stream| PollFd::new(stream, PollFlags::empty())));
    }

    /// Drops connections that have closed, and accepts the next one.
    ///
    /// # Errors
    /// It cannot be accepted, for want of descriptors or memory.
    pub(crate) fn accept(&mut self) -> io::Result<Option<Peer>> {
        self.queue.retain(|stream| !has_hung_up(stream));
        let Some(listener) = self.open() else { return Ok(None) };
        match listener.accept() {
            Ok((stream, _)) => {
                let peer = Peer::of(&stream);
                self.queue.push_back(stream);
                Ok(peer)
            }
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Accepts no more until [`Self::next`].
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Takes the frontend to serve next.
    pub(crate) fn next(&mut self) -> Option<UnixStream> {
        self.paused = false;
        let next = self.queue.pop_front();
        // Most are served as soon as they are accepted, and never were kept.
        if self.kept > 0 {
            self.keep();
        }
        next
    }

    /// All of them, the next one first.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.queue.iter().filter_map(Peer::of).collect()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.clear();
        self.keep();
    }
}

fn has_hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

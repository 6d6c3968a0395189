//! Frontends that connect while another one is served: a VM that was started twice, or a successor
//! that connects before the old one has disconnected. They wait for their turn, in order. The log
//! and the status show them, as the frontends themselves cannot tell why they get no answer.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(listener: Option<&'a UnixListener>) -> Waiting<'a> {
        Waiting { listener, paused: false, queue: VecDeque::new() }
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
        self.queue.pop_front()
    }

    /// All of them, the next one first.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.queue.iter().filter_map(Peer::of).collect()
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

//! Frontends that connect while another one is served: a VM that was started twice, or a successor
//! that is there before the old one is gone. They wait for their turn, in order; the operator is
//! told, as none of them can tell why it gets no answer.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::status::Peer;

/// Most of them that are accepted; others stay in the listener's own queue. Each holds a descriptor
/// of ours.
const MAX_WAITING: usize = 8;

/// The frontends that have come to a session's socket and are not served yet.
pub(crate) struct Waiting<'a> {
    /// As client of the frontend, a session has none.
    listener: Option<&'a UnixListener>,
    /// No more are let in until the next one is served.
    paused: bool,
    queue: VecDeque<UnixStream>,
}

impl<'a> Waiting<'a> {
    pub fn new(listener: Option<&'a UnixListener>) -> Waiting<'a> {
        Waiting { listener, paused: false, queue: VecDeque::new() }
    }

    /// The listener while there is room.
    fn open(&self) -> Option<&'a UnixListener> {
        self.listener.filter(|_| !self.paused && self.queue.len() < MAX_WAITING)
    }

    /// What to wait for: another one comes, or one that waits goes.
    pub fn watch<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        fds.extend(self.open().map(|listener| PollFd::new(listener, PollFlags::IN)));
        // That the other end has hung up is reported without being asked for.
        fds.extend(self.queue.iter().map(|stream| PollFd::new(stream, PollFlags::empty())));
    }

    /// Forgets those that have gone, and lets the next one in.
    ///
    /// # Errors
    /// It cannot be let in, for want of descriptors or memory.
    pub fn look(&mut self) -> io::Result<Option<Peer>> {
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

    /// Lets no more in until [`Self::next`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// The one whose turn it is.
    pub fn next(&mut self) -> Option<UnixStream> {
        self.paused = false;
        self.queue.pop_front()
    }

    /// All of them, the next one first.
    pub fn peers(&self) -> Vec<Peer> {
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

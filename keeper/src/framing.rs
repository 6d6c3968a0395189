//! Messages of vhost-user: a header of 12 bytes, a body, and descriptors
//! (<https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>, "Message Specification").
//!
//! The keeper needs to know where a message ends. The switch judges it: what is not a message is
//! passed on as far as it has come, and then ended, so that the switch names the fault.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::net::RecvFlags;

use crate::wire::{MOST_DESCRIPTORS, receive_bytes};

pub(crate) const HEADER: usize = 12;
/// Longest body in bytes, the limit of the switch.
pub(crate) const MAX_BODY: usize = 4096;
/// The version of the protocol, and the flag of a reply.
pub(crate) const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
pub(crate) const REPLY: u32 = 1 << 2;
pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// A message, or the beginning of one. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Rc<[u8]>,
    /// Those that came with the header.
    pub(crate) fds: Rc<[OwnedFd]>,
    /// Those that came with the body, where no switch expects any.
    pub(crate) misplaced: Rc<[OwnedFd]>,
}

impl Message {
    pub(crate) fn new(request: u32, body: &[u8], fds: Vec<OwnedFd>) -> Message {
        let words = [request, VERSION, body.len() as u32];
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).chain(body.iter().copied());
        Message { bytes: bytes.collect(), fds: fds.into(), misplaced: Rc::default() }
    }

    /// The same without the wish for a reply.
    pub(crate) fn quiet(&self) -> Message {
        let mut message = self.clone();
        if let Some(flags) = self.word(4).filter(|flags| flags & NEED_REPLY != 0) {
            let mut bytes = self.bytes.to_vec();
            bytes[4..8].copy_from_slice(&(flags & !NEED_REPLY).to_ne_bytes());
            message.bytes = bytes.into();
        }
        message
    }

    /// The number of the request; `None` of what is no message.
    pub(crate) fn request(&self) -> Option<u32> {
        self.word(0)
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.bytes, at)
    }
}

/// A word of the host's order.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What reading gave.
pub(crate) enum Read {
    /// Nothing whole so far.
    Pending,
    Message(Message),
    /// What is no message, or the part of one before the frontend's end.
    Last(Message),
}

/// The message that is being read.
#[derive(Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    misplaced: Vec<OwnedFd>,
    /// Whether the frontend has closed the connection.
    pub(crate) is_at_end: bool,
}

impl Reader {
    /// Reads on, to the end of the message at most. Descriptors with numbers from `kept_from` are
    /// not taken: the message is then cut.
    pub(crate) fn read(&mut self, frontend: impl AsFd, kept_from: u64) -> Read {
        let mut buffer = [0; HEADER + MAX_BODY];
        loop {
            let Some(left) = self.left() else { return Read::Last(self.take()) };
            if left == 0 {
                return Read::Message(self.take());
            }
            match receive_bytes(&frontend, &mut buffer[..left], RecvFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Pending,
                Ok(received) if received.bytes > 0 => {
                    let number = |fd: &OwnedFd| u64::try_from(fd.as_raw_fd()).unwrap_or(0);
                    let is_cut = received.lacks_descriptors
                        || received.fds.iter().any(|fd| number(fd) >= kept_from);
                    let is_header = self.bytes.len() < HEADER;
                    let fds = if is_header { &mut self.fds } else { &mut self.misplaced };
                    fds.extend(received.fds);
                    self.bytes.extend(&buffer[..received.bytes]);
                    if is_cut || fds.len() > MOST_DESCRIPTORS {
                        fds.truncate(MOST_DESCRIPTORS);
                        return Read::Last(self.take());
                    }
                }
                // A frontend that left without reading its replies makes an error of it.
                _ => {
                    self.is_at_end = true;
                    return Read::Last(self.take());
                }
            }
        }
    }

    /// How many bytes the next step needs; `None` if the header is none.
    fn left(&self) -> Option<usize> {
        let Some(have) = self.bytes.len().checked_sub(HEADER) else {
            return Some(HEADER - self.bytes.len());
        };
        let (flags, size) = (word(&self.bytes, 4)?, word(&self.bytes, 8)? as usize);
        let is_well_formed = flags & (VERSION_MASK | REPLY) == VERSION && size <= MAX_BODY;
        is_well_formed.then(|| size.saturating_sub(have))
    }

    fn take(&mut self) -> Message {
        Message {
            bytes: std::mem::take(&mut self.bytes).into(),
            fds: std::mem::take(&mut self.fds).into(),
            misplaced: std::mem::take(&mut self.misplaced).into(),
        }
    }
}

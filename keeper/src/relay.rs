//! One connection of a frontend: between its socket and the stream of the switch that serves it.
//!
//! ```text
//!             ┌─────────────────────────── relay ───────────────────────────┐
//!  frontend ──┼─▶ Reader ─▶ outstanding ─▶ End (serving) ──────────────────┼─▶ switch
//!             │                 │ done                                      │
//!             │                 ├─▶ Log ─▶ what a new switch is sent first  │
//!             │                 └─▶ End (next) ─────────────────────────────┼─▶ its successor
//!  frontend ◀─┼── replies ◀─ what the stream holds once it is done ◀───────┼── switch
//!             └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! One message at a time is outstanding. Until the switch says that it is done, its reply stays
//! unread on the stream: if the switch dies, both are gone with the stream, and the message is sent
//! to the next switch. So each message is served at least once, and its reply is sent once. What a
//! switch replies to messages of the past is dropped.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};

use crate::framing::{HEADER, MAX_BODY, Message, Read, Reader};
use crate::log::{Log, MOST_MESSAGES};
use crate::store::Switch;
use crate::wire::{MOST_DESCRIPTORS, receive_bytes, send_flagged};

/// Most bytes that a switch may have written when it says that a message is done: replies to
/// all messages of the past.
const MOST_UNREAD: usize = 64 << 10;

/// The switch that asks.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) switch: Switch,
    /// Whether it serves; if not, it is the successor.
    pub(crate) serves: bool,
}

/// What a relay can do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// It waits for an event.
    Wait,
    /// It can make another step at once.
    Again,
    /// The system lacks room for descriptors under way; it tries again later.
    Later,
    /// The connection is over.
    Over,
}

/// Why a connection is closed, or a switch not listened to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Log(#[from] crate::log::Full),
    #[error("the switch has replied with more than a reply")]
    Reply,
}

/// The message that the frontend waits for.
struct Outstanding {
    message: Message,
    /// Whether the switch must see the connection end after it.
    is_last: bool,
}

/// The keeper's end of a stream to a switch.
struct End {
    switch: Switch,
    stream: OwnedFd,
    unsent: VecDeque<Message>,
    /// Bytes of the first one that were sent.
    sent: usize,
    /// Messages of the past that are not done.
    past: usize,
    /// Whether the outstanding message is among those that were sent.
    is_asked: bool,
}

pub(crate) struct Relay {
    pub(crate) value: Vec<u8>,
    pub(crate) frontend: OwnedFd,
    /// The last switch that has relayed or resumed it.
    pub(crate) claimed: Switch,
    reader: Reader,
    log: Log,
    outstanding: Option<Outstanding>,
    /// What the frontend has not taken.
    replies: Vec<u8>,
    reply_fds: Vec<OwnedFd>,
    serving: Option<End>,
    next: Option<End>,
    /// Whether the frontend has closed the connection.
    is_hung_up: bool,
    /// Whether the successor has closed the connection, which ends with the switch that serves.
    is_declined: bool,
}

/// Whether a write was taken.
enum Written {
    All,
    Blocked,
    Later,
    Broken,
}

impl Relay {
    pub(crate) fn new(value: &[u8], frontend: OwnedFd, switch: Switch) -> Relay {
        Relay {
            value: value.to_vec(),
            frontend,
            claimed: switch,
            reader: Reader::default(),
            log: Log::default(),
            outstanding: None,
            replies: Vec::new(),
            reply_fds: Vec::new(),
            serving: None,
            next: None,
            is_hung_up: false,
            is_declined: false,
        }
    }

    /// Opens a stream to a switch: to the one that serves, or to its successor. Returns the
    /// switch's end and how many messages of the past it will be sent.
    pub(crate) fn open(&mut self, caller: Caller) -> io::Result<(OwnedFd, usize)> {
        let Caller { switch, serves } = caller;
        let flags = SocketFlags::CLOEXEC;
        let (stream, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let unsent: VecDeque<_> = self.log.messages().cloned().collect();
        let past = unsent.len();
        let end = End { switch, stream, unsent, sent: 0, past, is_asked: false };
        *(if serves { &mut self.serving } else { &mut self.next }) = Some(end);
        self.claimed = self.claimed.max(switch);
        self.is_declined = false;
        Ok((theirs, past))
    }

    /// A successor closes the connection. Returns whether that is all that there is to do, as
    /// another switch serves it.
    pub(crate) fn decline(&mut self, switch: Switch) -> bool {
        let is_other = self.serving.as_ref().is_some_and(|end| end.switch != switch);
        if is_other {
            self.is_declined = self.next.take_if(|end| end.switch == switch).is_some();
        }
        is_other
    }

    /// Whether this switch, which is gone, was the only one that had the connection.
    pub(crate) fn is_orphan_of(&self, switch: Switch) -> bool {
        self.serving.is_none() && self.claimed == switch
    }

    /// The keeper's end of the stream to this switch.
    pub(crate) fn stream_to(&self, switch: Switch) -> Option<&OwnedFd> {
        let ends = [&self.serving, &self.next].into_iter().flatten();
        ends.filter(|end| end.switch == switch).map(|end| &end.stream).next()
    }

    /// The frontend has closed the connection, although messages of it may be unread.
    pub(crate) fn hang_up(&mut self) {
        self.is_hung_up = true;
    }

    /// A switch is gone; its successor serves.
    pub(crate) fn lose(&mut self, switch: Switch) {
        self.serving.take_if(|end| end.switch == switch);
        self.next.take_if(|end| end.switch == switch);
        if self.serving.is_none() {
            self.serving = self.next.take();
        }
    }

    /// Moves at most one message.
    pub(crate) fn step(&mut self, kept_from: u64) -> Next {
        match self.write_replies() {
            Written::Later => return Next::Later,
            Written::Blocked => return Next::Wait,
            Written::All | Written::Broken => {}
        }
        let mut is_later = false;
        for place in [&mut self.next, &mut self.serving] {
            match place.as_mut().map(End::write) {
                Some(Written::Broken) => *place = None,
                Some(Written::Later) => is_later = true,
                Some(Written::All | Written::Blocked) | None => {}
            }
        }
        let Some(end) = self.serving.as_mut().filter(|_| !is_later) else {
            let is_over = self.is_hung_up || self.is_declined;
            return match (is_later, is_over && self.serving.is_none()) {
                (true, _) => Next::Later,
                (_, true) => Next::Over,
                _ => Next::Wait,
            };
        };
        if !end.unsent.is_empty() || end.past > 0 {
            return Next::Wait;
        }
        match &self.outstanding {
            Some(asked) if end.is_asked => {
                if asked.is_last {
                    self.serving = None;
                    return Next::Again;
                }
                Next::Wait
            }
            Some(asked) => {
                end.is_asked = true;
                if !asked.message.bytes.is_empty() {
                    end.unsent.push_back(asked.message.clone());
                }
                Next::Again
            }
            None => self.read(kept_from),
        }
    }

    fn read(&mut self, kept_from: u64) -> Next {
        let (message, is_last) = match self.reader.read(&self.frontend, kept_from) {
            Read::Pending => return Next::Wait,
            Read::Message(message) => (message, false),
            Read::Last(message) => (message, true),
        };
        self.is_hung_up |= self.reader.is_at_end;
        self.outstanding = Some(Outstanding { message, is_last });
        Next::Again
    }

    fn write_replies(&mut self) -> Written {
        while !self.replies.is_empty() {
            let fds: Vec<_> = self.reply_fds.iter().map(AsFd::as_fd).collect();
            match send_flagged(&self.frontend, &self.replies, &fds, SendFlags::DONTWAIT) {
                Ok(sent) => {
                    self.replies.drain(..sent);
                    self.reply_fds.clear();
                }
                Err(error) => {
                    let written = failed(&error);
                    if matches!(written, Written::Broken) {
                        self.replies.clear();
                        self.reply_fds.clear();
                    }
                    return written;
                }
            }
        }
        Written::All
    }

    /// A switch says that a message is done.
    ///
    /// # Errors
    /// The connection must be closed.
    pub(crate) fn done(&mut self, switch: Switch) -> Result<(), Fault> {
        if let Some(next) = self.next.as_mut().filter(|end| end.switch == switch) {
            return next.done_with_past();
        }
        let Some(end) = self.serving.as_mut().filter(|end| end.switch == switch) else {
            return Ok(());
        };
        if end.past > 0 {
            return end.done_with_past();
        }
        if !end.is_asked || !end.unsent.is_empty() {
            return Ok(());
        }
        let Some(asked) = self.outstanding.take_if(|asked| !asked.is_last) else { return Ok(()) };
        end.is_asked = false;
        let (reply, fds) = end.read(HEADER + MAX_BODY)?;
        self.log.enter(&asked.message, &reply)?;
        self.replies.extend(reply);
        self.reply_fds.extend(fds);
        if let Some(next) = &mut self.next {
            next.past += 1;
            next.unsent.push_back(asked.message.quiet());
            // A successor that does not read must not make the keeper hold ever more for it.
            self.next.take_if(|next| next.unsent.len() > 2 * MOST_MESSAGES);
        }
        Ok(())
    }

    /// A switch closes the connection: what it has replied is sent first.
    pub(crate) fn close(mut self, switch: Switch) {
        let end = self.serving.as_mut().filter(|end| end.switch == switch && end.past == 0);
        if let Some(Ok((reply, fds))) = end.map(|end| end.read(HEADER + MAX_BODY)) {
            self.replies.extend(reply);
            self.reply_fds.extend(fds);
        }
        // What does not fit is lost with the connection.
        self.write_replies();
    }
}

impl End {
    /// Writes what the stream takes.
    fn write(&mut self) -> Written {
        while let Some(message) = self.unsent.front() {
            let bytes = &message.bytes;
            let is_cut = !message.misplaced.is_empty() && self.sent < HEADER;
            let to = if is_cut { HEADER.min(bytes.len()) } else { bytes.len() };
            let fds: &[OwnedFd] = match self.sent {
                0 => &message.fds,
                HEADER => &message.misplaced,
                _ => &[],
            };
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let piece = &bytes[self.sent..to];
            match send_flagged(&self.stream, piece, &fds, SendFlags::DONTWAIT) {
                Ok(sent) => self.sent += sent,
                Err(error) => return failed(&error),
            }
            if self.sent >= bytes.len() {
                self.unsent.pop_front();
                self.sent = 0;
            }
        }
        Written::All
    }

    fn done_with_past(&mut self) -> Result<(), Fault> {
        if self.past > self.unsent.len() {
            self.read(MOST_UNREAD)?;
            self.past -= 1;
        }
        Ok(())
    }

    /// Reads what the switch has written, at most `most` bytes.
    fn read(&mut self, most: usize) -> Result<(Vec<u8>, Vec<OwnedFd>), Fault> {
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        let mut buffer = [0; HEADER + MAX_BODY];
        loop {
            match receive_bytes(&self.stream, &mut buffer, RecvFlags::DONTWAIT) {
                Ok(received) if received.bytes > 0 => {
                    bytes.extend(&buffer[..received.bytes]);
                    fds.extend(received.fds);
                }
                // Empty, or closed by the switch.
                _ => return Ok((bytes, fds)),
            }
            if bytes.len() > most || fds.len() > MOST_DESCRIPTORS {
                return Err(Fault::Reply);
            }
        }
    }
}

fn failed(error: &io::Error) -> Written {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => Written::Later,
        _ if error.kind() == ErrorKind::WouldBlock => Written::Blocked,
        _ => Written::Broken,
    }
}

#[cfg(test)]
mod tests;

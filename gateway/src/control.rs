//! The channel between a daemon and its gateway process: one JSON value per line, over a pair of
//! Unix sockets. The first message carries the descriptors of the cable ([`send_end`]).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::link::{GuestEnd, Layout};
use crate::question::{Answer, Question};
use crate::report::Status;

/// Longest line, which bounds the memory that a faulty peer can use.
const MAX_LINE: usize = 1 << 20;

/// The files in which the host's resolvers are stated; empty where there is none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResolverFiles {
    /// `resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// The file in which systemd-resolved lists its servers.
    pub stub_upstream: Vec<u8>,
}

/// A message from the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// The first command, after the descriptors.
    Start {
        /// The layout of the rings in the shared memory.
        layout: Layout,
        /// The gateway's settings.
        config: Config,
    },
    /// New settings.
    Configure(Config),
    /// A question, whose answer comes in parts with the same `id`.
    Ask {
        /// Identifies the answer.
        id: u64,
        /// The table that is queried.
        question: Question,
    },
    /// Whether the gateway's loop runs; it answers with [`Report::Pong`].
    Ping,
    /// The answer to [`Report::ReadResolvers`].
    Resolvers(ResolverFiles),
}

/// A message from the gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// The services are ready.
    Ready {
        /// The parts of the sandbox that are not in force, each with the reason.
        missing: Vec<String>,
    },
    /// The counters have changed; at most one a second.
    Status(Box<Status>),
    /// The answer to [`Command::Ping`].
    Pong,
    /// The process may not read where the host's resolvers are stated.
    ReadResolvers,
    /// A line for the log.
    Warning(String),
    /// A part of an answer; its rows follow those of the previous part.
    Answer {
        /// The `id` of the question.
        id: u64,
        /// Rows of the table.
        part: Answer,
        /// Whether this is the last part.
        last: bool,
    },
}

/// Passes the gateway's end of the cable, and the journal of its flows, which the next gateway
/// process gets as well.
///
/// # Errors
///
/// The other end is closed.
pub fn send_end(stream: &UnixStream, end: &GuestEnd, journal: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [end.memory.as_fd(), end.kick.as_fd(), end.call.as_fd(), journal];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    sendmsg(stream, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives what [`send_end`] passes. Blocks until it arrives.
///
/// # Errors
///
/// Something else arrived.
pub fn receive_end(stream: &UnixStream) -> io::Result<(GuestEnd, OwnedFd)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)?;
    let mut fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<OwnedFd>>(),
        _ => Vec::new(),
    });
    match (fds.next(), fds.next(), fds.next(), fds.next()) {
        (Some(memory), Some(kick), Some(call), Some(journal)) => {
            Ok((GuestEnd { memory, kick, call }, journal))
        }
        _ => Err(io::Error::other("no descriptors received; only tramad can start a gateway")),
    }
}

/// One end of the channel. Never blocks.
pub struct Channel {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Channel {
    /// Takes over a stream.
    ///
    /// # Errors
    ///
    /// It cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        Ok(Channel { stream, input: Vec::new(), output: Vec::new() })
    }

    /// The stream itself.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Queues a message and sends what the socket takes; [`Channel::flush`] sends the rest. A
    /// message is dropped if the other end has not read a megabyte of earlier ones.
    ///
    /// # Errors
    ///
    /// The other end is closed.
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        if self.output.len() < MAX_LINE {
            serde_json::to_writer(&mut self.output, message)?;
            self.output.push(b'\n');
        }
        self.flush()
    }

    /// Sends queued messages, as far as the socket takes them.
    ///
    /// # Errors
    ///
    /// The other end is closed.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match (&self.stream).write(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether messages are queued that the socket did not take.
    pub fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }

    /// Receives messages, at most a megabyte at a time; `None` if the other end is closed.
    ///
    /// # Errors
    ///
    /// A message is not valid.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<Vec<T>>> {
        let mut open = true;
        let mut room = [0; 4096];
        while self.input.len() < MAX_LINE {
            match (&self.stream).read(&mut room) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(length) => self.input.extend_from_slice(&room[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    open = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let complete = self.input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if complete == 0 && self.input.len() >= MAX_LINE {
            return Err(io::Error::other("a message is longer than a megabyte"));
        }
        let lines: Vec<u8> = self.input.drain(..complete).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let messages: Vec<T> = lines.map(serde_json::from_slice).collect::<Result<_, _>>()?;
        Ok((open || !messages.is_empty()).then_some(messages))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;
    use trama_nat::Station;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    fn with_mtu(mtu: u16) -> Config {
        Config { station: Station { mtu, ..lab().station }, ..lab() }
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (daemon, gateway) = pair();
        let (mut daemon, mut gateway) =
            (Channel::new(daemon).unwrap(), Channel::new(gateway).unwrap());
        assert_eq!(gateway.receive::<Command>().unwrap(), Some(vec![]));
        let sent: Vec<Command> = (0..2000).map(|mtu| Command::Configure(with_mtu(mtu))).collect();
        let mut received = Vec::new();
        for message in &sent {
            daemon.send(message).unwrap();
            if daemon.is_behind() {
                received.extend(gateway.receive::<Command>().unwrap().unwrap());
            }
        }
        while daemon.is_behind() || received.len() < sent.len() {
            daemon.flush().unwrap();
            received.extend(gateway.receive::<Command>().unwrap().unwrap());
        }
        assert_eq!(received, sent);
        drop(daemon);
        assert_eq!(gateway.receive::<Command>().unwrap(), None);
    }

    #[test]
    fn garbage_and_endless_lines_are_errors() {
        let (mut wild, gateway) = pair();
        let mut gateway = Channel::new(gateway).unwrap();
        wild.write_all(b"{\"fly\":1}\n").unwrap();
        assert!(gateway.receive::<Command>().is_err());
        wild.set_nonblocking(true).unwrap();
        let refused = (0..10_000).any(|_| {
            let _ = wild.write(&[b'x'; 4096]);
            gateway.receive::<Command>().is_err()
        });
        assert!(refused);
    }

    #[test]
    fn the_link_is_passed_and_nothing_else_is_accepted_for_it() {
        let (daemon, gateway) = pair();
        let (_, end) = crate::link::wire(Layout::of(&lab())).unwrap();
        send_end(&daemon, &end, daemon.as_fd()).unwrap();
        assert!(
            crate::link::Link::attach(Layout::of(&lab()), receive_end(&gateway).unwrap().0).is_ok()
        );
        (&daemon).write_all(b"\n").unwrap();
        assert!(receive_end(&gateway).is_err());
    }
}
